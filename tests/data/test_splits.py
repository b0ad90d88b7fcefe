"""Test the split into training and validation examples, and that no example is in both."""

import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curator.data.left_out import LEAKED, LEAKED_TEST, OVER_LIMIT, TEST, VALIDATION
from curator.data.splits import TaskExamples, TaskSplit, split_tasks

# Few different contents give many copies within and between tasks.
contents = st.lists(st.integers(0, 30).map(str), min_size=1, max_size=25)
reasons = st.sampled_from([None, None, None, "empty"])
corpora = st.lists(contents, min_size=2, max_size=4)
shares = st.floats(0.05, 0.95)
seeds = st.integers(0, 5)


def task(name: str, hashes: list[str], left_out: list[str | None] | None = None) -> TaskExamples:
    return TaskExamples(name=name, hashes=hashes, left_out=left_out or [None] * len(hashes))


def split(
    tasks: list[TaskExamples], targets: list[str], share: float = 0.3, limit: int = 0, seed: int = 0
) -> list[TaskSplit]:
    """Call `split_tasks`. Reject generated data that leave a task empty."""
    splits = split_tasks(tasks, targets, share=share, limit=limit, seed=seed)
    assume(all(found.refusal is None for found in splits))
    return splits


@given(corpora, st.data(), shares, st.integers(0, 6), seeds, st.integers(1, 2))
def test_split_tasks_every_example_has_exactly_one_role(
    corpus: list[list[str]], data: st.DataObject, share: float, limit: int, seed: int, target_count: int
) -> None:
    tasks = [
        task(str(n), hashes, data.draw(st.lists(reasons, min_size=len(hashes), max_size=len(hashes))))
        for n, hashes in enumerate(corpus)
    ]
    targets = [str(n) for n in range(target_count)]
    splits = split(tasks, targets, share, limit, seed)
    held_out = {t.hashes[n] for t, s in zip(tasks, splits, strict=True) for n in s.validation}
    for before, after in zip(tasks, splits, strict=True):
        roles = [*after.train, *(n for numbers in after.left_out.values() for n in numbers)]
        assert sorted(roles) == list(range(len(before.hashes)))
        assert set(after.validation) == set(after.left_out.get(VALIDATION, ()))
        assert bool(after.validation) == (before.name in targets)
        assert after.train
        assert not held_out & {before.hashes[n] for n in after.train}, "a held-out example is trained on"
        assert not limit or len(after.train) <= limit
        assert all(before.left_out[n] is None for n in (*after.train, *after.validation))
        own = {before.hashes[n] for n in after.validation}
        assert all(before.hashes[n] in held_out - own for n in after.left_out.get(LEAKED, ()) if before.name == "0")


@given(corpora, shares, st.integers(0, 6), seeds, st.randoms())
def test_split_tasks_order_of_rows_and_tasks_does_not_matter(
    corpus: list[list[str]], share: float, limit: int, seed: int, shuffle: random.Random
) -> None:
    tasks = [task(str(n), hashes) for n, hashes in enumerate(corpus)]
    splits = split(tasks, ["0"], share, limit, seed)
    assert splits == split(tasks, ["0"], share, limit, seed)
    shuffled = [task(t.name, shuffle.sample(list(t.hashes), len(t.hashes))) for t in reversed(tasks)]
    other = {s.name: s for s in split(shuffled, ["0"], share, limit, seed)}
    again = {t.name: t for t in shuffled}
    for before, after in zip(tasks, splits, strict=True):
        for part in ("train", "validation"):
            there = sorted(again[before.name].hashes[n] for n in getattr(other[before.name], part))
            assert sorted(before.hashes[n] for n in getattr(after, part)) == there


@given(contents, shares, seeds)
def test_split_tasks_copies_are_all_held_out_or_all_trained(hashes: list[str], share: float, seed: int) -> None:
    (result,) = split([task("t", hashes)], ["t"], share, 0, seed)
    assert not {hashes[n] for n in result.validation} & {hashes[n] for n in result.train}
    assert set(result.left_out) == {VALIDATION}


@given(st.integers(2, 200), shares, seeds)
def test_split_tasks_distinct_examples_keeps_the_share(count: int, share: float, seed: int) -> None:
    (result,) = split([task("t", [str(n) for n in range(count)])], ["t"], share, 0, seed)
    assert abs(len(result.validation) - min(max(share * count, 1), count - 1)) <= 0.5 + 1e-9


@given(st.integers(2, 60), st.integers(1, 30), shares, seeds)
def test_split_tasks_new_rows_move_only_the_boundary(count: int, more: int, share: float, seed: int) -> None:
    few, many = [str(n) for n in range(count)], [str(n) for n in range(count + more)]
    (before,), (after,) = (
        split([task("t", few)], ["t"], share, 0, seed),
        split([task("t", many)], ["t"], share, 0, seed),
    )
    then, now = set(before.validation), set(after.validation) & set(range(count))
    # New rows move the boundary in the order that the seed gives. They do not reorder other rows.
    assert then <= now or now <= then


def test_split_tasks_other_seed_gives_other_validation() -> None:
    hashes = [str(n) for n in range(40)]
    results = {
        split_tasks([task("t", hashes)], ["t"], share=0.3, limit=0, seed=seed)[0].validation for seed in range(5)
    }
    assert len(results) == 5


def test_split_tasks_validation_file_replaces_share() -> None:
    target = TaskExamples(
        name="t",
        hashes=["a", "b", "c"],
        left_out=[None] * 3,
        validation_hashes=["b", "x", "y"],
        validation_left_out=[None, None, "empty"],
    )
    first, second = split_tasks([target, task("aux", ["x", "z"])], ["t"], share=0.5, limit=0, seed=0)
    assert first.validation == (0, 1)
    assert first.train == (0, 2)
    assert first.left_out == {LEAKED: (1,)}
    assert second.left_out == {LEAKED: (0,)}


