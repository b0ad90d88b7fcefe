"""One TOML file, `curator.toml`, into frozen, checked models.

Every value has a default that works, except the model and the tasks. An unknown key, a wrong type or a value out of
range is one `ConfigError` that lists all of them, each with the file, the key and the fix.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]
# What is larger fits no array; every number of 64 bits and more would fail somewhere, late.
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Method = Literal[
    "forward",
    "backward",
    "exchange",
    "ensemble",
    "mixture",
    "random",
    "embedding",
    "bm25",
    "gradient-cosine",
    "less",
    "kmm",
]
Estimator = Literal["quadratic", "logistic"]
RowField = Literal[
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "tools",
    "inputs",
    "targets",
    "text",
    "role",
    "content",
]
Role = Literal["system", "user", "assistant", "tool", "function_call"]


def target_names(target: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the targets, however they are written: one name, several, or none."""
    names = (target,) if isinstance(target, str) else target or ()
    return tuple(name for name in names if name)


def target_label(targets: Sequence[str]) -> str:
    """Return the one name by which the store and the screens know several targets."""
    return "+".join(targets)


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class ProjectSection(_Section):
    """`[project]`."""

    name: str = Field(default="", max_length=200)
    """Name in reports and manifests; empty means the folder's name."""


class ModelSection(_Section):
    """`[model]`: the language model that is fine-tuned."""

    name_or_path: str = Field(min_length=1)
    """A hub id, or a folder relative to the project."""
    revision: str = ""
    """Hub revision; recorded in the manifest."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU that has it, else float32."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """QLoRA through bitsandbytes; needs a CUDA GPU."""
    attention: str = "auto"
    """Passed on as `attn_implementation`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never true by itself."""


class LoraSection(_Section):
    """`[lora]`: what is trained."""

    r: Annotated[int, Field(ge=1, le=2**13)] = 8
    """Rank of the adapter's factors."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter: all linear ones but the head, or those of these names."""


