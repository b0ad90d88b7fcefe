"""Hold an imported configuration, and convert the settings that several trainers share."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator.core.config import Config
from curator.data.formats import known_role

Settings = dict[str, dict[str, Any]]
Setting = tuple[str, str, Callable[[Any], Any]]
"""Section and key of `curator.toml`, and a converter of the value. The converter raises ValueError or TypeError."""

NO_SETTING = "no equivalent in curator"
"""Reason for a setting that curator does not import."""
ALL_ROWS = "no equivalent in curator, which selects from all rows"
"""Reason for a setting that samples rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Hold one `[[data.task]]` table."""

    keys: dict[str, Any]
    origin: str
    """Entry and file that the table comes from."""


@dataclass(slots=True, kw_only=True)
class ImportedConfig:
    """Hold another trainer's configuration in the terms of `curator.toml`."""

    path: Path
    trainer: str
    tables: list[Table] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)
    """Values of `curator.toml`, by section and key."""
    targets: list[str] = field(default_factory=list)
    """Names of the target tasks, if the configuration tells them."""
    validation_files: dict[str, str] = field(default_factory=dict)
    """Path of the held-out rows of a target, by its name."""
    left_out: list[str] = field(default_factory=list)
    """Settings that were not imported, and the reason, one line each."""

    def add(self, name: str, keys: Mapping[str, Any], entry: str) -> None:
        """Add a task under a unique name. Omit empty values.

        Args:
            name: Name of the task. A number makes a duplicate unique.
            keys: Keys of the `[[data.task]]` table.
            entry: Entry of the configuration that the task comes from.
        """
        taken = {table.keys["name"] for table in self.tables}
        name = name or "task"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        kept = {key: value for key, value in keys.items() if value not in (None, "", {}, [], ())}
        self.tables.append(Table(keys={"name": unique} | kept, origin=f"{entry} of {self.path.name}"))

    def skip(self, entry: str, why: str) -> None:
        """Record an entry that was not imported, and the reason."""
        self.left_out.append(f"{entry}: {why}")

    def take(self, values: Mapping[str, Any], known: Mapping[str, Setting], *, handled: tuple[str, ...] = ()) -> None:
        """Import known settings, and record all others as skipped.

        Args:
            values: Settings of the configuration.
            known: Converter by name of the setting.
            handled: Settings to ignore.
        """
        for key, value in values.items():
            if key in handled or value is None:
                continue
            if key not in known:
                self.skip(key, NO_SETTING)
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
    """Check that `curator.toml` accepts a value.

    Raises:
        ValueError: The value is not valid for the key.
    """
    kind = Config.model_fields[section].annotation
    if value is None or kind is None:
        return
    given = {key: tuple(value) if isinstance(value, list) else value}
    needed = {"model": {"name_or_path": "model"}, "data": {"tasks": "*"}}
    try:
        kind.model_validate(needed.get(section, {}) | given)
    except ValueError as error:
        raise ValueError(f"invalid value in curator: {str(error).splitlines()[-2].strip()}") from error


def role_names(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the speakers, with their roles, that a task must list under `roles`."""
    return {name: role for name, role in tags.items() if name and not _is_known(name, role)}


def _is_known(name: str, role: str) -> bool:
    return name == role or (known_role(name) == role and role != "function_call")


def brief(value: Any) -> str:
    """Shorten a value for a message. The full text of a YAML value with aliases can exceed the memory."""
    return reprlib.repr(value)[:60]


# -- values -------------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Convert a value to text."""
    return str(value)


def number(value: Any) -> float:
    """Convert a value to a number. YAML reads 2e-4 as text.

    Raises:
        ValueError: The value is not a number.
    """
    return float(value)


def whole(value: Any) -> int:
    """Convert a value to a whole number.

    Raises:
        ValueError: The value is not a whole number.
    """
    if int(value) != float(value):
        raise ValueError("not a whole number")
    return int(value)


def schedule(value: Any) -> str:
    """Return a learning-rate schedule.

    Raises:
        ValueError: curator does not support the schedule.
    """
    if value not in ("linear", "cosine", "constant"):
        raise ValueError("curator supports linear, cosine and constant")
    return str(value)


def modules(value: Any) -> Any:
    """Return LoRA's target modules.

    Raises:
        ValueError: The value is neither a list of names nor "all-linear".
    """
    if value == "all-linear":
        return value
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return value
    raise ValueError("curator supports a list of names, or all-linear")


def precision(value: Any) -> str:
    """Convert a data type to its name in PyTorch.

    Raises:
        ValueError: curator does not support the data type.
    """
    plain = str(value).removeprefix("torch.")
    known = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    if known.get(plain, plain) not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError("curator supports auto, float32, bfloat16 and float16")
    return known.get(plain, plain)


def switched(value: Any, meaning: str) -> str | None:
    """Return `meaning` if a switch is on, else None."""
    return meaning if str(value).lower() in ("true", "1", "yes") else None


def template_setting(written: str, folder: Path) -> str:
    """Return the value of `data.chat_template` for a template's text, or for a file relative to a folder."""
    if "{%" in written or "{{" in written:
        return written
    return str((folder / written).absolute())


def never(value: Any) -> None:
    """Refuse to import `trust_remote_code`, which only the user may set.

    Raises:
        ValueError: The switch is on.
    """
    if str(value).lower() in ("true", "1", "yes"):
        raise ValueError("set it under [model] if you trust the model's code")


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
"""Settings of transformers and PEFT, which trainers share."""
