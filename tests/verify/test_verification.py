"""Verification on a tiny project: planned runs, stored measurements, and the report."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKPOINTS_AT_ONCE, environment_with, pair_rows, write_rows
from hostile import Outcome, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

import curator
from curator import results
from curator.cli.tables import show_estimates
from curator.cli.verify_tables import show_verify
from curator.core.errors import ConfigError, NumericalError
from curator.core.events import Event, Note, Reporter, StageStarted
from curator.core.interval import Interval
from curator.data.corpus import training_examples, validation_examples
from curator.estimate.calibration import Calibration, calibrate, conformal, cross_validated
from curator.estimate.target import TargetEstimates
from curator.select.methods import Request
from curator.select.selections import Selections
from curator.training.fine_tune import FineTuned, fine_tune, recipe_key, subset_content
from curator.training.trainer import measure_losses, train_adapter
from curator.verify.measure import mark_reported, run_seeds, runs_to_make
from curator.verify.probes import plan, probe_subsets
from curator.verify.report import rank_correlation

MakeProject = Callable[..., Path]
TASKS = ("alpha", "beta", "gamma", "delta")

# -- which subsets ----------------------------------------------------------------------------------------------------


def _law(masks: np.ndarray) -> np.ndarray:
    tasks = masks.shape[1]
    return np.asarray(masks @ np.cos(np.arange(tasks)) + 0.1 * masks.sum(axis=1))


def _keys(masks: list[np.ndarray]) -> list[bytes]:
    return [mask.tobytes() for mask in masks]


@settings(max_examples=25)
@given(st.integers(0, 12), st.integers(0, 20), st.integers(0, 99), st.integers(0, 6))
def test_probe_subsets_are_new_different_and_seeded(tasks: int, count: int, seed: int, there: int) -> None:
    known = [mask for mask in np.random.default_rng(seed).random((there, tasks)) < 0.5]
    chosen = probe_subsets(_law, tasks, count=count, seed=seed, there=known)
    assert all(mask.shape == (tasks,) and mask.dtype == bool for mask in chosen)
    assert len(set(_keys(chosen))) == len(chosen)
    assert not set(_keys(chosen)) & set(_keys(known))
    assert len(chosen) == min(count, 2**tasks - len(set(_keys(known))))
    assert _keys(chosen) == _keys(probe_subsets(_law, tasks, count=count, seed=seed, there=known))


@pytest.mark.parametrize("tasks", [0, 1, 3, 5])
def test_probe_subsets_few_tasks_gives_every_subset(tasks: int) -> None:
    chosen = probe_subsets(_law, tasks, count=1000, seed=0)
    assert len(set(_keys(chosen))) == 2**tasks
    assert probe_subsets(_law, tasks, count=5, seed=0, there=chosen) == []


@pytest.mark.parametrize("tasks", [6, 20])
def test_probe_subsets_larger_count_extends_smaller_one(tasks: int) -> None:
    whole = probe_subsets(_law, tasks, count=14, seed=3)
    first = probe_subsets(_law, tasks, count=5, seed=3)
    assert _keys(whole)[:5] == _keys(first)
    assert _keys(whole)[5:] == _keys(probe_subsets(_law, tasks, count=9, seed=3, there=first))
    assert _keys(whole) != _keys(probe_subsets(_law, tasks, count=14, seed=4))


@pytest.mark.parametrize("tasks", [12, 40])
def test_probe_subsets_are_spread_over_size_and_estimate(tasks: int) -> None:
    # The estimate is nearly independent of size. Probes must be spread over both at once: each quarter of the ranks of
    # either has a quarter of the probes.
    def law(masks: np.ndarray) -> np.ndarray:
        return np.asarray(masks @ np.random.default_rng(0).standard_normal(tasks))

    rng = np.random.default_rng(1)
    sizes = rng.integers(1, tasks, 4000)
    others = law(rng.permuted(np.arange(tasks) < sizes[:, None], axis=1))
    for seed in range(4):
        chosen = np.array(probe_subsets(law, tasks, count=16, seed=seed))
        of_size = np.histogram(chosen.sum(axis=1), np.linspace(0.5, tasks - 0.5, 5))[0]
        of_loss = np.histogram(law(chosen), [-np.inf, *np.quantile(others, [0.25, 0.5, 0.75]), np.inf])[0]
        assert min(of_size) >= 2
        assert max(of_size) <= 6
        assert min(of_loss) >= 2
        assert max(of_loss) <= 6


@pytest.mark.parametrize("tasks", [8, 20])
def test_probe_subsets_equal_estimates_cover_every_task(tasks: int) -> None:
    counts = np.zeros(tasks)
    for seed in range(8):
        chosen = np.array(probe_subsets(lambda masks: np.zeros(len(masks)), tasks, count=12, seed=seed))
        counts += chosen.sum(axis=0)
    assert counts.min() > 0.6 * counts.mean()
    assert counts.max() < 1.4 * counts.mean()


# -- a project ------------------------------------------------------------------------------------------------------


def _open(folder: Path, events: list[Event] | None = None) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _selections(folder: Path, *targets: str) -> Selections:
    return _open(folder).selections(targets or ("target",))


def _estimates(folder: Path, *targets: str) -> TargetEstimates:
    return _open(folder).estimates(targets or ("target",))


_made: dict[str, Path] = {}


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project of four tasks, ready to verify."""
    if not _made:
        tasks = {"target": pair_rows("target", 12)} | {name: pair_rows(name, 8) for name in TASKS}
        folder = make_project("made", tasks=tasks, project={"name": "p"}, train={"learning_rate": 1e-2, "epochs": 1})
        _open(folder).select()
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _measured(folder: Path, *targets: str) -> dict[tuple[str, int], float]:
    """Return the loss of every valid run, by subset and seed."""
    return {
        ("+".join(sorted(m.subset)), run.seed): run.loss
        for m in _estimates(folder, *targets).measured
        for run in m.runs
    }


