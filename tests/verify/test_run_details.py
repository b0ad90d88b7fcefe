"""What each verified run keeps, the estimates from before the runs, forgetting, and comparisons by name."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import pair_rows, write_rows
from hostile import run_cli
from scipy.stats import t as student

import curator
from curator.core.config import VerifySection
from curator.core.errors import ConfigError
from curator.core.events import Event, Note, Reporter
from curator.data.corpus import training_examples, validation_examples
from curator.select.methods import Request
from curator.training.fine_tune import recipe_key, subset_content
from curator.training.trainer import measure_losses, train_adapter
from curator.verify.measure import runs_to_make
from curator.verify.paired import paired_difference

MakeProject = Callable[..., Path]
TASKS = ("alpha", "beta", "gamma")
_made: dict[str, Path] = {}


def _open(folder: Path, events: list[Event] | None = None) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project of three tasks, ready to verify."""
    if not _made:
        tasks = {"target": pair_rows("target", 12)} | {name: pair_rows(name, 8) for name in TASKS}
        folder = make_project("made", tasks=tasks, project={"name": "p"}, train={"learning_rate": 1e-2, "epochs": 1})
        _open(folder).select()
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _pretend(folder: Path, losses: dict[tuple[tuple[str, ...], int], float]) -> None:
    """Store measured losses by subset and seed."""
    project = _open(folder)
    corpus = project.corpus(("target",))
    for (subset, seed), loss in losses.items():
        project.store.put_measurement(
            recipe_key(project.config, corpus), "target", subset_content(corpus, subset), seed=seed, loss=loss,
            seconds=2.0,
        )  # fmt: skip


