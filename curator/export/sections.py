"""Read the settings of a manifest as sections of the configuration."""

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from curator.core.config import DataSection, LoraSection, ModelSection, TrainSection
from curator.core.errors import DataError

if TYPE_CHECKING:
    from curator.select.manifest import Manifest

SectionT = TypeVar("SectionT", bound=BaseModel)


def check_settings(manifest: "Manifest") -> None:
    """Check all settings of a manifest that an export carries, whether its format uses them or not.

    Raises:
        DataError: A setting is unknown or invalid.
    """
    for section in (model_of, lora_of, train_of, data_of):
        section(manifest)


def model_of(manifest: "Manifest") -> ModelSection:
    """Return the model of a manifest.

    Raises:
        DataError: A setting is invalid.
    """
    model = manifest.model
    given = {key: getattr(model, key) for key in ("name_or_path", "revision", "dtype", "quantization")}
    return _section(ModelSection, "model", given)


def lora_of(manifest: "Manifest") -> LoraSection:
    """Return the adapter of a manifest. Missing settings have their defaults.

    Raises:
        DataError: A setting is unknown or invalid.
    """
    return _section(LoraSection, "lora", manifest.lora)


def train_of(manifest: "Manifest") -> TrainSection:
    """Return the settings of training of a manifest. Missing settings have their defaults.

    Raises:
        DataError: A setting is unknown or invalid.
    """
    return _section(TrainSection, "train", manifest.train)


def data_of(manifest: "Manifest") -> DataSection:
    """Return the settings of the data of a manifest. Missing settings have their defaults.

    Raises:
        DataError: A setting is unknown or invalid.
    """
    # The manifest lists the tasks elsewhere. The section requires some.
    return _section(DataSection, "data", manifest.data | {"tasks": "*"})


def _section(kind: type[SectionT], name: str, values: dict[str, Any]) -> SectionT:
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (name, *first["loc"])))
        problem = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise DataError(
            f"invalid setting in the manifest: {where}: {problem}",
            hint="Export a manifest that `curator select` wrote.",
        ) from error
