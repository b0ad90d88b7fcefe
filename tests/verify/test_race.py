"""The race: choice of runs on planted truths, results, limits, and resuming after a kill."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import environment_with, pair_rows
from hostile import run_cli

import curator
from curator.core.errors import ConfigError
from curator.metrics.measuring import Measurer, metric_name
from curator.select.methods import Request
from curator.select.posterior import spread_of
from curator.training.fine_tune import recipe_key, subset_content
from curator.verify.race import SURE, Field, Race, next_row, standing_of
from curator.workspace.store.metric_values import StoredMetric

MakeProject = Callable[..., Path]
TASKS = ("alpha", "beta", "gamma", "delta")
_made: dict[str, Path] = {}

# -- which run follows ------------------------------------------------------------------------------------------------


def _field(seed: int, subsets: int = 40, tasks: int = 10) -> tuple[Field, np.ndarray, np.ndarray]:
    """Return subsets, their estimated changes and their true losses. The estimates are far from perfect."""
    rng = np.random.default_rng(seed)
    masks = (rng.permutation(2**tasks)[:subsets, None] >> np.arange(tasks)) & 1 > 0
    gaps = masks @ rng.normal(0, 0.1, tasks)
    gaps -= gaps.mean()
    changes = gaps + rng.normal(0, 0.12, subsets)
    return Field(masks=masks, named=np.ones(subsets, dtype=bool)), changes, 1.0 + gaps + rng.normal(0, 0.03, subsets)


def _raced(seed: int, runs: int) -> tuple[float, float, int]:
    """Return the regret of a race, that of the best of as many random runs, and the most runs of a subset."""
    field, changes, truth = _field(seed)
    rng = np.random.default_rng(1000 + seed)
    rows: list[int] = []
    losses: list[float] = []

    def standing():  # type: ignore[no-untyped-def]
        unit = spread_of(changes, 1.0)
        return standing_of(field, changes, known=1.0, unit=unit, rows=rows, losses=losses, seed=0)

    while len(rows) < runs:
        row = next_row(standing(), rows, np.ones(len(truth), dtype=bool))
        assert row is not None
        rows.append(row)
        losses.append(truth[row] + rng.normal(0, 0.03))
    random = []
    for _ in range(200):
        some = rng.permutation(len(truth))[:runs]
        random.append(truth[some[np.argmin(truth[some] + rng.normal(0, 0.03, runs))]])
    return truth[standing().winner] - truth.min(), float(np.mean(random)) - truth.min(), max(np.bincount(rows))


def test_race_eight_runs_beat_the_best_of_as_many_random_runs_by_far() -> None:
    found = np.array([_raced(seed, 8) for seed in range(12)])
    drawn = [_field(seed) for seed in range(12)]
    none = np.array([truth[changes.argmin()] - truth.min() for _, changes, truth in drawn])
    assert found[:, 0].mean() < 0.5 * found[:, 1].mean()
    assert found[:, 0].mean() < 0.5 * none.mean()


def test_race_spends_its_runs_on_different_subsets() -> None:
    found = np.array([_raced(seed, 16) for seed in range(12)])
    # The seed noise is small here, so a second run on a subset teaches little.
    assert found[:, 2].mean() < 4
    assert found[:, 0].mean() < 0.25 * found[:, 1].mean()


def test_next_row_first_measures_the_leader_then_the_highest_gain() -> None:
    field, changes, truth = _field(3)
    unit = spread_of(changes, 1.0)
    free = np.ones(len(truth), dtype=bool)
    first = standing_of(field, changes, known=1.0, unit=unit, rows=[], losses=[], seed=0)
    assert first.winner == changes.argmin()
    assert next_row(first, [], free) == first.winner
    after = standing_of(field, changes, known=1.0, unit=unit, rows=[first.winner], losses=[3.0], seed=0)
    assert after.winner == first.winner, "only measured subsets win"
    chosen = next_row(after, [first.winner], free)
    assert chosen == after.gains.argmax() != first.winner
    free[chosen] = False
    assert next_row(after, [first.winner], free) != chosen
    assert next_row(after, [first.winner], np.zeros(len(truth), dtype=bool)) is None


def test_standing_of_clear_winner_is_sure_and_names_the_runner_up() -> None:
    masks = np.array([[True, False], [False, True], [True, True]])
    field = Field(masks=masks, named=np.array([True, True, False]))
    changes = np.array([0.0, 0.1, -0.1])
    rows, losses = [0, 1] * 4, [0.5, 1.1] * 4
    found = standing_of(field, changes, known=1.0, unit=0.1, rows=rows, losses=losses, seed=0)
    assert (found.winner, found.runner_up) == (0, 1)
    assert found.probability_best > SURE


# -- a project --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project of four tasks, ready to race."""
    if not _made:
        tasks = {"target": pair_rows("target", 12)} | {name: pair_rows(name, 8) for name in TASKS}
        folder = make_project("made", tasks=tasks, project={"name": "p"}, train={"learning_rate": 1e-2, "epochs": 1})
        curator.Project.open(folder).select()
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _measured(folder: Path) -> dict[tuple[tuple[str, ...], int], float]:
    found = curator.Project.open(folder).estimates(("target",)).measured
    return {(tuple(sorted(m.subset)), run.seed): run.loss for m in found for run in m.runs}


