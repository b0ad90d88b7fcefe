"""Similar tasks become neighbours, in any order of the input."""

import numpy as np
import pytest

from tui.state.arrangement import MOST_GROUPS, arrange, full_scale, group_names, similarity


def _blocks(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return transfer within blocks, and the block of each task. The diagonal is far larger than the rest."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    transfer = np.where(block[:, None] == block[None], 0.05, -0.01) + 0.003 * rng.standard_normal((len(block),) * 2)
    np.fill_diagonal(transfer, 0.5)
    return transfer, block


@pytest.mark.parametrize("seed", range(5))
def test_arrange_two_blocks_in_any_order_are_found(seed: int) -> None:
    transfer, block = _blocks((2, 7))
    shuffled = np.random.default_rng(seed).permutation(len(block))
    found = arrange(transfer[np.ix_(shuffled, shuffled)])
    assert sorted(found.order.tolist()) == list(range(len(block)))
    assert np.count_nonzero(np.diff(block[shuffled][found.order])) == 1


def test_arrange_groups_are_contiguous_and_numbered_in_order() -> None:
    transfer, _ = _blocks((5, 4, 6, 3, 8, 2, 7, 4, 5, 6, 3))
    found = arrange(transfer)
    along = found.groups[found.order]
    assert (np.diff(along) >= 0).all()
    assert along[0] == 0
    assert len(found.medoids) == along[-1] + 1 <= MOST_GROUPS
    assert [int(found.groups[medoid]) for medoid in found.medoids] == list(range(len(found.medoids)))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_arrange_few_tasks_gives_complete_order(count: int) -> None:
    found = arrange(np.ones((count, count)))
    assert sorted(found.order.tolist()) == list(range(count))
    assert len(found.groups) == count
    assert full_scale(np.ones((count, count))) == (1.0 if count > 1 else 0.0)


def test_arrange_zero_or_unknown_transfer_gives_complete_order() -> None:
    for transfer in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        assert sorted(arrange(transfer).order.tolist()) == [0, 1, 2, 3]
        assert full_scale(transfer) == 0
        assert np.isfinite(similarity(transfer)).all()


def test_group_names_majority_tag_names_the_group() -> None:
    transfer, block = _blocks((3, 3))
    found = arrange(transfer)
    tags = ["math easy" if b == 0 else "" for b in block]
    names = group_names(found, [f"task {n}" for n in range(6)], tags)
    by_task = [names[group] for group in found.groups]
    assert "math" in by_task[:3]
    assert all(name.startswith("task ") for name in by_task[3:])


def test_full_scale_ignores_few_large_pairs() -> None:
    transfer = np.random.default_rng(0).uniform(-0.01, 0.01, (40, 40))
    np.fill_diagonal(transfer, 5.0)
    transfer[0, 1] = 3.0
    assert full_scale(transfer) < 0.011
