"""Report the contents and the problems of a project's data for `curator check`."""

from curator import results
from curator.data.corpus import Corpus
from curator.data.duplicates import find_duplicates
from curator.data.model_check import check_model
from curator.workspace.workspace import Workspace


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
        problems=(*corpus.problems(), *duplicates.problems),
        overlaps=duplicates.overlaps,
        near_duplicates=duplicates.pairs,
    )