def test_select_runs_reports_the_race_and_repeats_no_run(ready: Path) -> None:
    done = run_cli("select", "--runs", "3", "--exclude", "delta", "--k", "2", "--json", "-p", ready).check(0)
    report = json.loads(done.out)
    measured = _measured(ready)
    assert report["method"] == report["name"] == "race"
    assert report["interval_accounts_for_selection"] is True
    race = report["race"]
    assert race["runs"] == len(measured) <= 3
    assert all("delta" not in subset and len(subset) <= 2 for subset, _ in measured)
    assert sorted(report["selected"]) == race["winner"]
    means = {subset: np.mean([loss for (s, _), loss in measured.items() if s == subset]) for subset, _ in measured}
    assert race["measured_loss"] == pytest.approx(means[tuple(race["winner"])], abs=1e-6)
    assert race["regret"] == pytest.approx(means[tuple(race["winner"])] - min(means.values()), abs=2e-6)
    assert 0 < race["probability_best"] <= 1
    manifest = json.loads((ready / "curator-manifest.json").read_text())
    assert manifest["options"]["race"]["winner"] == race["winner"]
    assert manifest["measured_loss"] == pytest.approx(race["measured_loss"])
    # Each run keeps the estimate from before it, and the first one is without calibration.
    runs = [run for m in curator.Project.open(ready).estimates(("target",)).measured for run in m.runs]
    assert all(run.details.estimated_before is not None for run in runs)
    again = json.loads(
        run_cli("select", "--runs", "3", "--exclude", "delta", "--k", "2", "--json", "-p", ready).check(0).out
    )
    assert _measured(ready) == measured
    assert again["cached"]
    assert again["race"] == race
    # The plan counts the runs that are left, and no run of before.
    for more in (0, 2):
        words = ("select", "--runs", race["runs"] + more, "--exclude", "delta", "--k", "2", "--dry-run", "--json")
        stage = json.loads(run_cli(*map(str, words), "-p", ready).check(0).out)["stages"][-1]
        assert (stage["stage"], stage["cached"], stage["steps"] > 0) == ("select", more == 0, more > 0)
    shown = run_cli("select", "--runs", "3", "--exclude", "delta", "--k", "2", "-p", ready).check(0)
    assert "runner-up" in shown.out


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"runs": 2, "method": "forward"}])
def test_select_runs_below_one_or_with_method_raises_error(ready: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="race"):
        curator.Project.open(ready).select(**wrong)  # type: ignore[arg-type]


