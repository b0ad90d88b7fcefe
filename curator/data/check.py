"""Report the contents and the problems of a project's data for `curator check`."""

from collections.abc import Sequence

from curator import results
from curator.core.errors import CuratorError, DataError
from curator.core.figures import first_of
from curator.core.files import File, relative_to
from curator.data.corpus import Corpus, Task
from curator.data.discovery import left_out_files
from curator.data.duplicates import find_duplicates
from curator.data.left_out import BAD
from curator.data.model_check import check_model, model_notes
from curator.workspace.workspace import Workspace

# Files that one line names.
_NAMED = 5


class CheckFailed(DataError):
    """The project cannot be used. The report says what can and cannot be read."""

    def __init__(self, report: results.CheckReport, error: CuratorError) -> None:
        super().__init__(error.message, hint=error.hint)
        self.report = report
        self.exit_code = error.exit_code


def check_data(workspace: Workspace, corpus: Corpus) -> results.CheckReport:
    """Count the examples and tokens of every task, and find near duplicates.

    Args:
        workspace: The project.
        corpus: Tasks of the project, read without refusing any.

    Raises:
        DataError: The store cannot be read.
        CheckFailed: A task or the model cannot be used. The error holds the report.
    """
    refused: CuratorError | None = corpus.refusal
    try:
        check_model(workspace, corpus)
    except CuratorError as error:
        refused = refused or error
    duplicates = find_duplicates(workspace, corpus)
    unread = _left_out_files(workspace)
    about = [*corpus.few_held_out(), *model_notes(workspace, corpus), *unread]
    rows = [_checked(task, corpus) for task in corpus.tasks]
    rows += [
        results.CheckedTask(
            name=task.name,
            target=task.name in corpus.targets,
            rows=task.rows,
            examples=0,
            validation=0,
            tokens=0,
            longest=0,
            truncated=0,
            left_out=dict(task.left_out),
            formats=dict(task.formats),
            bad_rows=dict(corpus.bad.get(task.name, {})),
            problem=task.reason,
            notes=task.notes,
        )
        for task in corpus.unusable
    ]
    report = results.CheckReport(
        project=workspace.name,
        target=corpus.targets,
        model=workspace.config.model.name_or_path,
        tasks=tuple(sorted(rows, key=lambda row: row.name)),
        problems=(*corpus.problems(), *about, *duplicates.problems),
        overlaps=duplicates.overlaps,
        duplicates=duplicates.task_pairs,
        near_duplicates=duplicates.pairs,
        notes=(*about, *corpus.notes(), *duplicates.problems),
        error=refused.message if refused is not None else "",
    )
    if refused is not None:
        raise CheckFailed(report, refused) from refused
    return report


def _checked(task: Task, corpus: Corpus) -> results.CheckedTask:
    return results.CheckedTask(
        name=task.name,
        target=task.name in corpus.targets,
        rows=len(task.version.index.hashes),
        examples=len(task.split.train),
        validation=len(task.split.validation),
        tokens=task.tokens,
        longest=max(task.version.index.lengths[n] for n in task.split.train),
        truncated=task.truncated,
        left_out={reason: len(numbers) for reason, numbers in task.split.left_out.items()},
        formats=task.version.formats,
        bad_rows=dict(corpus.bad.get(task.name, {})) if BAD in task.split.left_out else {},
        notes=tuple(task.file_notes),
        test=len(task.split.test),
    )


def _left_out_files(workspace: Workspace) -> list[str]:
    """Name the files that the globs and folders of `[data]` cover and that belong to no task."""
    found = left_out_files(workspace.config.data, workspace.root)
    lines = []
    if found.unread:
        lines.append(f"{_files(found.unread)} not read, because of an unknown type: {_some(found.unread, workspace)}")
    if found.below:
        words = "not read, because no pattern covers their folders (use a pattern such as folder/**/*.jsonl)"
        lines.append(f"{_files(found.below)} {words}: {_some(found.below, workspace)}")
    if found.missing:
        lines.append(f"{_files(found.missing)} named by a README and missing: {_some(found.missing, workspace)}")
    if found.held_out:
        words = "not trained on, as the names of test or validation splits say"
        lines.append(f"{_files(found.held_out)} {words}: {_some(found.held_out, workspace)}")
    return lines


def _files(files: Sequence[File | str]) -> str:
    return f"{len(files):,} files are" if len(files) > 1 else "1 file is"


def _some(files: Sequence[File | str], workspace: Workspace) -> str:
    """Return the first files, relative to the project."""
    return first_of([relative_to(str(path), workspace.root) for path in files], _NAMED)
