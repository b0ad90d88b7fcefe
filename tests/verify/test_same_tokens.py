"""Compare selections, methods and ends of the range by runs on equal tokens, by the loss and by a metric."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import pair_rows
from hostile import run_cli
from scipy.stats import t as student

import curator
from curator.cli.verify_tables import show_verify
from curator.core.events import Reporter
from curator.data.dropped import Dropped, without
from curator.select.manifest import read_manifest
from curator.select.methods import Request
from curator.training.fine_tune import recipe_key, subset_content, with_epochs
from curator.verify.paired import NamedSubset, named_subsets, paired_difference, runs_to_pair, tokens_of

TASKS = ("alpha", "beta", "gamma")
_made: dict[str, Path] = {}


def _open(folder: Path) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter())


@pytest.fixture
def ready(make_project: Callable[..., Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project of three tasks of different sizes, ready to verify."""
    if not _made:
        tasks = {"target": pair_rows("target", 12)}
        tasks |= {name: pair_rows(name, 6 + 2 * n) for n, name in enumerate(TASKS)}
        # Dropped examples need the trajectory.
        estimate, train = {"method": "trajectory"}, {"learning_rate": 1e-2, "epochs": 1}
        folder = make_project("made", tasks=tasks, project={"name": "p"}, train=train, estimate=estimate)
        project = _open(folder)
        project.select()
        project.selections(("target",)).save(["alpha", "beta"], name="mine", request=Request(method="forward"))
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _pretend(project: curator.Project, one: NamedSubset, losses: dict[int, float]) -> None:
    """Store losses of a selection by seed, under the epochs of the selection."""
    corpus = project.corpus(("target",))
    config = with_epochs(project.workspace, one.epochs).config
    for seed, loss in losses.items():
        project.store.put_measurement(
            recipe_key(config, corpus), "target", subset_content(corpus, one.subset), seed=seed, loss=loss, seconds=2.0
        )


def test_named_subsets_same_tokens_scales_epochs_to_the_first(ready: Path) -> None:
    selections = _open(ready).selections(("target",))
    tokens = {task.name: task.tokens for task in selections.estimates.corpus.tasks}
    mine, every, alone, drawn = named_subsets(selections, ["mine", "all", "target", "random"], same_tokens=True)
    budget = tokens["alpha"] + tokens["beta"] + tokens["target"]
    assert (mine.subset, mine.epochs) == ({"alpha", "beta"}, None)
    assert (every.subset, every.epochs) == ({*TASKS}, round(budget / sum(tokens.values()), 6))
    assert (alone.subset, alone.epochs) == (frozenset(), round(budget / tokens["target"], 6))
    assert sum(tokens[name] for name in drawn.subset) <= tokens["alpha"] + tokens["beta"]
    # Without equal tokens, every run has the epochs of the recipe.
    assert {one.epochs for one in named_subsets(selections, ["mine", "all", "target"])} == {None}


def test_named_subsets_method_keeps_its_choice_after_verified_runs(ready: Path) -> None:
    project = _open(ready)
    chosen = named_subsets(project.selections(("target",)), ["mine", "backward"])[1]
    # These runs would turn the estimates round.
    for n, name in enumerate(TASKS):
        for seed in (1, 2, 3):
            _pretend(project, NamedSubset("x", frozenset({name})), {seed: 9.0 if name in chosen.subset else 0.1 + n})
    later = _open(ready).selections(("target",))
    assert named_subsets(later, ["mine", "backward"])[1] == chosen
    # An equally named selection of the project comes before the method.
    later.save(["gamma"], name="backward", request=Request(method="forward"))
    assert named_subsets(_open(ready).selections(("target",)), ["mine", "backward"])[1].subset == {"gamma"}


def test_verify_selection_that_drops_examples_is_measured_without_them(ready: Path) -> None:
    project = _open(ready)
    dropped = [("alpha", row.sha256) for row in project.examples("alpha").examples[:2]]
    project.selections(("target",)).save(
        ["alpha", "beta"], name="less", request=Request(method="forward", dropped=Dropped.of(dropped))
    )
    # Alone, it needs no run on whole tasks.
    alone = _open(ready).verify(selections=["less"], seeds=1)
    assert (alone.runs, alone.subsets, alone.relative_error) == ((), 0, None)
    assert alone.selections is not None
    assert len(alone.selections[0].measured_losses) == 1
    show_verify(alone)
    report = _open(ready).verify(selections=["mine", "less"], seeds=1)
    assert report.selections is not None
    assert report.dropping is None
    mine, less = report.selections
    assert mine.selected == less.selected
    assert less.tokens < mine.tokens
    corpus = without(project.corpus(("target",)), Dropped.of(dropped))
    stored = project.store.measurements(recipe_key(project.config, corpus))
    assert len(stored) == 2
    (run,) = [run for run in stored if run.subset == subset_content(corpus, less.selected)]
    assert less.measured_losses == (pytest.approx(run.loss, abs=1e-6),)
    assert less.measured_losses != mine.measured_losses
    # The run on fewer examples does not count as one on whole tasks.
    assert [run.subset for run in report.runs] == [("alpha", "beta")]
    later = _open(ready).selections(("target",))
    assert runs_to_pair(later.estimates, named_subsets(later, ["mine", "less"]), seeds=1) == []