def _pretend(folder: Path, law: Callable[[frozenset[str]], float], subsets: list[frozenset[str]]) -> None:
    """Store measurements that follow a law."""
    project = _open(folder)
    corpus = project.corpus(("target",))
    for subset in subsets:
        content = subset_content(corpus, subset)
        for seed in (0, 1):
            project.store.put_measurement(
                recipe_key(project.config, corpus), "target", content, seed=seed, loss=law(subset), seconds=2.0
            )


def _subsets(count: int) -> list[frozenset[str]]:
    every = [frozenset(t for i, t in enumerate(TASKS) if n >> i & 1) for n in range(16)]
    return [every[n] for n in np.random.default_rng(5).permutation(16)[:count]]


def _left_over(folder: Path) -> list[Path]:
    place = folder / ".curator" / "adapters" / "verify"
    return list(place.iterdir()) if place.exists() else []


def _edit(folder: Path, old: str, new: str) -> None:
    path = folder / "curator.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_verify_measured_loss_equals_plain_fine_tuning(ready: Path) -> None:
    events: list[Event] = []
    project = _open(ready, events)
    selections = project.selections(("target",))
    selections.save(["delta", "alpha"], name="mine", request=Request(method="forward"))
    report = project.verify(runs=3, seeds=2)
    assert _left_over(ready) == []
    notes = [e.message for e in events if isinstance(e, Note)]
    assert [note.partition(":")[0] for note in notes if note.startswith("run ")] == [
        f"run {n} of 6" for n in range(1, 7)
    ]
    assert report.subsets == 3
    assert len(report.runs) == 6
    seeds = Counter(run.subset for run in report.runs)
    assert set(seeds.values()) == {2}
    # The plan includes the current selection (made by a person), all tasks and the target alone.
    assert {("alpha", "delta"), tuple(sorted(TASKS)), ()} == set(seeds)
    # Direct computation: from the base model, on these tasks and the target, with the project's recipe.
    corpus = project.corpus(("target",))
    chosen = [task for task in corpus.tasks if task.name in ("alpha", "delta")] + corpus.target_tasks
    examples = [example for task in chosen for example in training_examples(task, project.store)]
    tuned = project._pipeline.load()
    for run in report.runs:
        if run.subset == ("alpha", "delta"):
            train_adapter(
                tuned, examples, project.config.train, folder=ready / "by hand", reporter=Reporter(), stage="s",
                seed=run.seed,
            )  # fmt: skip
            held_out = validation_examples(corpus.target_tasks[0], project.store)
            loss = measure_losses(tuned, held_out, batch_tokens=512).mean()
            assert run.measured_loss == pytest.approx(loss, abs=2e-6)


