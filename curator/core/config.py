"""Models of `curator.toml`: frozen, with every value checked.

Every key has a default, except the model and the tasks. One `ConfigError` lists all unknown keys, wrong types and
values out of range, each with the key and the fix.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from curator.core.figures import first_of
from curator.core.hub_ids import checked_hub_id
from curator.core.metric_name import parse_metric

Share = Annotated[float, Field(gt=0, lt=1)]
# Larger numbers fit no array, and would fail late.
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
Estimator = Literal["trajectory", "quadratic", "logistic"]
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
    """Return the names of the targets as a tuple, from one name, several names or None."""
    names = (target,) if isinstance(target, str) else target or ()
    return tuple(name for name in names if name)


def target_label(targets: Sequence[str]) -> str:
    """Return the label of several targets in the store and on screens: their names, joined by `+`."""
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
    """`[project]`: name of the project."""

    name: str = Field(default="", max_length=200)
    """Name in reports and manifests. Empty for the name of the folder."""


class ModelSection(_Section):
    """`[model]`: the language model that is fine-tuned."""

    name_or_path: str = Field(min_length=1)
    """Hub id, or a folder relative to the project."""
    revision: str = ""
    """Hub revision. Recorded in the manifest."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights. `auto` is bfloat16 on a GPU that supports it, else float32."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """QLoRA with bitsandbytes. Requires a CUDA GPU."""
    attention: str = "auto"
    """Passed to transformers as `attn_implementation`."""
    device_map: str | dict[str, str | int] = ""
    """Passed to transformers. `auto` spreads the layers of a large model over several GPUs. A table gives the device of
    each module. Empty for one device."""
    shard: Literal["none", "layers"] = "none"
    """`layers` cuts each layer of the base among the processes (FSDP2), for a model larger than one GPU. With `none`,
    every process holds the whole base."""
    trust_remote_code: bool = False
    """Run Python code of the model's repository. curator never sets it to true."""


class LoraSection(_Section):
    """`[lora]`: the adapter that is trained."""

    r: Annotated[int, Field(ge=1, le=2**13)] = 8
    """Rank of the adapter."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """Scale of the adapter: its output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that training drops."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Layers with an adapter: all linear layers except the head, or a list of names."""


def _one_character(delimiter: str) -> str:
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ValueError("must be one character, and neither a quote nor a line break")
    return delimiter


class CsvOptions(_Section):
    """`csv` of a `[[data.task]]` table: how the cells of a CSV or TSV file are written."""

    delimiter: Annotated[str, AfterValidator(_one_character)] | None = None
    """Character between cells. By default found out from the file."""
    header: bool | None = None
    """Whether the first line names the columns. If not, the names are `1`, `2` and so on."""
    quoting: bool | None = None
    """Whether quotes enclose cells. If not, a quote is a character like any other."""