def test_verify_run_keeps_early_losses_cost_estimate_and_forgetting(
    ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = _open(ready)
    corpus = project.corpus(("target",))
    before = {e.subset: e.estimate for e in project.estimate_all([[], list(TASKS)]).estimates}
    project.selections(("target",)).save([], name="none", request=Request(method="forward"))
    report = project.verify(runs=2, seeds=1, forgetting=True)
    assert {run.subset for run in report.runs} == {(), TASKS}
    tuned, held_out = project._pipeline.load(), validation_examples(corpus.target_tasks[0], project.store)
    for run in report.runs:
        assert run.estimated_before == pytest.approx(before[run.subset].value, abs=2e-6)
        assert run.estimated_before_low == pytest.approx(before[run.subset].low, abs=2e-6)
        assert run.calibrated_on_before == 0
        assert run.machine.startswith(("Linux", "Darwin"))
        assert run.peak_bytes is not None
        assert run.peak_bytes > 50_000_000
        # Direct computation, on the same examples in the same order.
        chosen = [task for task in corpus.tasks if task.name in run.subset] + corpus.target_tasks
        examples = [example for task in chosen for example in training_examples(task, project.store)]
        assert run.tokens == sum(len(example.input_ids) for example in examples)
        found = train_adapter(
            tuned, examples, project.config.train, folder=ready / f"by hand {len(run.subset)}", shares=(0.25, 0.5),
            reporter=Reporter(), stage="s", seed=run.seed,
        )  # fmt: skip
        after = measure_losses(tuned, held_out, batch_tokens=512).mean()
        assert run.measured_loss == pytest.approx(after, abs=2e-6)
        for wanted, point in ((run.loss_quarter, found[0]), (run.loss_half, found[-1])):
            tuned.load_adapter(ready / f"by hand {len(run.subset)}" / point.folder)
            assert wanted == pytest.approx(measure_losses(tuned, held_out, batch_tokens=512).mean(), abs=2e-6)
    assert report.forgetting is not None
    assert Counter(one.task for one in report.forgetting) == dict.fromkeys((*TASKS, "target"), 2)
    tuned.reset(0)
    for one in report.forgetting:
        task = next(task for task in corpus.tasks if task.name == one.task)
        rows = held_out if one.task == "target" else training_examples(task, project.store)
        assert one.before == pytest.approx(measure_losses(tuned, rows, batch_tokens=512).mean(), abs=2e-6)
        assert one.trained == (one.task == "target" or one.task in one.subset)
        assert one.held_out == (one.task == "target" or one.task not in one.subset)
        if one.task == "target":
            run = next(run for run in report.runs if run.subset == one.subset)
            assert one.after == pytest.approx(run.measured_loss, abs=2e-6)
    # The report of stored runs prints the estimates first, and runs nothing.
    done = run_cli("verify", "--report", "-p", ready).check(0)
    heads = next(line for line in done.out.splitlines() if "estimated before" in line)
    assert heads.index("estimated before") < heads.index("measured")
    for run in report.runs:
        assert f"{run.estimated_before:.4f}" in done.out
        assert f"{run.measured_loss:.4f}" in done.out
    assert "positive is forgotten" in done.out
    again = json.loads(run_cli("verify", "--report", "--json", "-p", ready).check(0).out)
    assert {run["estimated_before"] for run in again["runs"]} == {run.estimated_before for run in report.runs}
    errors = [abs(run.estimated_before / run.measured_loss - 1) for run in report.runs]  # type: ignore[operator]
    assert again["predictions"]["relative_error"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert again["predictions"]["runs"] == 2
    columns = project.sql("SELECT loss_quarter, tokens, peak_bytes, machine, estimated_before FROM runs").to_pandas()
    assert sorted(columns["tokens"]) == sorted(run.tokens for run in report.runs)  # type: ignore[type-var]
    assert columns["estimated_before"].notna().all()


def test_verify_report_without_runs_raises_error_and_runs_nothing(ready: Path) -> None:
    with pytest.raises(ConfigError, match="no measured subset"):
        _open(ready).verify(report=True)
    assert _open(ready).estimates(("target",)).measured == []


@pytest.mark.parametrize(
    ("subsets", "there", "wanted"), [(24, 0, 4), (100, 0, 4), (12, 0, 2), (5, 0, 0), (24, 3, 1), (24, 9, 0)]
)
def test_verify_section_second_runs_are_a_sixth_up_to_four(subsets: int, there: int, wanted: int) -> None:
    assert VerifySection().second_runs(subsets, there) == wanted
    assert VerifySection(seeds=2).second_runs(subsets, there) == 0


def test_verify_plan_default_measures_once_and_pairs_the_first_subsets(ready: Path) -> None:
    # Three tasks have eight subsets, fewer than 24.
    todo = runs_to_make(_open(ready).selections(("target",)), subsets=None, seeds=None)
    assert len(todo) == 8 + 1
    assert Counter(seed for _, seed in todo) == {1: 8, 2: 1}
    assert todo[0][0] == todo[-1][0]
    (ready / "curator.toml").write_text((ready / "curator.toml").read_text() + "\n[verify]\nruns = 3\nseeds = 2\n")
    shutil.rmtree(ready / ".curator")
    _open(ready).select()
    todo = runs_to_make(_open(ready).selections(("target",)), subsets=None, seeds=None)
    assert Counter(seed for _, seed in todo) == {1: 3, 2: 3}


def test_verify_added_and_changed_tasks_are_reported_with_kept_runs(ready: Path) -> None:
    project = _open(ready)
    runs_to_make(project.selections(("target",)), subsets=1, seeds=1)
    _pretend(ready, {((), 1): 2.0, (("alpha",), 1): 1.9, (("beta",), 1): 1.8, (TASKS, 1): 1.7})
    write_rows(ready / "tasks" / "epsilon.jsonl", pair_rows("epsilon", 5))
    events: list[Event] = []
    assert _open(ready, events).verify(selections=["all", "none"], seeds=1).subsets == 5
    notes = " ".join(event.message for event in events if isinstance(event, Note))
    assert "all 4 measured runs are kept, because none of them uses the new tasks: epsilon" in notes
    write_rows(ready / "tasks" / "alpha.jsonl", pair_rows("other", 8))
    events.clear()
    _open(ready, events).verify(selections=["none", "all"], seeds=1)
    notes = " ".join(event.message for event in events if isinstance(event, Note))
    assert "2 of 5 measured runs are kept; 3 used tasks that changed or are gone, or dropped rows" in notes


# -- selections by name ----------------------------------------------------------------------------------------------


def test_paired_difference_is_students_interval_over_common_seeds() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1.0, 5), rng.normal(0, 0.1, 5)
    first = {seed: 2.0 + shared[seed] + own[seed] for seed in range(5)} | {9: 50.0}
    second = {seed: 1.5 + shared[seed] for seed in range(5)}
    count, found = paired_difference(first, second)
    gaps = 0.5 + own
    half = student.ppf(0.95, 4) * gaps.std(ddof=1) / np.sqrt(5)
    assert count == 5
    assert (found.value, found.low, found.high) == pytest.approx((gaps.mean(), gaps.mean() - half, gaps.mean() + half))
    assert paired_difference({1: 3.0}, {1: 1.0, 2: 4.0}) == (1, curator.results.Interval(2.0, -np.inf, np.inf))
    assert paired_difference({1: 3.0}, {2: 1.0}) == (0, curator.results.Interval(2.0, -np.inf, np.inf))


def test_verify_selections_measures_all_with_the_same_seeds(ready: Path) -> None:
    project = _open(ready)
    project.selections(("target",)).save(["alpha"], name="mine", request=Request(method="forward"))
    _pretend(ready, {(("alpha",), 1): 1.5, (("alpha",), 2): 1.7, ((), 1): 2.0, ((), 2): 2.3, (TASKS, 1): 1.0})
    done = run_cli("verify", "--selections", "mine,all,none", "--seeds", "2", "--json", "-p", ready).check(0)
    report = json.loads(done.out)
    assert [one["name"] for one in report["selections"]] == ["mine", "all", "none"]
    assert [one["seeds"] for one in report["selections"]] == [[1, 2]] * 3
    # Only the missing run of all tasks was made.
    assert len(report["runs"]) == 6
    pair = next(p for p in report["differences"] if (p["first"], p["second"]) == ("mine", "none"))
    assert pair["difference"] == pytest.approx(-0.55)
    half = student.ppf(0.95, 1) * 0.05
    assert (pair["difference_low"], pair["difference_high"]) == pytest.approx((-0.55 - half, -0.55 + half), abs=1e-5)
    table = run_cli("verify", "--selections", "mine,all,none", "--seeds", "2", "-p", ready).check(0)
    assert "mine − none" in table.out
    alone = json.loads(run_cli("verify", "--selections", "mine", "--seeds", "2", "--json", "-p", ready).check(0).out)
    assert [one["seeds"] for one in alone["selections"]] == [[1, 2]]
    assert alone["differences"] == []
    wrong = run_cli("verify", "--selections", "mine,mine", "-p", ready).check(2)
    assert "named twice" in wrong.err
    unknown = run_cli("verify", "--selections", "mine,nope", "-p", ready).check(3)
    assert "nope" in unknown.err