def test_verify_diverged_run_is_left_out_and_not_repeated(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[frozenset[str], int]] = []

    def diverging(*arguments: Any, seed: int, **options: Any) -> FineTuned:
        tried.append((frozenset(arguments[2]), seed))
        if not arguments[2]:
            raise NumericalError("the training loss became nan at step 3")
        return fine_tune(*arguments, seed=seed, **options)

    monkeypatch.setattr("curator.workers.fine_tuning.fine_tune", diverging)
    events: list[Event] = []
    report = _open(ready, events).verify(runs=3, seeds=1)
    assert len(tried) == 3
    assert report.subsets == 2
    assert () not in {run.subset for run in report.runs}
    assert [e for e in events if isinstance(e, Note) and e.level == "warning" and "became nan" in e.message]
    assert _left_over(ready) == []
    # Neither the rest of a plan nor a new plan contains the run.
    _open(ready).verify(runs=2, seeds=1)
    assert len(tried) == 5
    assert len(set(tried)) == 5


def test_verify_runs_do_not_use_seed_of_meta_training(ready: Path) -> None:
    # With the seed of meta-training, a run on all tasks would repeat meta-training step by step.
    project = _open(ready)
    corpus, tuned = project.corpus(("target",)), project._pipeline.load()
    examples = [example for task in corpus.tasks for example in training_examples(task, project.store)]
    known = _estimates(ready).estimator.all_tasks_loss
    assert [task.name for task in corpus.tasks][-1] == "target", "in the order of a run on all tasks"
    losses = {}
    for seed in (project.config.train.seed, *run_seeds(project.config, 1)):
        train_adapter(
            tuned, examples, project.config.train, folder=ready / "run", reporter=Reporter(), stage="s", seed=seed
        )
        held_out = validation_examples(corpus.target_tasks[0], project.store)
        losses[seed] = measure_losses(tuned, held_out, batch_tokens=512).mean()
    assert losses.pop(project.config.train.seed) == pytest.approx(known, abs=1e-6)
    (other,) = losses.values()
    assert other != pytest.approx(known, abs=1e-6)
    selections = _selections(ready)
    todo = runs_to_make(selections, subsets=2, seeds=3)
    assert {seed for _, seed in todo} == set(run_seeds(project.config, 3))
    assert project.config.train.seed not in run_seeds(project.config, 50)


def test_verify_each_call_adds_new_runs_only(ready: Path) -> None:
    project = _open(ready)
    assert project.verify(runs=2, seeds=1).subsets == 2
    first = _measured(ready)
    # The same project in a process that continues, and as another process finds it.
    assert project.verify(runs=1, seeds=2).subsets == 3
    second = _measured(ready)
    assert first.items() < second.items()
    assert len(second) == 2 + 2
    events: list[Event] = []
    again = _open(ready, events).verify()
    assert _measured(ready) == second
    assert not [e for e in events if isinstance(e, StageStarted) and e.stage == "verify"]
    assert again.subsets == 3
    assert not again.calibrated