class TaskSource(_Section):
    """One `[[data.task]]` table."""

    name: str = Field(default="", max_length=1000)
    """Name of the task. With `task_column`, prefix of each name."""
    path: str | Annotated[tuple[str, ...], Field(min_length=1)] = ""
    """File, folder or glob relative to the project, an address such as `s3://…`, or a list of these."""
    hub: Annotated[str, AfterValidator(checked_hub_id)] = ""
    """Id of a `datasets` data set, `owner/name`, instead of `path`. A folder of this name is not read."""
    config: str = ""
    """Configuration of the hub data set."""
    split: str = "train"
    """Split of the hub data set, or a slice such as `train[:1000]`."""
    revision: str = ""
    """Revision of the hub data set."""
    streaming: bool | None = None
    """Stream a hub data set instead of downloading it first. By default true, except for a slice of a split."""
    task_column: str = ""
    """Create one task for each value of this column."""
    column: str = ""
    """Keep only the rows whose `column` equals `value`, so that one file can hold many tasks."""
    value: str | int | bool | None = None
    """Value of `column` in the rows to keep."""
    columns: dict[RowField, Annotated[str, Field(min_length=1)]] = {}
    """Names of columns that differ from the known names: `{instruction = "query"}`. Dots lead into a column."""
    rows: str = ""
    """Path to the list of rows inside a JSON object or a nested row: `data.examples`."""
    csv: CsvOptions = CsvOptions()
    """Format of CSV and TSV files: `{delimiter = ";", header = false, quoting = false}`. By default found out."""
    roles: dict[str, Role] = {}
    """Roles in a chat that differ from the known roles: `{customer = "user"}`."""
    tags: tuple[str, ...] = ()
    """Labels of the task, for filters."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if not self.name and not self.task_column:
            raise ValueError("a task needs a `name` or a `task_column`")
        named = f"task {self.name!r}" if self.name else f"`task_column` {self.task_column!r}"
        if bool(self.path) == bool(self.hub):
            raise ValueError(f"{named}: exactly one of `path` and `hub` is required")
        if bool(self.column) != (self.value is not None):
            raise ValueError(f"{named}: `column` and `value` require each other (set both or neither)")
        if self.task_column and self.column:
            raise ValueError(f"{named}: `task_column` excludes `column` and `value` (remove them)")
        if self.path and (self.config or self.revision):
            raise ValueError(f"{named}: `config` and `revision` require `hub`, not `path`")
        if self.path and self.streaming is not None:
            raise ValueError(f"{named}: `streaming` requires `hub`, not `path`")
        if self.hub and self.csv != CsvOptions():
            raise ValueError(f"{named}: `csv` requires `path`, not `hub`")
        if self.streaming and ("[" in self.split or "+" in self.split):
            raise ValueError(f"{named}: cannot stream the split {self.split!r} (remove `streaming`)")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """Return `path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


class DataSection(_Section):
    """`[data]`: the tasks and the target."""

    tasks: str = ""
    """Glob relative to the project, with one file per task. The file's stem is the name of the task. `**` matches any
    number of folders. Wildcards match no name that starts with a dot."""
    task: tuple[TaskSource, ...] = ()
    """Tasks listed one by one, instead of the glob."""
    target: str | tuple[str, ...] = ()
    """Default target task, or a list of target tasks."""
    target_weights: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = {}
    """Weight of each of several targets in the loss, by the target's name. 1 if not listed."""
    validation: Share = 0.2
    """Held-out share of the target task, unless `validation_files` lists the target."""
    validation_files: dict[str, str] = {}
    """Validation file of a target, by the target's name."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of the target task that no estimate, calibration or choice reads, only the report. 0 for no test part."""
    test_files: dict[str, str] = {}
    """Test file of a target, by the target's name, instead of a share."""
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = 256
    """Maximum number of tokens. Longer examples are truncated and counted."""
    max_examples_per_task: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Maximum number of examples of a task, drawn by `seed`. 0 for all."""
    chat_template: str = ""
    """Chat template instead of the model's own: a file, the name of one of the tokenizer's templates, or the template's
    text."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Treatment of invalid rows: `refuse` stops with an error, `skip` omits and counts them."""
    seed: Seed = 0
    """Seed of held-out and sampled examples."""

    @model_validator(mode="after")
    def _tasks_once(self) -> Self:
        if self.test + self.validation >= 1:
            raise ValueError("`validation` and `test` leave no rows for training (their sum must be below 1)")
        if self.tasks and self.task:
            raise ValueError("`tasks` and [[data.task]] are both set (remove one)")
        if not self.tasks and not self.task:
            raise ValueError('no task is set (add tasks = "tasks/*.jsonl", or [[data.task]] tables)')
        counted = Counter(task.name for task in self.task if not task.task_column)
        twice = sorted(name for name, count in counted.items() if count > 1)
        if twice:
            raise ValueError(f"duplicate task names: {first_of(twice, 5)}")
        return self

    def share_of(self, target: str, targets: Sequence[str]) -> float:
        """Return the share of one of several targets in the loss, from 0 to 1."""
        return self.target_weights.get(target, 1.0) / sum(self.target_weights.get(name, 1.0) for name in targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the names of the targets as a tuple."""
        return target_names(self.target)


class TrainSection(_Section):
    """`[train]`: settings of meta-training and of every fine-tuning run."""

    epochs: Annotated[float, Field(gt=0, le=1e6)] = 3
    """Passes over the examples."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Highest learning rate of AdamW."""
    batch_size: Positive = 32
    """Examples per batch and process. `gradient_accumulation` batches make one optimizer step."""
    gradient_accumulation: Positive = 1
    """Batches per optimizer step."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps during which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    seed: Seed = 0
    """Seed of the adapter's initialization and of the order of examples."""
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = "none"
    """Experiment tracker that training, verified runs and selections are logged to. Exports carry the setting."""

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide the trained weights, as JSON values."""
        return self.model_dump(mode="json", exclude={"report_to"})


# Segments of the trajectory, and parts of each. Entries of a captured gradient for each kept one, and their largest
# number by this rule.
_SEGMENTS, _PARTS, _SKETCH, _MOST_SKETCH = 4, 4, 8, 2048


class GradientsSection(_Section):
    """`[gradients]`: checkpoints and projection of the gradients."""

    projection_dim: Annotated[int, Field(ge=1, le=2**13)] = 256
    """Number of entries that are kept of each example's projected gradient."""
    sketch_dim: Literal["auto"] | Annotated[int, Field(ge=1, le=2**13)] = "auto"
    """Trajectory: number of entries of the gradients that are captured and summed over tasks. `auto` is 8 ·
    projection_dim, at most 2048. With 8192, estimates depend less on the projection seed, and visits and sums need
    4 times the space. At least projection_dim."""
    projection_seed: Seed = 0
    """Seed of the random projection."""
    points: Literal["auto"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = "auto"
    """Checkpoints of the gradients, as shares of the steps of meta-training. The trajectory takes them as the ends of
    its segments. `auto` is 0.2 and 0.4, and four equal segments for the trajectory."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """`quadratic`, `logistic`: share of the steps before each checkpoint over which the adapter is averaged. 0 disables
    averaging."""
    batch_tokens: Positive = 4096
    """Maximum number of tokens in a batch, padding included."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the checkpoints as increasing shares of the steps of meta-training."""
        return (0.2, 0.4) if self.points == "auto" else tuple(sorted(set(self.points)))

    @property
    def segments(self) -> tuple[float, ...]:
        """Return the ends of the segments of the trajectory, as increasing shares of the steps. The last is 1."""
        if self.points == "auto":
            return tuple((number + 1) / _SEGMENTS for number in range(_SEGMENTS))
        return tuple(sorted({*self.points, 1.0}))

    @property
    def parts(self) -> tuple[float, ...]:
        """Return the ends of the parts of all segments, as increasing shares of the steps."""
        starts = (0.0, *self.segments)
        return tuple(
            start + (end - start) * (part + 1) / _PARTS
            for start, end in zip(starts, self.segments, strict=False)
            for part in range(_PARTS)
        )

    @property
    def captured_dim(self) -> int:
        """Return the number of entries of a captured gradient, which is summed over tasks at this size."""
        by_rule = min(_SKETCH * self.projection_dim, _MOST_SKETCH)
        return max(self.projection_dim, by_rule if self.sketch_dim == "auto" else self.sketch_dim)

    @property
    def basis_dim(self) -> int:
        """Return the number of directions in which the trajectory is solved with curvature."""
        return max(1, self.projection_dim // 4)


class EstimateSection(_Section):
    """`[estimate]`: how the loss of a subset is estimated from gradients."""

    method: Estimator = "trajectory"
    """Estimator. `trajectory` follows meta-training. `quadratic` and `logistic` linearise at single checkpoints.
    `logistic` is the method of the paper."""
    ridge: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """`quadratic`, `logistic`: strength of the L2 penalty on the displacement. `auto` is a share of the gradients'
    squared length."""


class SelectSection(_Section):
    """`[select]`: how a subset is selected from estimates."""

    method: Method = "forward"
    """Method of selection. The last six are baselines for comparison."""
    subsets: Annotated[int, Field(ge=2, lt=2**31)] = 1000
    """Random ensemble: number of subsets."""
    subset_size: Share = 0.5
    """Random ensemble: share of the tasks in each subset."""
    seed: Seed = 0
    """Seed of the random subsets, and of the subsets that `verify` measures."""


def _known_metric(name: str) -> str:
    parse_metric(name)
    return name


# At equal numbers of runs, one seed for each subset ranks subsets better than two. Few pairs suffice for the noise.
_SUBSETS_PER_PAIR, _MOST_PAIRS = 6, 4


class VerifySection(_Section):
    """`[verify]`: real fine-tuning runs and the metric that they are judged by."""

    metric: Annotated[str, AfterValidator(_known_metric)] = "loss"
    """Metric of every run: `loss`, `exact_match`, `choice`, `lm-eval:TASK` or `command:WORDS`."""
    higher_is_better: bool = True
    """Whether a higher number of a `command:` metric is better. The other metrics know."""
    command_seconds: Annotated[float, Field(gt=0, le=1e7)] = 600
    """Time limit of a `command:` metric for one model, in seconds."""
    lm_eval_tasks: str = ""
    """Folder of task files for `lm-eval:TASK`, relative to the project."""
    lm_eval_chat_template: bool = False
    """Whether `lm-eval:TASK` writes its questions with the chat template."""
    runs: Annotated[int, Field(ge=1, lt=2**31)] = 24
    """Number of subsets that the first `curator verify` measures."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs on each subset, with different seeds. With 1, a sixth of the subsets gets a second run, at most 4."""

    def second_runs(self, subsets: int, there: int = 0) -> int:
        """Return how many of some new subsets get a second seed by default. The pairs measure the noise between seeds.

        Args:
            subsets: Number of new subsets.
            there: Number of measured subsets with several seeds.
        """
        return max(min(subsets // _SUBSETS_PER_PAIR, _MOST_PAIRS - there), 0) if self.seeds == 1 else 0


class Config(_Section):
    """All tables of `curator.toml`."""

    project: ProjectSection = ProjectSection()
    model: ModelSection
    lora: LoraSection = LoraSection()
    data: DataSection
    train: TrainSection = TrainSection()
    gradients: GradientsSection = GradientsSection()
    estimate: EstimateSection = EstimateSection()
    select: SelectSection = SelectSection()
    verify: VerifySection = VerifySection()

    @property
    def captures(self) -> bool:
        """Whether meta-training captures gradients, as the trajectory estimator needs."""
        return self.estimate.method == "trajectory"
