"""What comes out of another trainer's configuration, and what all of them have in common."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator.core.config import Config
from curator.data.formats import known_role

Settings = dict[str, dict[str, Any]]
Setting = tuple[str, str, Callable[[Any], Any]]
"""Section and key of `curator.toml`, and what makes its value of theirs; it raises ValueError where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One `[[data.task]]` table."""

    keys: dict[str, Any]
    origin: str
    """Which entry of which file it was made from."""


@dataclass(slots=True, kw_only=True)
class ImportedConfig:
    """What a configuration says in curator's words."""

    path: Path
    trainer: str
    tables: list[Table] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)
    """Values of `curator.toml`, by section and key."""
    left_out: list[str] = field(default_factory=list)
    """What could not be taken over, and why; a line each."""

    def add(self, name: str, keys: Mapping[str, Any], entry: str) -> None:
        """Add a task under a name that no other has; empty values are left out."""
        taken = {table.keys["name"] for table in self.tables}
        name = name or "task"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        kept = {key: value for key, value in keys.items() if value not in (None, "", {}, [], ())}
        self.tables.append(Table(keys={"name": unique} | kept, origin=f"{entry} of {self.path.name}"))

    def skip(self, entry: str, why: str) -> None:
        """Say that something was not taken over."""
        self.left_out.append(f"{entry}: {why}")

    def take(self, values: Mapping[str, Any], known: Mapping[str, Setting], *, handled: tuple[str, ...] = ()) -> None:
        """Take settings over by their names, and say of the others that they were not."""
        for key, value in values.items():
            if key in handled or value is None:
                continue
            if key not in known:
                self.skip(key, "curator has no such setting")
                continue
            section, name, convert = known[key]
            try:
                converted = convert(value)
                _check(section, name, converted)
            except (ValueError, TypeError) as error:
                self.skip(f"{key} = {brief(value)}", str(error).splitlines()[0])
                continue
            if converted is not None:
                self.settings.setdefault(section, {})[name] = converted


def _check(section: str, key: str, value: Any) -> None:
    """Make sure that `curator.toml` takes a value.

    Raises:
        ValueError: It does not.
    """
    kind = Config.model_fields[section].annotation
    if value is None or kind is None:
        return
    given = {key: tuple(value) if isinstance(value, list) else value}
    needed = {"model": {"name_or_path": "model"}, "data": {"tasks": "*"}}
    try:
        kind.model_validate(needed.get(section, {}) | given)
    except ValueError as error:
        raise ValueError(f"curator does not take it ({str(error).splitlines()[-2].strip()})") from error


def role_names(tags: Mapping[str, str]) -> dict[str, str]:
    """`roles` of a task for speakers (name → role) that are not known without."""
    return {name: role for name, role in tags.items() if name and not _is_known(name, role)}


def _is_known(name: str, role: str) -> bool:
    return name == role or (known_role(name) == role and role != "function_call")


def brief(value: Any) -> str:
    """A value in a message; YAML can make one whose whole text would fill the memory."""
    return reprlib.repr(value)[:60]


# -- values -------------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A value as text."""
    return str(value)


def number(value: Any) -> float:
    """A number, which YAML reads as text when it is written 2e-4."""
    return float(value)


def whole(value: Any) -> int:
    """A whole number."""
    if int(value) != float(value):
        raise ValueError("it is no whole number")
    return int(value)


def schedule(value: Any) -> str:
    """A learning-rate schedule."""
    if value not in ("linear", "cosine", "constant"):
        raise ValueError("curator knows linear, cosine and constant")
    return str(value)


def modules(value: Any) -> Any:
    """LoRA's target modules."""
    if value == "all-linear":
        return value
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return value
    raise ValueError("curator takes a list of names, or all-linear")


def precision(value: Any) -> str:
    """A data type."""
    plain = str(value).removeprefix("torch.")
    known = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    if known.get(plain, plain) not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError("curator knows auto, float32, bfloat16 and float16")
    return known.get(plain, plain)


def switched(value: Any, meaning: str) -> str | None:
    """A meaning where a switch is on, nothing where it is off."""
    return meaning if str(value).lower() in ("true", "1", "yes") else None


def never(value: Any) -> None:
    """Foreign code is allowed by people alone."""
    if str(value).lower() in ("true", "1", "yes"):
        raise ValueError("set it under [model] yourself, if you trust the model's code")


COMMON: dict[str, Setting] = {
    "model_name_or_path": ("model", "name_or_path", text),
    "model_revision": ("model", "revision", text),
    "trust_remote_code": ("model", "trust_remote_code", never),
    "lora_alpha": ("lora", "alpha", number),
    "lora_dropout": ("lora", "dropout", number),
    "learning_rate": ("train", "learning_rate", number),
    "num_train_epochs": ("train", "epochs", number),
    "per_device_train_batch_size": ("train", "batch_size", whole),
    "gradient_accumulation_steps": ("train", "gradient_accumulation", whole),
    "lr_scheduler_type": ("train", "schedule", schedule),
    "warmup_ratio": ("train", "warmup", number),
    "weight_decay": ("train", "weight_decay", number),
    "seed": ("train", "seed", whole),
    "load_in_4bit": ("model", "quantization", lambda value: switched(value, "4bit")),
    "load_in_8bit": ("model", "quantization", lambda value: switched(value, "8bit")),
    "bf16": ("model", "dtype", lambda value: "auto" if value == "auto" else switched(value, "bfloat16")),
    "fp16": ("model", "dtype", lambda value: switched(value, "float16")),
}
"""What trainers call by the same names, as they have them from transformers and PEFT."""