def test_verify_all_subsets_measured_adds_no_run(ready: Path) -> None:
    for there, added in ((14, 2), (16, 0)):
        _pretend(ready, _noisy, _subsets(there))
        todo = runs_to_make(_selections(ready), subsets=100, seeds=1)
        assert len({subset for subset, _ in todo}) == len(todo) == added
        assert not {subset for subset, _ in todo} & set(_subsets(there))
    assert _open(ready).verify(runs=5).subsets == 16


def test_verify_interrupted_call_is_resumed_before_new_runs(ready: Path) -> None:
    project = _open(ready)
    corpus, selections = project.corpus(("target",)), _selections(ready)

    def todo(subsets: int | None, seeds: int = 2) -> list[tuple[frozenset[str], int]]:
        found = _selections(ready)
        return runs_to_make(found, subsets=subsets, seeds=seeds)

    planned = todo(4)
    assert [subset for subset, _ in planned[:4]] == plan(selections, count=4, seed=0)
    assert [subset for subset, _ in planned[4:]] == [subset for subset, _ in planned[:4]]
    assert len({seed for _, seed in planned}) == 2
    # No run is done yet: the plan stays, whatever the arguments.
    assert todo(None) == todo(9, 5) == planned
    key = recipe_key(project.config, corpus)
    for number, (subset, seed) in enumerate(planned[:5]):
        content = subset_content(corpus, subset)
        project.store.put_measurement(key, "target", content, seed=seed, loss=1.0, seconds=1.0)
        assert todo(None) == todo(3) == planned[number + 1 :]
    for subset, seed in planned[5:]:
        content = subset_content(corpus, subset)
        project.store.put_measurement(key, "target", content, seed=seed, loss=1.0, seconds=1.0)
    # All runs are done, but not reported yet.
    assert todo(None) == todo(3, 1) == []
    mark_reported(project.workspace, corpus)
    more = todo(3, 1)
    assert len({subset for subset, _ in more}) == len(more) == 3
    assert not {subset for subset, _ in more} & {subset for subset, _ in planned}


def test_verify_changed_task_drops_only_its_measurements(ready: Path) -> None:
    subsets = [subset for subset in _subsets(9) if 0 < len(subset) < len(TASKS)]
    _pretend(ready, lambda subset: 2.0 + 0.1 * len(subset), subsets)
    project = _open(ready)
    corpus, selections = project.corpus(("target",)), _selections(ready)
    # A finished plan. A later change of a task must not repeat its runs.
    todo = runs_to_make(selections, subsets=3, seeds=1)
    for subset, seed in todo:
        content = subset_content(corpus, subset)
        project.store.put_measurement(
            recipe_key(project.config, corpus), "target", content, seed=seed, loss=2.0, seconds=1.0
        )
    before = {m.subset for m in _estimates(ready).measured}
    assert before == set(subsets) | {subset for subset, _ in todo}
    old = (ready / "tasks" / "alpha.jsonl").read_text()
    write_rows(ready / "tasks" / "alpha.jsonl", pair_rows("other", 8))
    changed = _selections(ready)
    assert {m.subset for m in changed.estimates.measured} == {subset for subset in before if "alpha" not in subset}
    assert runs_to_make(changed, subsets=None, seeds=1) == []
    assert len(runs_to_make(changed, subsets=2, seeds=1)) == 2
    (ready / "tasks" / "alpha.jsonl").write_text(old)
    assert {m.subset for m in _estimates(ready).measured} == before


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("learning_rate = 0.01", "learning_rate = 0.02", False),
        ("batch_size = 4", "batch_size = 8", False),
        ("r = 2", "r = 3", False),
        ("validation = 0.3", "validation = 0.4", False),
        ("subsets = 50", "subsets = 50\nseed = 7", True),
        ("epochs = 1", "epochs = 1\nseed = 7", True),
        ("projection_dim = 16", "projection_dim = 8", True),
    ],
)
def test_verify_runs_count_for_their_recipe_and_target_only(ready: Path, old: str, new: str, counts: bool) -> None:
    _pretend(ready, lambda subset: 2.0, _subsets(2))

    def there() -> int:
        project = _open(ready)
        return len(project.store.measurements(recipe_key(project.config, project.corpus(("target",)))))

    assert there() == 4
    _edit(ready, old, new)
    assert there() == (4 if counts else 0)
    _edit(ready, new, old)
    assert there() == 4


