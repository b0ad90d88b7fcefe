"""Decide for every example whether it is for training, for validation, or left out, and why."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curator.core.errors import DataError
from curator.data.left_out import LEAKED, OVER_LIMIT, VALIDATION, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSplit:
    """List the training, validation and left-out examples of one task by their number in the task."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    """Held-out examples. The numbers refer to the validation file if the target has one."""
    left_out: dict[str, tuple[int, ...]]
    """Examples without training, by reason. They include the held-out examples."""
    refusal: DataError | None = None
    """Why the task cannot be used. It then has no training examples or, as a target, no held-out examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExamples:
    """Describe one task for `split_tasks`.

    Args:
        name: Name of the task.
        hashes: Content hash of each example (n).
        left_out: Reason why an example cannot be used, or None, for each example (n).
        validation_hashes: Content hashes of the task's validation file (m), or None without such a file.
        validation_left_out: Reason why an example of the validation file cannot be used, or None (m).
        problems: Number of bad rows by the reason that readers gave, for messages.
        validation_problems: The same numbers of the validation file.
    """

    name: str
    hashes: Sequence[str]
    left_out: Sequence[str | None]
    validation_hashes: Sequence[str] | None = None
    validation_left_out: Sequence[str | None] = ()
    problems: Mapping[str, int] = field(default_factory=dict)
    validation_problems: Mapping[str, int] = field(default_factory=dict)


def split_tasks(
    tasks: Sequence[TaskExamples], targets: Sequence[str], *, share: float, limit: int, seed: int
) -> list[TaskSplit]:
    """Split the examples of every task. No training example equals a held-out example.

    Args:
        tasks: All tasks, including the targets.
        targets: Names of the tasks with held-out examples.
        share: Held-out share of a target without a validation file, between 0 and 1.
        limit: Maximum number of training examples of a task. 0 for no limit.
        seed: Seed of the held-out examples and of the examples kept under `limit`. The decision about an example
            depends on its content and the seed, not on its position.

    Returns:
        One split per task, in the order of `tasks`. A split with a `refusal` belongs to a task that cannot be used.
    """
    held_out: dict[str, tuple[int, ...]] = {}
    refused: dict[str, DataError] = {}
    for task in tasks:
        if task.name in targets:
            try:
                held_out[task.name] = _held_out(task, share, seed)
            except DataError as error:
                refused[task.name] = error
    held_out_hashes = {
        (task.hashes if task.validation_hashes is None else task.validation_hashes)[number]
        for task in tasks
        for number in held_out.get(task.name, ())
    }
    return [
        _split(task, held_out.get(task.name, ()), held_out_hashes, limit, seed, refused.get(task.name))
        for task in tasks
    ]


def _held_out(task: TaskExamples, share: float, seed: int) -> tuple[int, ...]:
    if task.validation_hashes is not None:
        numbers = [n for n, reason in enumerate(task.validation_left_out) if reason is None]
        if not numbers:
            reasons, hint = explain(task.validation_left_out, task.validation_problems)
            raise DataError(
                f"no usable example in the validation file of target {task.name!r}"
                + (f" (left out: {reasons})" if reasons else ""),
                hint=f"{hint}.",
            )
        return tuple(numbers)
    usable = [n for n, reason in enumerate(task.left_out) if reason is None]
    if len(usable) < 2:
        reasons, hint = explain(task.left_out, task.problems)
        raise DataError(
            f"too few usable examples in target {task.name!r}: {len(usable)}"
            + (f" (left out: {reasons})" if reasons else ""),
            hint=f"{hint}. A target needs one example for training and one for validation.",
        )
    ranked = _ranked(usable, task.hashes, seed, VALIDATION)
    # Copies of one example stay together: all of them are held out, or all are for training.
    boundaries = [n for n in range(1, len(ranked)) if task.hashes[ranked[n - 1]] != task.hashes[ranked[n]]]
    if not boundaries:
        raise DataError(
            f"all usable examples of target {task.name!r} are equal: {len(usable)} copies",
            hint="Add different examples. A target needs one for training and one for validation.",
        )
    count = min(boundaries, key=lambda n: abs(n - share * len(usable)))
    return tuple(sorted(ranked[:count]))


def _split(
    task: TaskExamples,
    validation: tuple[int, ...],
    held_out_hashes: set[str],
    limit: int,
    seed: int,
    refusal: DataError | None,
) -> TaskSplit:
    own = set(validation) if task.validation_hashes is None else set()
    reasons: dict[str, list[int]] = {}
    train = []
    for number, reason in enumerate(task.left_out):
        if number in own:
            reason = VALIDATION
        elif reason is None and task.hashes[number] in held_out_hashes:
            reason = LEAKED
        if reason is None:
            train.append(number)
        else:
            reasons.setdefault(reason, []).append(number)
    if limit and len(train) > limit:
        ranked = _ranked(train, task.hashes, seed, OVER_LIMIT)
        train, reasons[OVER_LIMIT] = sorted(ranked[:limit]), sorted(ranked[limit:])
    if not train and refusal is None:
        why = {number: reason for reason, numbers in reasons.items() for number in numbers}
        words, hint = explain(why.values(), task.problems)
        message = f"no training examples in task {task.name!r} ({words})"
        refusal = DataError(message, hint=f"{hint}, or remove the task.")
    return TaskSplit(
        name=task.name,
        train=tuple(train),
        validation=validation,
        left_out={reason: tuple(numbers) for reason, numbers in sorted(reasons.items())},
        refusal=refusal,
    )


def _ranked(numbers: list[int], hashes: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Shuffle by content hash. Equal examples stay adjacent, and new examples keep the order of the others."""

    def rank(number: int) -> tuple[str, int]:
        return hashlib.sha256(f"{seed}\0{purpose}\0{hashes[number]}".encode()).hexdigest(), number

    return sorted(numbers, key=rank)
