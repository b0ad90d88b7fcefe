"""The interval of a saved selection is that of `select` for a chosen subset, and the plain one otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

import curator
from curator.select.methods import Request
from curator.select.saved_interval import saved_interval

DrawnProject = Callable[..., Path]


def test_saved_interval_of_chosen_subset_is_that_of_select_and_of_hand_made_one_is_plain(
    drawn_project: DrawnProject,
) -> None:
    project = curator.Project.open(drawn_project("12"))
    chosen = project.select(name="chosen", k=3)
    estimates = project.estimates(("target",))
    found = saved_interval(estimates, project.manifest("chosen")[0])
    assert found is not None
    (plain,) = estimates.estimator.estimate(estimates.mask(chosen.selected)[None])
    assert (found.low, found.high) == pytest.approx((chosen.estimated_loss_low, chosen.estimated_loss_high), abs=1e-5)
    assert found.high - found.low == pytest.approx(1.5 * (plain.high - plain.low), rel=1e-3)
    # A person who takes the same tasks gets the plain interval, and the manifest says so.
    saved = project.selections(("target",)).save(chosen.selected, name="hand", request=Request(method="manual"))
    assert saved_interval(estimates, saved) is None
    assert (saved.estimated_loss_low, saved.estimated_loss_high) == pytest.approx((plain.low, plain.high), abs=1e-5)
    assert saved.estimate["interval_accounts_for_selection"] is False
