"""Measure the loss on every task's own rows, before and after a fine-tuning run: which tasks a run forgets."""

from collections.abc import Collection

from curator.data.corpus import Corpus, Task, validation_examples
from curator.data.left_out import OVER_LIMIT
from curator.data.tokens import TokenizedExample
from curator.training.model import TunedModel
from curator.training.trainer import measure_losses
from curator.workspace.store.measured import TaskLoss
from curator.workspace.workspace import Workspace

# Rows of each auxiliary task. The standard error of a mean over 100 rows is a tenth of the spread of the rows.
_ROWS = 100


def task_losses(workspace: Workspace, corpus: Corpus, tuned: TunedModel) -> dict[str, float]:
    """Return the mean loss of the present adapter on rows of each task, by name, nats per token.

    A target has held-out rows. An auxiliary task has them if `max_examples_per_task` leaves rows out. Otherwise rows
    of its training part stand in. A run on other tasks has not seen these rows either.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        tuned: Model.
    """
    batch_tokens = workspace.config.gradients.batch_tokens
    return {
        task.name: float(measure_losses(tuned, rows, batch_tokens=batch_tokens).mean())
        for task in corpus.tasks
        if (rows := _rows(workspace, corpus, task))
    }


def compared(
    corpus: Corpus, subset: Collection[str], before: dict[str, float], after: dict[str, float]
) -> dict[str, TaskLoss]:
    """Return the losses of the base model and of a run by the task's name.

    Args:
        corpus: Tasks of the project.
        subset: Auxiliary tasks that the run trained on.
        before: Losses of the base model, from `task_losses`.
        after: Losses after the run.
    """
    return {
        task.name: TaskLoss(
            before=before[task.name],
            after=after[task.name],
            trained=task.name in subset or task.name in corpus.targets,
            held_out=task.name in corpus.targets or bool(_spare(task)) or task.name not in subset,
        )
        for task in corpus.tasks
        if task.name in before
    }


def _rows(workspace: Workspace, corpus: Corpus, task: Task) -> list[TokenizedExample]:
    if task.name in corpus.targets:
        return validation_examples(task, workspace.store)
    rows = workspace.store.tokens(task.version.key)
    return [TokenizedExample(*rows[number]) for number in (_spare(task) or task.split.train)[:_ROWS]]


def _spare(task: Task) -> tuple[int, ...]:
    """Return the rows that the limit of examples leaves out."""
    return task.split.left_out.get(OVER_LIMIT, ())