def test_verify_added_task_keeps_measurements(ready: Path) -> None:
    _pretend(ready, lambda subset: 2.0 + 0.1 * len(subset), _subsets(6))
    write_rows(ready / "tasks" / "epsilon.jsonl", pair_rows("epsilon", 5))
    estimates = _estimates(ready)
    assert {m.subset for m in estimates.measured} == set(_subsets(6))
    assert estimates.calibrated_on == 6
    # All tasks together are more than before, and not measured yet.
    assert frozenset((*TASKS, "epsilon")) in plan(_selections(ready), count=3, seed=0)


def test_verify_two_targets_are_measured_together(ready: Path) -> None:
    project = _open(ready)
    report = project.verify(target=["target", "alpha"], runs=1, seeds=1)
    assert report.to_json()["target"] == ["target", "alpha"]
    (run,) = report.runs
    # The loaded model still holds that run.
    corpus = project.corpus(("target", "alpha"))
    losses = [
        measure_losses(project._pipeline.load(), validation_examples(task, project.store), batch_tokens=512).mean()
        for task in corpus.target_tasks
    ]
    assert run.measured_loss == pytest.approx(np.mean(losses), abs=2e-6)
    # The runs do not count for either target alone.
    assert _measured(ready) == {}
    assert len(_measured(ready, "target", "alpha")) == 1


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"runs": -1}, {"seeds": 0}])
def test_verify_fewer_than_one_run_raises_error(ready: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        _open(ready).verify(**wrong)  # type: ignore[arg-type]


# -- report ---------------------------------------------------------------------------------------------------------


def _noisy(subset: frozenset[str]) -> float:
    """Return losses that do not depend on the subset."""
    return 5.0 + 0.5 * float(np.random.default_rng(sum(map(ord, "".join(sorted(subset))))).standard_normal())


def test_report_estimates_each_subset_from_the_others(ready: Path) -> None:
    _pretend(ready, _noisy, _subsets(12))
    report = _open(ready).verify()
    assert report.calibrated
    evidence = _estimates(ready).evidence
    assert evidence is not None
    points = report.points()
    for number, point in enumerate(points):
        assert point.subset == tuple(
            t for t, inside in zip(sorted(TASKS), evidence.masks[number], strict=True) if inside
        )
        others = evidence.without(number)
        found = calibrate(others)
        row = list(evidence.scales).index(found.scale)
        (loss,) = found.losses(evidence.known, evidence.changes[row, [number]], evidence.masks[[number]])
        assert point.estimated_loss == pytest.approx(loss, abs=2e-6)
        assert found.half_width is not None
        assert point.estimated_loss_low == pytest.approx(max(loss - found.half_width, 0), abs=2e-6)
        assert point.estimated_loss_high == pytest.approx(loss + found.half_width, abs=2e-6)
    truth, estimated = (np.array(v) for v in zip(*[(p.measured_loss, p.estimated_loss) for p in points], strict=True))
    assert report.relative_error == pytest.approx(np.mean(np.abs(estimated / truth - 1)), abs=1e-5)
    assert report.constant_relative_error == pytest.approx(np.mean(np.abs(truth.mean() / truth - 1)), abs=1e-5)
    inside = [p.estimated_loss_low <= p.measured_loss <= p.estimated_loss_high for p in points]  # type: ignore[operator]
    assert report.interval_coverage == pytest.approx(np.mean(inside))
    assert report.seconds_fine_tuning == pytest.approx(24 * 2.0)
    assert report.seed_noise == 0.0
    assert report.seconds_estimating is not None
    assert report.speedup_100 == pytest.approx(100 * 2.0 / report.seconds_estimating)
    # The project draws 50 subsets of four tasks, so at most 16 of them differ.
    assert report.subsets_estimated <= 16
    assert report.speedup == pytest.approx(report.subsets_estimated * 2.0 / report.seconds_estimating)


@pytest.mark.parametrize("count", [6, 9])
def test_report_few_subsets_own_error_does_not_widen_the_interval(ready: Path, count: int) -> None:
    _pretend(ready, _noisy, _subsets(count))
    report, raw = _open(ready).verify(), _estimates(ready).uncalibrated
    masks = _estimates(ready).evidence.masks  # type: ignore[union-attr]
    widths = [one.high - one.value for one in raw.estimate(masks)]
    for point, width in zip(report.points(), widths, strict=True):
        assert point.estimated_loss_high - point.estimated_loss == pytest.approx(width, abs=3e-6)
    # Losses that do not depend on the subset spread more than these intervals.
    assert report.interval_coverage is not None
    assert report.interval_coverage < 1


def test_preview_within_limits_has_the_interval_of_select(ready: Path) -> None:
    _pretend(ready, _noisy, _subsets(12))
    project = _open(ready)
    seen, made = project.preview(k=1), project.select(k=1)
    assert (seen.selected, seen.estimate) == (made.selected, made.estimate)


@pytest.mark.parametrize("count", [0, 5, 8, 12])
def test_estimate_has_interval_and_reports_calibration(ready: Path, count: int) -> None:
    raw = _estimates(ready).estimator
    _pretend(ready, _noisy, _subsets(count))
    project = _open(ready)
    estimates = project.estimates(("target",))
    mask = estimates.mask(["alpha", "gamma"])
    (estimate,) = estimates.estimator.estimate(mask[None])
    assert estimate.low < estimate.value < estimate.high
    assert project.estimate_all([["alpha"]]).to_json()["calibrated"] == (count >= 5)
    result = project.select()
    manifest = json.loads((ready / "curator-manifest.json").read_text())
    assert result.to_json()["calibrated"] == manifest["estimate"]["calibrated"] == (count >= 5)
    assert manifest["estimate"]["measured_subsets"] == count
    assert ("conformal" in manifest["estimate"]["interval"]) == (count >= 9)
    (uncalibrated,) = raw.estimate(mask[None])
    if count < 5:
        assert estimate == uncalibrated
    else:
        assert estimates.calibration is not None
        assert estimate.value != pytest.approx(uncalibrated.value, abs=1e-3)
    if count >= 9:
        residuals = cross_validated(estimates.evidence)[0] - estimates.evidence.losses  # type: ignore[arg-type, union-attr]
        assert estimate.high - estimate.value == pytest.approx(conformal(residuals))


def test_calibration_is_cached_in_store(ready: Path) -> None:
    _pretend(ready, _noisy, _subsets(9))
    first, again = _estimates(ready), _estimates(ready)
    assert isinstance(first.calibration, Calibration)
    assert _open(ready).store.artifact("calibration", first.key) is not None
    masks = np.stack([first.mask(subset) for subset in _subsets(16)])
    np.testing.assert_array_equal(first.estimator.validation_losses(masks), again.estimator.validation_losses(masks))
    # Another run changes the calibration.
    _pretend(ready, _noisy, _subsets(10))
    assert _estimates(ready).key != first.key
    assert _estimates(ready).calibrated_on == 10


def test_select_difference_within_noise_is_indistinguishable(ready: Path) -> None:
    noisy, clear = ready, Path(shutil.copytree(ready, ready.parent / "clear"))
    _pretend(noisy, _noisy, _subsets(12))
    _pretend(clear, lambda subset: 5.0 - 0.5 * ("alpha" in subset) + 0.5 * ("beta" in subset), _subsets(16))
    one, other = ["alpha", "gamma"], ["beta"]
    found = {}
    for folder in (noisy, clear):
        best, worst = _open(folder).estimate_all([one, other]).estimates
        found[folder] = best.as_good_as_best and worst.as_good_as_best
    assert found == {noisy: True, clear: False}
    result = _open(clear).select(include=["alpha"], exclude=["beta"])
    assert "all_tasks" not in result.indistinguishable
    result = _open(noisy).select(include=["alpha"], exclude=["beta"])
    assert "all_tasks" in result.indistinguishable


def test_verify_vanishing_losses_give_finite_report(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A target that the model has learned: its loss is 0 to six digits.
    _pretend(ready, lambda subset: 0.0 if len(subset) > 1 else 1e-8, _subsets(10))
    report = _open(ready).verify()
    assert "NaN" not in json.dumps(report.to_json())
    assert "Infinity" not in json.dumps(report.to_json())
    show_verify(report)
    assert "target" in capsys.readouterr().out


def test_rank_correlation_constant_input_gives_none() -> None:
    same, other = np.ones(3), np.arange(3.0)
    assert rank_correlation(same, other) is None
    assert rank_correlation(other, same) is None
    assert rank_correlation(other[:1], other[:1]) is None
    assert rank_correlation(other, other**3) == pytest.approx(1.0)


# -- the command line -------------------------------------------------------------------------------------------------


def _run(folder: Path, *arguments: str, code: int = 0) -> Outcome:
    return run_cli(*arguments, "-p", folder).check(code)


def test_verify_command_prints_report_and_json(ready: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_estimates(_open(ready).estimate_all([["alpha"]]))
    assert "uncalibrated" in capsys.readouterr().out
    assert "uncalibrated" in _run(ready, "select").out
    wrong = _run(ready, "verify", "--plot", str(tmp_path / "x.docx"), code=2)
    assert "x.docx" in wrong.err
    assert _measured(ready) == {}
    picture = tmp_path / "x.svg"
    done = _run(ready, "verify", "--runs", "2", "--seeds", "1", "--json", "--plot", str(picture))
    report = json.loads(done.out)
    assert picture.read_bytes().startswith(b"<?xml")
    assert report.keys() >= {
        "schema_version", "target", "runs", "relative_error", "constant_relative_error", "spearman",
        "interval_coverage", "seconds_estimating", "seconds_fine_tuning", "speedup",
    }  # fmt: skip
    assert report["schema_version"] == 1
    assert report["target"] == "target"
    assert report["calibrated"] is False
    assert len(report["runs"]) == 2
    for run in report["runs"]:
        assert run.keys() >= {"subset", "seed", "estimated_loss", "measured_loss"}
        assert _measured(ready)["+".join(run["subset"]), run["seed"]] == pytest.approx(run["measured_loss"], abs=1e-6)
    _pretend(ready, _noisy, _subsets(7))
    assert "intervals of uncalibrated estimates: too few measured subsets" in _run(ready, "verify", "--quiet").out
    _pretend(ready, _noisy, _subsets(11))
    done = _run(ready, "verify", "--quiet")
    assert done.err == ""
    assert "each subset calibrated by the others" in done.out
    assert "uncalibrated" not in done.out
    show_estimates(_open(ready).estimate_all([["alpha"]]))
    calibrated = capsys.readouterr().out
    assert f"calibrated by {len(_estimates(ready).measured)} " in calibrated
    assert "uncalibrated" not in calibrated


def _killed_in(folder: Path) -> None:
    """Start `curator verify`, and kill it within its second run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "curator", "verify", "--runs", "3", "--seeds", "1", "-p", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment_with(folder.parent / "at once", CHECKPOINTS_AT_ONCE),
    )
    place, checkpoints = folder / ".curator" / "adapters" / "verify", "*/checkpoints/*/complete"
    deadline, first = time.monotonic() + 240, None
    while process.poll() is None and time.monotonic() < deadline:
        here = {path.parts[-4] for path in place.glob(checkpoints)}
        first = first or next(iter(here), None)
        if here - {first}:
            process.kill()
            break
        time.sleep(0.002)
    assert process.wait(timeout=60) == -signal.SIGKILL


def test_verify_killed_within_run_resumes_to_same_loss(ready: Path) -> None:
    whole = Path(shutil.copytree(ready, ready.parent / "whole"))
    _open(whole).verify(runs=3, seeds=1)
    _killed_in(ready)
    assert len(_left_over(ready)) == 1
    after = _measured(ready)
    assert 0 < len(after) < 3
    assert list(_left_over(ready)[0].glob("checkpoints/*/complete")), "no checkpoint to resume from"
    done = _run(ready, "verify", "--json")
    assert _measured(ready) == _measured(whole)
    assert after.items() < _measured(ready).items()
    assert len(json.loads(done.out)["runs"]) == 3
    assert _left_over(ready) == []
    # The interrupted run has the time of a whole run.
    assert all(run.seconds > 0 for m in _estimates(ready).measured for run in m.runs)


@pytest.mark.parametrize("when", ["before", "after"])
def test_verify_killed_while_storing_run_leaves_no_folder(ready: Path, tmp_path: Path, when: str) -> None:
    environment = environment_with(
        tmp_path / "kill",
        "import os, signal\n"
        "from curator.workspace.store.tables import Store\n"
        "put = Store.put_measurement\n"
        "def killed(self, *given, **named):\n"
        f"    if {when == 'after'}:\n"
        "        put(self, *given, **named)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.put_measurement = killed\n",
    )
    command = [sys.executable, "-m", "curator", "verify", "--runs", "1", "--seeds", "1", "-q", "-p", str(ready)]
    done = subprocess.run(command, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert len(_measured(ready)) == (when == "after")
    # The same call again reports the run and adds no other.
    _open(ready).verify(runs=1, seeds=1)
    assert len(_measured(ready)) == 1
    assert _left_over(ready) == []


def _of_three_runs() -> results.VerifyReport:
    return results.VerifyReport(
        target=("t",), calibrated=False, subsets=2, relative_error=0.1, constant_relative_error=0.1, seed_noise=None,
        spearman=None, interval_coverage=0.5, seconds_estimating=None, seconds_fine_tuning=1.0, subsets_estimated=0,
        speedup=None, speedup_100=None,
        runs=tuple(
            results.VerifiedRun(
                subset=subset, seed=seed, estimate=Interval(1.0, 0.5, 1.5),
                measured_loss=loss,
            )
            for subset, seed, loss in ((("b",), 0, 1.0), ((), 0, 4.0), (("b",), 1, 3.0))
        ),
    )  # fmt: skip


def test_show_verify_uncalibrated_report_claims_no_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    show_verify(_of_three_runs())
    lines = [line for line in capsys.readouterr().out.splitlines() if "inside the 90 % interval" in line]
    assert [line.split("%")[-1].strip() for line in lines] == ["uncalibrated: too few measured subsets"]


def test_verify_report_points_average_runs_of_a_subset() -> None:
    points = _of_three_runs().points()
    assert [(p.subset, p.measured_loss, p.lowest_measured, p.highest_measured) for p in points] == [
        (("b",), 2.0, 1.0, 3.0),
        ((), 4.0, 4.0, 4.0),
    ]


def test_verify_more_seeds_adds_runs_to_measured_subsets(ready: Path) -> None:
    project = _open(ready)
    project.verify(runs=2, seeds=1)
    assert len(project.verify().runs) == 2
    report = project.verify(seeds=3)
    assert len(report.runs) == 6
    assert {(run.subset, run.seed) for run in report.runs} == {
        (point.subset, seed) for point in report.points() for seed in (1, 2, 3)
    }
