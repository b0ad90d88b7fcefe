"""Write a selection as files that a trainer reads.

An export holds one file per task, the trainer's configuration, and the manifest. The tasks are the targets, with
their training split, and the selected tasks. Rows that are left out of training are left out of the export. Each
format has a small module in `trainers`. All formats share these modules:

    plan        names, rows, tokens and weights of the tasks, and a check of the folder
    examples    the rows, encoded as curator encodes them
    spool       the encoded rows between reading and writing
    sections    settings of the manifest
    forms       ways to write a row, and the tokens that trainers read from it
    recipe      settings of the model, of LoRA and of training, from the manifest
    write       all files, or none
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator.export.names import FORMATS as FORMATS

if TYPE_CHECKING:
    from curator.core.events import Reporter
    from curator.export.format import Plan
    from curator.results.outputs import ExportReport
    from curator.select.manifest import Manifest


def plan_export(manifest: "Manifest", here: Path, *, format: str, folder: Path) -> "ExportReport":
    """Report the contents of an export from the manifest alone, and check the folder.

    Reads and writes no data. Does not check for changed files, and does not choose the form of the rows.

    Args:
        manifest: The selection.
        here: Folder that the manifest's paths are relative to.
        format: One of `FORMATS`.
        folder: Folder of the export.

    Raises:
        ConfigError: The format is unknown, or the folder holds other files.
        DataError: A setting of the manifest is unknown or invalid.
    """
    from curator.export.plan import first_plan

    return first_plan(manifest, here, format=format, folder=folder).report


def prepare_export(
    manifest: "Manifest",
    here: Path,
    *,
    format: str,
    folder: Path,
    allow_changed: bool = False,
    allow_outside: bool = False,
    project: Path | None = None,
    reporter: "Reporter | None" = None,
) -> "Plan":
    """Read and encode the rows of a selection, and choose the form in which to write them.

    Leaves the folder as it is. The rows wait in a temporary file until `write_export`.

    Args:
        manifest: The selection.
        here: Folder that the manifest's paths are relative to.
        format: One of `FORMATS`.
        folder: Folder of the export.
        allow_changed: As in `export`.
        allow_outside: As in `export`.
        project: As in `export`.
        reporter: Receives the progress.

    Raises:
        ConfigError: The format is unknown or does not suit the model, or the folder holds other files.
        DataError: A setting of the manifest is invalid, a file cannot be read, or the temporary file cannot be written.
        ManifestMismatch: A file has changed.
    """
    from curator.export.allowed_files import AllowedPlaces
    from curator.export.examples import read_plan
    from curator.export.plan import check_folder, first_plan
    from curator.select.manifest import changed_files, check_files

    plan = first_plan(manifest, here, format=format, folder=folder)
    check_folder(plan.folder, manifest, here, data=True)
    places = None if allow_outside else AllowedPlaces(here, project)
    if places is not None:
        places.check(manifest)
    if not allow_changed:
        check_files(manifest, here)
    elif changed := list(dict.fromkeys(name for name, *_ in changed_files(manifest, here))):
        note = f"changed since the selection, so that left-out rows may be others: {', '.join(changed)}"
        plan = replace(plan, notes=(note,))
    return read_plan(plan, allow_changed=allow_changed, places=places, reporter=reporter)


def write_export(plan: "Plan") -> "ExportReport":
    """Write a prepared export, all of it or nothing. A plan can be written once.

    Raises:
        ConfigError: The folder holds other files by now.
        DataError: A file cannot be written, or the plan was written before.
    """
    from curator.export.write import write

    write(plan)
    return plan.report


def export(
    manifest: "Manifest",
    here: Path,
    *,
    format: str,
    folder: Path,
    allow_changed: bool = False,
    allow_outside: bool = False,
    project: Path | None = None,
    reporter: "Reporter | None" = None,
) -> "ExportReport":
    """Write the training files of a selection, all of them or none.

    Args:
        manifest: The selection.
        here: Folder that the manifest's paths are relative to.
        format: One of `FORMATS`.
        folder: Folder to create. An unchanged earlier export is replaced. A folder with other files is refused.
        allow_changed: Export changed files too. The manifest leaves rows out by number. After a change, a number
            may mean another row.
        allow_outside: Read files outside the manifest's folder and outside of projects too. Download what the
            manifest names.
        project: Folder of the project in which the user works. Its configuration allows more places.
        reporter: Receives the progress.

    Raises:
        ConfigError: The format is unknown or does not suit the model, or the folder holds other files.
        DataError: A setting of the manifest is invalid, or a file cannot be read or written.
        ManifestMismatch: A file has changed.
    """
    plan = prepare_export(
        manifest,
        here,
        format=format,
        folder=folder,
        allow_changed=allow_changed,
        allow_outside=allow_outside,
        project=project,
        reporter=reporter,
    )
    return write_export(plan)
