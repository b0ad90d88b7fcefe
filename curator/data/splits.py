"""Which example of which task is trained on, which judges, and which is left out and why."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from curator.core.errors import DataError

LEAKED = "also in the target's validation"
OVER_LIMIT = "over max_examples_per_task"
VALIDATION = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSplit:
    """What becomes of one task's examples, by their number in the task."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    """Held-out examples; their numbers are in the validation file where the target has one."""
    left_out: dict[str, tuple[int, ...]]
    """Numbers of the examples that are not trained on, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExamples:
    """What a split is made from.

    Args:
        name: The task.
        hashes: Content hash of each example.
        left_out: Why an example cannot be used, or None.
        validation_hashes: Content hashes of the task's own validation file, if it is a target that has one.
        validation_left_out: As `left_out`, of that file.
    """

    name: str
    hashes: Sequence[str]
    left_out: Sequence[str | None]
    validation_hashes: Sequence[str] | None = None
    validation_left_out: Sequence[str | None] = ()


def split_tasks(
    tasks: Sequence[TaskExamples], targets: Sequence[str], *, share: float, limit: int, seed: int
) -> list[TaskSplit]:
    """Split every task.

    Args:
        tasks: All tasks, the targets among them.
        targets: Tasks of which a part is held out.
        share: Share of a target that is held out where it has no validation file.
        limit: Most training examples of a task, 0 for no limit.
        seed: Decides what is held out and, under a limit, what is kept. An example's fate depends on what it says
            and on the seed, not on its place in the file.

    Returns:
        One split per task, in the order given.

    Raises:
        DataError: A task is left without training examples, or a target without validation examples.
    """
    held_out = {task.name: _held_out(task, share, seed) for task in tasks if task.name in targets}
    secret = {
        (task.hashes if task.validation_hashes is None else task.validation_hashes)[number]
        for task in tasks
        for number in held_out.get(task.name, ())
    }
    return [_split(task, held_out.get(task.name, ()), secret, limit, seed) for task in tasks]


def _held_out(task: TaskExamples, share: float, seed: int) -> tuple[int, ...]:
    if task.validation_hashes is not None:
        numbers = [n for n, reason in enumerate(task.validation_left_out) if reason is None]
        if not numbers:
            raise DataError(f"the validation file of {task.name!r} holds no usable example")
        return tuple(numbers)
    usable = [n for n, reason in enumerate(task.left_out) if reason is None]
    if len(usable) < 2:
        counted = Counter(reason for reason in task.left_out if reason is not None)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted.most_common())
        raise DataError(
            f"target {task.name!r} has {len(usable)} usable examples, and needs two: one to train on, one held out"
            + (f" (left out: {reasons})" if reasons else ""),
            hint="Raise max_length under [data] for answers that are cut off. Else give the target more examples."
            if counted
            else "Give the target more examples.",
        )
    ranked = _ranked(usable, task.hashes, seed, VALIDATION)
    # Between copies of one example there is no boundary: either all of them are held out, or none.
    boundaries = [n for n in range(1, len(ranked)) if task.hashes[ranked[n - 1]] != task.hashes[ranked[n]]]
    if not boundaries:
        raise DataError(
            f"target {task.name!r} says the same in all of its {len(usable)} usable examples; it needs one to train on"
            " and another to judge by",
            hint="Give the target more examples.",
        )
    count = min(boundaries, key=lambda n: abs(n - share * len(usable)))
    return tuple(sorted(ranked[:count]))


def _split(task: TaskExamples, validation: tuple[int, ...], secret: set[str], limit: int, seed: int) -> TaskSplit:
    own = set(validation) if task.validation_hashes is None else set()
    reasons: dict[str, list[int]] = {}
    train = []
    for number, reason in enumerate(task.left_out):
        if number in own:
            reason = VALIDATION
        elif reason is None and task.hashes[number] in secret:
            reason = LEAKED
        if reason is None:
            train.append(number)
        else:
            reasons.setdefault(reason, []).append(number)
    if limit and len(train) > limit:
        ranked = _ranked(train, task.hashes, seed, OVER_LIMIT)
        train, reasons[OVER_LIMIT] = sorted(ranked[:limit]), sorted(ranked[limit:])
    if not train:
        why = ", ".join(f"{len(numbers)} {reason}" for reason, numbers in reasons.items())
        raise DataError(
            f"task {task.name!r} has no example to train on ({why})",
            hint="Remove the task, or give it examples with a completion.",
        )
    return TaskSplit(
        name=task.name,
        train=tuple(train),
        validation=validation,
        left_out={reason: tuple(numbers) for reason, numbers in sorted(reasons.items())},
    )


def _ranked(numbers: list[int], hashes: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Shuffle by what the examples say: equal ones stay together, and new ones move none of the others."""

    def rank(number: int) -> tuple[str, int]:
        return hashlib.sha256(f"{seed}\0{purpose}\0{hashes[number]}".encode()).hexdigest(), number

    return sorted(numbers, key=rank)
