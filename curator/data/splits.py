"""Decide for every example whether it is for training, for validation, for the test, or left out, and why."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from curator.core.errors import DataError
from curator.data.left_out import LEAKED, LEAKED_TEST, OVER_LIMIT, TEST, VALIDATION, explain


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
    test: tuple[int, ...] = ()
    """Examples that play no part in any choice. The numbers refer to the test file if the target has one."""


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
        test_hashes: Content hashes of the task's test file (m), or None without such a file.
        test_left_out: Reason why an example of the test file cannot be used, or None (m).
    """

    name: str
    hashes: Sequence[str]
    left_out: Sequence[str | None]
    validation_hashes: Sequence[str] | None = None
    validation_left_out: Sequence[str | None] = ()
    problems: Mapping[str, int] = field(default_factory=dict)
    validation_problems: Mapping[str, int] = field(default_factory=dict)
    test_hashes: Sequence[str] | None = None
    test_left_out: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Held-out examples of one target: their numbers in their files."""

    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()


def split_tasks(
    tasks: Sequence[TaskExamples],
    targets: Sequence[str],
    *,
    share: float,
    limit: int,
    seed: int,
    test_share: float = 0.0,
) -> list[TaskSplit]:
    """Split the examples of every task. No training example equals a held-out example.

    Args:
        tasks: All tasks, including the targets.
        targets: Names of the tasks with held-out examples.
        share: Held-out share of a target without a validation file, between 0 and 1.
        limit: Maximum number of training examples of a task. 0 for no limit.
        seed: Seed of the held-out examples and of the examples kept under `limit`. The decision about an example
            depends on its content and the seed, not on its position.
        test_share: Share of a target's examples for the test, unless the target has a test file. 0 for no test.

    Returns:
        One split per task, in the order of `tasks`. A split with a `refusal` belongs to a task that cannot be used.
    """
    tests: dict[str, tuple[int, ...]] = {}
    held_out: dict[str, _HeldOut] = {}
    refused: dict[str, DataError] = {}
    wanted = [task for task in tasks if task.name in targets]
    for task in wanted:
        try:
            tests[task.name] = _test(task, test_share, seed)
        except DataError as error:
            refused[task.name] = error
    test_hashes = {
        (task.hashes if task.test_hashes is None else task.test_hashes)[number]
        for task in wanted
        for number in tests.get(task.name, ())
    }
    for task in wanted:
        try:
            if task.name in tests:
                held_out[task.name] = _HeldOut(_validation(task, test_hashes, share, seed), tests[task.name])
        except DataError as error:
            refused[task.name] = error
    validation_hashes = {
        (task.hashes if task.validation_hashes is None else task.validation_hashes)[number]
        for task in wanted
        for number in held_out.get(task.name, _HeldOut()).validation
    }
    return [
        _split(
            task,
            held_out.get(task.name, _HeldOut()),
            {TEST: test_hashes, VALIDATION: validation_hashes},
            limit,
            seed,
            refused.get(task.name),
        )
        for task in tasks
    ]


def _test(task: TaskExamples, share: float, seed: int) -> tuple[int, ...]:
    """Return the numbers of a target's test examples. Empty without a test part."""
    if task.test_hashes is not None:
        numbers = [n for n, reason in enumerate(task.test_left_out) if reason is None]
        if not numbers:
            reasons, hint = explain(task.test_left_out, {})
            raise DataError(
                f"no usable example in the test file of target {task.name!r}"
                + (f" (left out: {reasons})" if reasons else ""),
                hint=f"{hint}.",
            )
        return tuple(numbers)
    if not share:
        return ()
    usable = [n for n, reason in enumerate(task.left_out) if reason is None]
    return _drawn(task, usable, share * len(usable), seed, TEST) if len(usable) > 1 else ()


def _validation(task: TaskExamples, tested: Collection[str], share: float, seed: int) -> tuple[int, ...]:
    """Return the numbers of a target's validation examples. No validation example equals a test example."""
    if task.validation_hashes is not None:
        numbers = [
            n
            for n, reason in enumerate(task.validation_left_out)
            if reason is None and task.validation_hashes[n] not in tested
        ]
        if not numbers:
            reasons, hint = explain(task.validation_left_out, task.validation_problems)
            raise DataError(
                f"no usable example in the validation file of target {task.name!r}"
                + (f" (left out: {reasons})" if reasons else ""),
                hint=f"{hint}.",
            )
        return tuple(numbers)
    usable = [n for n, reason in enumerate(task.left_out) if reason is None]
    left = [n for n in usable if task.hashes[n] not in tested]
    if len(left) < 2:
        reasons, hint = explain(task.left_out, task.problems)
        raise DataError(
            f"too few usable examples in target {task.name!r}: {len(left)}"
            + (f" (left out: {reasons})" if reasons else ""),
            hint=f"{hint}. A target needs one example for training and one for validation.",
        )
    # Share of all usable examples, whether some of them are for the test or not.
    return _drawn(task, left, share * len(usable), seed, VALIDATION)


def _drawn(task: TaskExamples, numbers: list[int], count: float, seed: int, purpose: str) -> tuple[int, ...]:
    """Draw about `count` examples of a target for a purpose, and leave at least one for training.

    Raises:
        DataError: All examples are equal.
    """
    ranked = _ranked(numbers, task.hashes, seed, purpose)
    # Copies of one example stay together: all of them are held out, or all are for training.
    boundaries = [n for n in range(1, len(ranked)) if task.hashes[ranked[n - 1]] != task.hashes[ranked[n]]]
    if not boundaries:
        raise DataError(
            f"all usable examples of target {task.name!r} are equal: {len(numbers)} copies",
            hint="Add different examples. A target needs one for training and one for validation.",
        )
    nearest = min(boundaries, key=lambda n: abs(n - count))
    return tuple(sorted(ranked[:nearest]))


def _split(
    task: TaskExamples,
    held_out: _HeldOut,
    hashes: Mapping[str, set[str]],
    limit: int,
    seed: int,
    refusal: DataError | None,
) -> TaskSplit:
    validation = set(held_out.validation) if task.validation_hashes is None else set[int]()
    test = set(held_out.test) if task.test_hashes is None else set[int]()
    reasons: dict[str, list[int]] = {}
    train = []
    for number, reason in enumerate(task.left_out):
        if number in validation:
            reason = VALIDATION
        elif number in test:
            reason = TEST
        elif reason is None and task.hashes[number] in hashes[VALIDATION]:
            reason = LEAKED
        elif reason is None and task.hashes[number] in hashes[TEST]:
            reason = LEAKED_TEST
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
        validation=held_out.validation,
        test=held_out.test,
        left_out={reason: tuple(numbers) for reason, numbers in sorted(reasons.items())},
        refusal=refusal,
    )


def _ranked(numbers: list[int], hashes: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Shuffle by content hash. Equal examples stay adjacent, and new examples keep the order of the others."""

    def rank(number: int) -> tuple[str, int]:
        return hashlib.sha256(f"{seed}\0{purpose}\0{hashes[number]}".encode()).hexdigest(), number

    return sorted(numbers, key=rank)