def test_race_stored_runs_count_as_evidence_and_end_a_decided_race(ready: Path) -> None:
    project = curator.Project.open(ready)
    corpus = project.corpus(("target",))
    recipe = recipe_key(project.config, corpus)
    for number in range(16):
        subset = [task for i, task in enumerate(TASKS) if number >> i & 1]
        loss = 1.0 if subset == ["alpha"] else 3.0 + 0.01 * number
        for seed in (1, 2):
            content = subset_content(corpus, subset)
            project.store.put_measurement(recipe, "target", content, seed=seed, loss=loss, seconds=1.0)
    result = curator.Project.open(ready).select(runs=5)
    assert result.race is not None
    assert result.race.runs == 0
    assert result.race.winner == ("alpha",)
    assert result.race.probability_best >= SURE
    assert result.race.regret == 0.0


def test_race_configured_metric_decides_against_the_loss(ready: Path) -> None:
    (ready / "curator.toml").write_text((ready / "curator.toml").read_text() + '\n[verify]\nmetric = "exact_match"\n')
    project = curator.Project.open(ready)
    corpus = project.corpus(("target",))
    measurer = Measurer(project.workspace, corpus, metric_name(project.workspace, None))
    recipe = recipe_key(project.config, corpus)
    for number in range(16):
        subset = [task for i, task in enumerate(TASKS) if number >> i & 1]
        content = subset_content(corpus, subset)
        loss = 1.0 if subset == ["alpha"] else 3.0 + 0.01 * number
        for seed in (1, 2):
            share = 0.9 if subset == ["beta", "gamma"] else 0.2 + 0.01 * seed
            value = StoredMetric(
                metric="exact_match", part="validation", version=measurer.version(measurer.metric, "validation"),
                value=share, standard_error=0.05, examples=40, higher_is_better=True,
            )  # fmt: skip
            project.store.put_metrics(recipe, "target", content, seed=seed, values=[value])
            project.store.put_measurement(recipe, "target", content, seed=seed, loss=loss, seconds=1.0)
    race = curator.Project.open(ready).select(runs=5).race
    assert race is not None
    assert (race.metric, race.runs, race.winner) == ("exact_match", 0, ("beta", "gamma"))
    assert race.measured_metric == pytest.approx(0.9)
    assert race.metric_regret == 0.0
    # By the loss, alpha alone is better: 1.0 instead of 3.06.
    assert race.regret == pytest.approx(2.06)
    # A race by the loss is another race, with another winner.
    (ready / "curator.toml").write_text((ready / "curator.toml").read_text().replace("exact_match", "loss"))
    by_loss = curator.Project.open(ready).select(runs=5).race
    assert by_loss is not None
    assert (by_loss.metric, by_loss.winner, by_loss.measured_metric) == ("loss", ("alpha",), None)


def test_race_killed_before_storing_a_run_resumes_that_run(ready: Path, tmp_path: Path) -> None:
    environment = environment_with(
        tmp_path / "kill",
        "import os, signal\n"
        "from curator.workspace.store.tables import Store\n"
        "put, count = Store.put_measurement, []\n"
        "def killed(self, *given, **named):\n"
        "    count.append(1)\n"
        "    if len(count) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    put(self, *given, **named)\n"
        "Store.put_measurement = killed\n",
    )
    command = [sys.executable, "-m", "curator", "select", "--runs", "3", "-q", "-p", str(ready)]
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL
    first = _measured(ready)
    assert len(first) == 1
    project = curator.Project.open(ready)
    race = Race(project.selections(("target",)), Request(method="forward"), fresh=False)
    planned = race.runs
    assert len(planned) == 2
    assert race.next_run(3) == planned[1], "the interrupted run comes first"
    result = project.select(runs=3)
    assert result.race is not None
    measured = _measured(ready)
    assert result.race.runs == len(measured) <= 3
    assert first.items() <= measured.items()
    assert {(tuple(sorted(subset)), seed) for subset, seed in planned} <= measured.keys()
