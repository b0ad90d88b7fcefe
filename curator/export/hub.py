"""Upload an export to the hub of data sets, as a private repository."""

from pathlib import Path

from curator.core.errors import ConfigError, DataError
from curator.core.hub_ids import is_hub_id
from curator.data.model_files import first_line

FORMAT = "hf"
"""The only format that can be uploaded: one split for each task."""


def check_upload(name: str, format: str) -> None:
    """Check the arguments of an upload, before rows are read.

    Raises:
        ConfigError: The format cannot be uploaded, or the name is not `owner/name`.
    """
    if format != FORMAT:
        raise ConfigError(f"cannot upload an export in the format {format!r}", hint=f'Use the format "{FORMAT}".')
    if not is_hub_id(name):
        raise ConfigError(f"not the name of a hub data set: {name!r}", hint="Write OWNER/NAME.")


def upload(folder: Path, name: str) -> None:
    """Upload the splits of an export. A new repository is private, and an existing one keeps its visibility.

    Args:
        folder: Folder of an export in the format `hf`.
        name: Repository, as `owner/name`.

    Raises:
        DataError: The hub cannot be reached or refuses, or the tasks have different columns.
    """
    from datasets import load_from_disk

    try:
        load_from_disk(str(folder)).push_to_hub(name, private=True)
    except Exception as error:
        raise DataError(
            f"cannot upload {folder} to {name!r}: {first_line(error)}",
            hint="Check the network and `HF_TOKEN`. The export itself is complete.",
        ) from error