def test_split_tasks_limit_keeps_same_rows_in_any_order() -> None:
    hashes = [str(n) for n in range(30)]
    (one,) = split_tasks([task("t", hashes)], [], share=0.2, limit=7, seed=3)
    (other,) = split_tasks([task("t", hashes[::-1])], [], share=0.2, limit=7, seed=3)
    assert {hashes[n] for n in one.train} == {hashes[::-1][n] for n in other.train}
    assert len(one.left_out[OVER_LIMIT]) == 23


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task("t", ["a"])], "too few usable examples in target 't': 1"),
        ([task("t", ["a", "b"], ["empty", None])], "too few usable examples in target 't': 1"),
        ([task("t", ["a", "a", "a"])], "all usable examples of target 't' are equal: 3 copies"),
        ([task("t", ["a", "b"]), task("x", ["a"], ["empty"])], "no training examples in task 'x' .1 empty."),
        ([task("t", ["a", "b"]), task("x", ["a"]), task("y", ["b"])], "no training examples in task .* .1 also in the"),
        (
            [
                TaskExamples(
                    name="t", hashes=["a"], left_out=[None], validation_hashes=["b"], validation_left_out=["empty"]
                )
            ],
            "no usable example in the validation file of target 't'",
        ),
    ],
)
def test_split_tasks_nothing_left_refuses_the_task(tasks: list[TaskExamples], message: str) -> None:
    refusals = [found.refusal for found in split_tasks(tasks, ["t"], share=0.5, limit=0, seed=0) if found.refusal]
    assert re.search(message, refusals[0].message)


def test_split_tasks_unusable_task_leaves_the_others_usable() -> None:
    tasks = [task("t", ["a", "b"]), task("x", ["c"], ["empty"]), task("y", ["d"])]
    splits = split_tasks(tasks, ["t"], share=0.5, limit=0, seed=0)
    assert [found.refusal is None for found in splits] == [True, False, True]
    assert (splits[1].left_out, splits[2].train) == ({"empty": (0,)}, (0,))


def test_split_tasks_bad_rows_are_named_with_their_reasons() -> None:
    bad = TaskExamples(name="t", hashes=["", ""], left_out=["cannot be used"] * 2, problems={"not valid JSON": 2})
    (found,) = split_tasks([bad], ["t"], share=0.5, limit=0, seed=0)
    assert found.refusal is not None
    assert "(left out: 2 cannot be used: 2 × not valid JSON)" in found.refusal.message


# -- the test part ----------------------------------------------------------------------------------------------------


@given(corpora, shares, seeds, st.floats(0.05, 0.5))
def test_split_tasks_test_part_shares_no_content_with_other_parts(
    corpus: list[list[str]], share: float, seed: int, test_share: float
) -> None:
    tasks = [task(str(n), hashes) for n, hashes in enumerate(corpus)]
    splits = split_tasks(tasks, ["0", "1"], share=share, limit=0, seed=seed, test_share=test_share)
    assume(all(found.refusal is None for found in splits))
    pairs = list(zip(tasks, splits, strict=True))
    tested = {t.hashes[n] for t, s in pairs for n in s.test}
    assert tested
    for before, after in pairs:
        assert not tested & {before.hashes[n] for n in (*after.train, *after.validation)}
        assert set(after.test) == set(after.left_out.get(TEST, ()))
        assert bool(after.test) == (before.name in ("0", "1"))
        roles = [*after.train, *(n for numbers in after.left_out.values() for n in numbers)]
        assert sorted(roles) == list(range(len(before.hashes)))


def test_split_tasks_test_share_counts_all_examples_and_keeps_the_seed() -> None:
    target = task("t", [f"h{n}" for n in range(100)])
    (found,) = split_tasks([target], ["t"], share=0.3, limit=0, seed=1, test_share=0.2)
    assert (len(found.test), len(found.validation), len(found.train)) == (20, 30, 50)
    (again,) = split_tasks([target], ["t"], share=0.3, limit=0, seed=1, test_share=0.2)
    (other,) = split_tasks([target], ["t"], share=0.3, limit=0, seed=2, test_share=0.2)
    assert again == found
    assert other.test != found.test
    (none,) = split_tasks([target], ["t"], share=0.3, limit=0, seed=1)
    assert (none.test, TEST in none.left_out, len(none.validation)) == ((), False, 30)


def test_split_tasks_test_file_keeps_its_rows_out_of_training_and_validation() -> None:
    target = TaskExamples(
        name="t",
        hashes=["a", "b", "c", "d"],
        left_out=[None] * 4,
        validation_hashes=["v", "x"],
        validation_left_out=[None, None],
        test_hashes=["x", "a", "y"],
        test_left_out=[None, None, "empty"],
    )
    own, aux = split_tasks([target, task("aux", ["x", "e"])], ["t"], share=0.3, limit=0, seed=0)
    # Row `x` is in both files, and is for the test.
    assert (own.test, own.validation, own.train) == ((0, 1), (0,), (1, 2, 3))
    assert own.left_out == {LEAKED_TEST: (0,)}
    assert (aux.train, aux.left_out) == ((1,), {LEAKED_TEST: (0,)})


def test_split_tasks_test_file_without_usable_rows_refuses_the_target() -> None:
    target = TaskExamples(
        name="t", hashes=["a", "b"], left_out=[None, None], test_hashes=["x"], test_left_out=["empty"]
    )
    (found,) = split_tasks([target], ["t"], share=0.3, limit=0, seed=0)
    assert found.refusal is not None
    assert "no usable example in the test file of target 't' (left out: 1 empty)" in found.refusal.message
