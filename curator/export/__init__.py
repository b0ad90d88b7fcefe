"""From a manifest to files that a trainer reads.

One frozen file per selected task, the training split of the target among them; the trainer's config; and the manifest
beside them. What was left out of training is left out here. Each trainer has a small module of its own, with its
format's name; the rest is shared:

    plan        what would be written: names, rows, tokens, weights; and whether the folder may be written to
    examples    the rows, as curator encodes them
    forms       ways to write a row, and what trainers make of it
    recipe      model, LoRA and training settings, as the manifest has them
    write       all of it, or nothing
"""

from pathlib import Path
from typing import TYPE_CHECKING

from curator.export.names import FORMATS as FORMATS

if TYPE_CHECKING:
    from curator.core.events import Reporter
    from curator.export.format import Plan
    from curator.results.outputs import ExportReport
    from curator.select.manifest import Manifest


def plan_export(manifest: "Manifest", here: Path, *, format: str, folder: Path) -> "ExportReport":
    """Say what an export would write, by the manifest alone, and make sure that it may; reads and writes no data.

    Args, Raises: As for `export`; changed files are not looked for, and the form of the rows is not chosen yet.
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
    reporter: "Reporter | None" = None,
) -> "Plan":
    """Read the examples of a selection and decide how to write them; writes nothing.

    Args, Raises: As for `export`.
    """
    from curator.export.allowed_files import check_inside
    from curator.export.examples import read_plan
    from curator.export.plan import first_plan
    from curator.select.manifest import check_files

    plan = first_plan(manifest, here, format=format, folder=folder)
    if not allow_outside:
        check_inside(manifest, here)
    if not allow_changed:
        check_files(manifest, here)
    return read_plan(plan, allow_changed=allow_changed, reporter=reporter)


def write_export(plan: "Plan") -> "ExportReport":
    """Write what was prepared; all of it or nothing.

    Raises:
        ConfigError: Something else was put into the folder since.
        DataError: Something cannot be read or written, or has changed since it was prepared.
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
    reporter: "Reporter | None" = None,
) -> "ExportReport":
    """Write the training files of a selection; all of them or none.

    Args:
        manifest: What was selected.
        here: The folder that its paths are relative to.
        format: One of `FORMATS`.
        folder: Where to; made if need be. An earlier export there is replaced; anything else is refused.
        allow_changed: Export although files have changed since. Rows are left out by their number, as the manifest
            has it, which after a change may be another row's.
        allow_outside: Read also files that lie neither beside the manifest nor in a project.
        reporter: Told of progress.

    Raises:
        ConfigError: The format is unknown or does not suit the model, or the folder holds something else.
        DataError: Something cannot be read or written.
        ManifestMismatch: A file has changed.
    """
    plan = prepare_export(
        manifest,
        here,
        format=format,
        folder=folder,
        allow_changed=allow_changed,
        allow_outside=allow_outside,
        reporter=reporter,
    )
    return write_export(plan)