class TaskSource(_Section):
    """One `[[data.task]]` table."""

    name: str = Field(default="", max_length=1000)
    """The task's name; with `task_column`, what stands before the name of each."""
    path: str | Annotated[tuple[str, ...], Field(min_length=1)] = ""
    """A file, a folder or a glob, relative to the project, or an address such as `s3://…`; or a list of them."""
    hub: str = ""
    """A `datasets` id, in place of `path`."""
    config: str = ""
    split: str = "train"
    revision: str = ""
    streaming: bool | None = None
    """Read a hub data set as it comes over the net, or download it first; by default streamed, but for a slice."""
    task_column: str = ""
    """Make a task of each value of this column."""
    column: str = ""
    """Keep only the rows whose `column` equals `value`: one file becomes many tasks."""
    value: str | int | bool | None = None
    columns: dict[RowField, Annotated[str, Field(min_length=1)]] = {}
    """Names of the columns where they are not those that curator knows: `{instruction = "query"}`."""
    roles: dict[str, Role] = {}
    """Who speaks, where a chat calls them otherwise: `{customer = "user"}`."""
    tags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if not self.name and not self.task_column:
            raise ValueError("a task needs a `name`, unless `task_column` gives one to each of many")
        named = f"task {self.name!r}" if self.name else f"`task_column` {self.task_column!r}"
        if bool(self.path) == bool(self.hub):
            raise ValueError(f"{named} needs either `path` or `hub`, and not both")
        if bool(self.column) != (self.value is not None):
            raise ValueError(f"{named}: `column` and `value` go together; give both or neither")
        if self.task_column and self.column:
            raise ValueError(f"{named}: `task_column` makes a task of every value; remove `column` and `value`")
        if self.path and (self.config or self.revision):
            raise ValueError(f"{named}: `config` and `revision` belong to `hub`, not to `path`")
        if self.path and self.streaming is not None:
            raise ValueError(f"{named}: `streaming` belongs to `hub`, not to `path`")
        if self.streaming and ("[" in self.split or "+" in self.split):
            raise ValueError(f"{named}: the split {self.split!r} cannot be streamed; remove `streaming`")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple, whichever way it was written."""
        return (self.path,) if isinstance(self.path, str) else self.path


class DataSection(_Section):
    """`[data]`: the tasks, and which of them is the target."""

    tasks: str = ""
    """Glob, relative to the project: one file per task, its stem is the task's name."""
    task: tuple[TaskSource, ...] = ()
    """Tasks named one by one, in place of the glob."""
    target: str | tuple[str, ...] = ()
    """Default target task, or several."""
    target_weights: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = {}
    """How much each of several targets counts in the loss, by the target's name; 1 where it is not named."""
    validation: Share = 0.2
    """Share of the target held out, unless it has a file of its own below."""
    validation_files: dict[str, str] = {}
    """Validation file of a target, by the target's name."""
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = 256
    """Tokens; longer examples are truncated and counted."""
    max_examples_per_task: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """0 means all; else a seeded sample."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """What becomes of rows that cannot be used: `skip` leaves them out, counted."""
    seed: Seed = 0
    """Of what is held out and what is sampled."""

    @model_validator(mode="after")
    def _tasks_once(self) -> Self:
        if self.tasks and self.task:
            raise ValueError("the tasks are named twice, by the glob `tasks` and by [[data.task]] tables; remove one")
        if not self.tasks and not self.task:
            raise ValueError('no task is named; add tasks = "tasks/*.jsonl", or [[data.task]] tables')
        counted = Counter(task.name for task in self.task if not task.task_column)
        twice = sorted(name for name, count in counted.items() if count > 1)
        if twice:
            more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
            raise ValueError(f"task names must be unique; more than once: {', '.join(twice[:5])}{more}")
        return self

    def share_of(self, target: str, targets: Sequence[str]) -> float:
        """The share of one of several targets in the loss."""
        return self.target_weights.get(target, 1.0) / sum(self.target_weights.get(name, 1.0) for name in targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """The target as a tuple of names, whichever way it is written."""
        return target_names(self.target)


class TrainSection(_Section):
    """`[train]`: the recipe of meta-training and of every fine-tuning run."""

    epochs: Annotated[float, Field(gt=0, le=1e6)] = 3
    """Passes over the examples."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Of AdamW, at its highest."""
    batch_size: Positive = 32
    """Examples per optimizer step and process, before `gradient_accumulation`."""
    gradient_accumulation: Positive = 1
    """Batches that make one optimizer step."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    seed: Seed = 0
    """Of the adapter's initialization and the order of the examples."""


class GradientsSection(_Section):
    """`[gradients]`: where gradients are taken, and how they are projected."""

    projection_dim: Annotated[int, Field(ge=1, le=2**13)] = 256
    """Numbers that are kept of a gradient."""
    projection_seed: Seed = 0
    """Of the random projection."""
    points: Literal["auto"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = "auto"
    """Shares of meta-training's steps at which gradients are taken."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps before each point over which the adapter is averaged; 0 takes it as it is at that step."""
    batch_tokens: Positive = 4096
    """Tokens, padding included, that go through the model at once."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The points as increasing shares of meta-training's steps."""
        return (0.2, 0.4) if self.points == "auto" else tuple(sorted(set(self.points)))


class EstimateSection(_Section):
    """`[estimate]`: from gradients to the loss of a subset."""

    method: Estimator = "quadratic"
    """`logistic` is the paper's."""
    ridge: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Holds the displacement back; `auto` is a share of the gradients' squared length."""


class SelectSection(_Section):
    """`[select]`: from estimates to a subset."""

    method: Method = "forward"
    """Way of selecting; the last six are baselines to compare with."""
    subsets: Annotated[int, Field(ge=2, lt=2**31)] = 1000
    """Random ensemble: how many subsets."""
    subset_size: Share = 0.5
    """Random ensemble: share of the tasks in each subset."""
    seed: Seed = 0
    """Of the random subsets, and of the subsets that `verify` chooses."""


class Config(_Section):
    """The whole of `curator.toml`."""

    project: ProjectSection = ProjectSection()
    model: ModelSection
    lora: LoraSection = LoraSection()
    data: DataSection
    train: TrainSection = TrainSection()
    gradients: GradientsSection = GradientsSection()
    estimate: EstimateSection = EstimateSection()
    select: SelectSection = SelectSection()