def test_verify_same_tokens_trains_every_selection_on_the_tokens_of_the_first(ready: Path) -> None:
    project = _open(ready)
    report = project.verify(selections=["mine", "all", "target"], same_tokens=True, seeds=1, metric="exact_match")
    assert report.selections is not None
    budget = tokens_of(project.estimates(("target",)), frozenset({"alpha", "beta"}))
    assert [one.tokens_trained for one in report.selections] == [budget] * 3
    corpus = project.corpus(("target",))
    for one in report.selections:
        config = with_epochs(project.workspace, one.epochs).config
        (run,) = project.store.measurements(recipe_key(config, corpus))
        assert frozenset(run.subset) == frozenset(one.selected)
        assert run.details.tokens == pytest.approx(budget, abs=1)
        assert one.measured_losses == (pytest.approx(run.loss, abs=1e-6),)
        assert one.metric is not None
        assert 0 <= one.metric <= 1
        assert (one.measured_low, one.metric_low) == (None, None)
    # Only the run with the recipe's epochs calibrates and is part of the report on estimates.
    assert [run.subset for run in report.runs] == [("alpha", "beta")]
    # The second call finds every run.
    again = _open(ready).verify(selections=["mine", "all", "target"], same_tokens=True, seeds=1, metric="exact_match")
    assert again.selections == report.selections


def test_verify_same_tokens_reports_intervals_over_seeds_and_paired_differences(ready: Path) -> None:
    project = _open(ready)
    mine, every = named_subsets(project.selections(("target",)), ["mine", "all"], same_tokens=True)
    first, second = {1: 1.5, 2: 1.7, 3: 1.9}, {1: 1.9, 2: 2.3, 3: 2.1}
    _pretend(project, mine, first)
    _pretend(project, every, second)
    words = ("verify", "--selections", "mine,all", "--same-tokens", "--seeds", "3", "-p", ready)
    report = json.loads(run_cli(*words, "--json").check(0).out)
    own = {one["name"]: one for one in report["selections"]}
    half = student.ppf(0.95, 2) * np.std([*first.values()], ddof=1) / np.sqrt(3)
    assert own["mine"]["measured_loss"] == pytest.approx(1.7)
    assert (own["mine"]["measured_low"], own["mine"]["measured_high"]) == pytest.approx(
        (1.7 - half, 1.7 + half), abs=1e-6
    )
    (pair,) = report["differences"]
    gaps = [first[seed] - second[seed] for seed in (1, 2, 3)]
    half = student.ppf(0.95, 2) * np.std(gaps, ddof=1) / np.sqrt(3)
    assert pair["difference"] == pytest.approx(-0.4)
    assert (pair["difference_low"], pair["difference_high"]) == pytest.approx((-0.4 - half, -0.4 + half), abs=1e-6)
    assert pair["metric_difference"] is None
    table = run_cli(*words).check(0).out
    assert "tokens trained" in table
    wrong = run_cli("verify", "--same-tokens", "-p", ready).check(2)
    assert "--selections" in wrong.err


def test_verify_interval_of_a_mean_loss_stays_above_zero(ready: Path) -> None:
    project = _open(ready)
    mine, every = named_subsets(project.selections(("target",)), ["mine", "all"], same_tokens=True)
    _pretend(project, mine, {1: 0.02, 2: 0.9, 3: 0.1})
    _pretend(project, every, {1: 1.9, 2: 2.3, 3: 2.1})
    report = json.loads(
        run_cli("verify", "--selections", "mine,all", "--same-tokens", "--seeds", "3", "-p", ready, "--json")
        .check(0)
        .out
    )
    own = {one["name"]: one for one in report["selections"]}
    # Student's interval alone would begin at −0.47.
    assert own["mine"]["measured_low"] == 0.0
    assert own["mine"]["measured_high"] > 1.0
    assert report["differences"][0]["difference_low"] < -1.9


def test_manifest_with_dropped_examples_counts_the_runs_that_calibrate(ready: Path) -> None:
    project = _open(ready)
    for size in range(6):
        subset = frozenset(t for n, t in enumerate(TASKS) if size >> n & 1)
        _pretend(project, NamedSubset("", subset), {1: 1.0 + 0.1 * size})
    dropped = [("alpha", row.sha256) for row in project.examples("alpha").examples[:2]]
    project.select(drop_examples=dropped)
    estimate = read_manifest(ready / "curator-manifest.json").estimate
    assert (estimate["calibrated"], estimate["measured_subsets"]) == (True, 6)


def test_paired_difference_equal_over_seeds_has_unknown_interval() -> None:
    # One of 40 rows more with both seeds: the spread of 0 comes from the coarse share.
    seeds, found = paired_difference({1: 0.1, 2: 0.1}, {1: 0.075, 2: 0.075})
    assert seeds == 2
    assert found.value == pytest.approx(0.025)
    assert (found.low, found.high) == (-np.inf, np.inf)
    _, known = paired_difference({1: 0.1, 2: 0.2}, {1: 0.1, 2: 0.1})
    assert np.isfinite([known.low, known.high]).all()
