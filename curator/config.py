"""One TOML file, `curator.toml`, into frozen, checked models.

Every value has a default that works, except the model and the tasks. An unknown key, a wrong type or a value out of
range is one `ConfigError` that lists all of them, each with the file, the key and the fix.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.errors import ConfigError

CONFIG_NAME = "curator.toml"

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Method = Literal["forward", "backward", "exchange", "ensemble"]
Estimator = Literal["quadratic", "logistic"]


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

    r: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TaskSource(_Section):
    """One `[[data.task]]` table."""

    name: str = Field(min_length=1)
    path: str = ""
    """A file, a folder or a glob, relative to the project."""
    hub: str = ""
    """A `datasets` id, in place of `path`."""
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str = ""
    """Keep only the rows whose `column` equals `value`: one file becomes many tasks."""
    value: str | int | bool | None = None
    tags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.path) == bool(self.hub):
            raise ValueError(f"task {self.name!r} needs either `path` or `hub`, and not both")
        if bool(self.column) != (self.value is not None):
            raise ValueError(f"task {self.name!r}: `column` and `value` go together")
        return self


class DataSection(_Section):
    """`[data]`: the tasks, and which of them is the target."""

    tasks: str = ""
    """Glob, relative to the project: one file per task, its stem is the task's name."""
    task: tuple[TaskSource, ...] = ()
    """Tasks named one by one, in place of the glob."""
    target: str | tuple[str, ...] = ()
    """Default target task, or several."""
    validation: Share = 0.2
    """Share of the target held out, unless it has a file of its own below."""
    validation_files: dict[str, str] = {}
    """Validation file of a target, by the target's name."""
    max_length: Annotated[int, Field(ge=2)] = 256
    """Tokens; longer examples are truncated and counted."""
    max_examples_per_task: Annotated[int, Field(ge=0)] = 0
    """0 means all; else a seeded sample."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _tasks_once(self) -> Self:
        if bool(self.tasks) == bool(self.task):
            raise ValueError("name the tasks by the glob `tasks` or by [[data.task]] tables, not both")
        names = [task.name for task in self.task]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task names must be unique; more than once: {', '.join(twice)}")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The target as a tuple of names, whichever way it was written."""
        return (self.target,) if isinstance(self.target, str) else self.target


class TrainSection(_Section):
    """`[train]`: the recipe of meta-training and of every fine-tuning run."""

    epochs: Annotated[float, Field(gt=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    batch_size: Positive = 32
    """Examples per optimizer step and process, before `gradient_accumulation`."""
    gradient_accumulation: Positive = 1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    seed: Seed = 0


class GradientsSection(_Section):
    """`[gradients]`: where gradients are taken, and how they are projected."""

    projection_dim: Positive = 256
    projection_seed: Seed = 0
    points: Literal["auto"] | tuple[Annotated[float, Field(gt=0, le=1)], ...] = "auto"
    """Shares of meta-training's steps at which gradients are taken."""
    batch_tokens: Positive = 4096
    """Tokens, padding included, that go through the model at once."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The points as increasing shares of meta-training's steps."""
        return (0.2, 0.4, 0.7, 1.0) if self.points == "auto" else tuple(sorted(set(self.points)))


class EstimateSection(_Section):
    """`[estimate]`: from gradients to the loss of a subset."""

    method: Estimator = "quadratic"
    ridge: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"


class SelectSection(_Section):
    """`[select]`: from estimates to a subset."""

    method: Method = "forward"
    subsets: Annotated[int, Field(ge=2)] = 1000
    """Random ensemble: how many subsets."""
    subset_size: Share = 0.5
    """Random ensemble: share of the tasks in each subset."""
    seed: Seed = 0


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


def load_config(path: Path) -> Config:
    """Read and check `curator.toml`.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, is not TOML, or holds an unknown key, a wrong type or a value out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file",
            hint="Run `curator init DIR` to make a project, or pass -p/--project DIR.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", hint="Mend the line named.") from error
    try:
        # Through JSON, because strict mode takes a TOML array for a tuple only from there.
        return Config.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors(include_url=False)]
        raise ConfigError(
            f"{path}: " + "\n".join(f"{'' if i == 0 else '  '}{p}" for i, p in enumerate(problems)),
            hint="Every key is explained in the file that `curator init` writes.",
        ) from error


def _explain(problem: dict[str, Any]) -> str:
    """Turn one pydantic error into `key: what is wrong (the fix)`."""
    path = [str(part) for part in problem["loc"] if not str(part).startswith(("literal[", "tuple["))]
    key = ".".join(path) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
        return f"{key}: unknown key ({fix})"
    if problem["type"] == "missing":
        return f"{key}: missing; it must be given"
    value = problem.get("input")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" + ("" if isinstance(value, dict) else f", got {value!r}")


def _known_keys(path: list[str]) -> list[str]:
    """Keys that may stand in the table at `path`."""
    model: type[BaseModel] = Config
    for part in path:
        if part.isdigit():
            continue
        if model is DataSection and part == "task":
            model = TaskSource
            continue
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
