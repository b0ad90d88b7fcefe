"""Report the contents and the problems of a project's data for `curator check`."""

from curator import results
from curator.core.files import relative_to
from curator.data.corpus import Corpus
from curator.data.discovery import unread_files
from curator.data.duplicates import find_duplicates
from curator.data.model_check import check_model
from curator.workspace.workspace import Workspace

# Files that one line names.
_NAMED = 5


def check_data(workspace: Workspace, corpus: Corpus) -> results.CheckReport:
    """Count the examples and tokens of every task, and find near duplicates.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The store cannot be read, or `check_model` refuses the model.
    """
    check_model(workspace, corpus)
    duplicates = find_duplicates(workspace, corpus)
    return results.CheckReport(
        project=workspace.name,
        target=corpus.targets,
        model=workspace.config.model.name_or_path,
        tasks=tuple(
            results.CheckedTask(
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
            )
            for task in corpus.tasks
        ),
        problems=(*corpus.problems(), *_unread(workspace), *duplicates.problems),
        overlaps=duplicates.overlaps,
        duplicates=duplicates.task_pairs,
        near_duplicates=duplicates.pairs,
    )


def _unread(workspace: Workspace) -> list[str]:
    """Name the files that the globs and folders of `[data]` cover and that curator cannot read."""
    files = [relative_to(str(path), workspace.root) for path in unread_files(workspace.config.data, workspace.root)]
    if not files:
        return []
    more = f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    return [f"{len(files):,} files are not read, their type is unknown: {', '.join(files[:_NAMED])}{more}"]
