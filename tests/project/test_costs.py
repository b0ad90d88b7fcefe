"""Costs before work starts: a dry run equals the run, and changes nothing."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import pair_rows, write_rows
from threadpoolctl import threadpool_info, threadpool_limits

import curator
from curator.cli.main import main
from curator.core.events import Event, Note, Reporter, StageFinished, StageStarted
from curator.project import pipeline, rates
from curator.project.costs import Work
from curator.results import CostReport, StageCost
from curator.training import trainer
from curator.workers.gpu_pool import GpuPool

MakeProject = Callable[..., Path]
TRAJECTORY: dict[str, Any] = {"estimate": {"method": "trajectory"}, "gradients": {"projection_dim": 16}}


class _Passes:
    """Count the batches and tokens that the Trainer trains on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = self.tokens = 0
        train = transformers.Trainer.training_step

        def counted(this: Any, model: Any, inputs: Any, items: Any = None) -> Any:
            self.batches += 1
            self.tokens += int(inputs["attention_mask"].sum())
            return train(this, model, inputs, items)

        monkeypatch.setattr(transformers.Trainer, "training_step", counted)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> _Passes:
    return _Passes(monkeypatch)


def _open(folder: Path, events: list[Event] | None = None) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _totals(events: list[Event]) -> dict[str, int]:
    return {event.stage: event.total - event.done for event in events if isinstance(event, StageStarted)}


def _by_stage(report: CostReport) -> dict[str, StageCost]:
    return {stage.stage: stage for stage in report.stages}


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"train": {"epochs": 3, "batch_size": 5, "gradient_accumulation": 2}},
        TRAJECTORY,
        TRAJECTORY | {"train": {"epochs": 1, "batch_size": 16}},
    ],
    ids=["quadratic", "accumulation", "trajectory", "few-steps"],
)
def test_costs_of_select_equal_the_run(make_project: MakeProject, passes: _Passes, tables: dict[str, Any]) -> None:
    folder, events = make_project(**tables), list[Event]()
    planned = _by_stage(_open(folder).costs("select"))
    assert list(planned) == ["train", "gradients", "estimate", "select"]
    assert not any(stage.cached for stage in planned.values())
    assert passes.batches == 0
    _open(folder, events).select()
    done = _totals(events)
    assert {name: planned[name].steps for name in ("train", "gradients", "estimate")} == {
        name: done[name] for name in ("train", "gradients", "estimate")
    }
    assert planned["train"].tokens == passes.tokens > 0
    again = _open(folder).costs("select")
    assert all(stage.cached for stage in again.stages)
    assert (again.seconds, again.peak_bytes) == (0, 0)
    assert {stage.steps + stage.tokens for stage in again.stages} == {0}


def test_costs_fraction_of_epoch_equals_steps_of_run(make_project: MakeProject) -> None:
    folder, events = make_project(train={"epochs": 1.3, "batch_size": 3}), list[Event]()
    (planned,) = _open(folder).costs("train").stages
    _open(folder, events).train()
    assert planned.steps == _totals(events)["train"]


@pytest.mark.parametrize("tables", [{}, TRAJECTORY], ids=["quadratic", "trajectory"])
def test_costs_of_added_task_equal_the_run(make_project: MakeProject, tables: dict[str, Any]) -> None:
    folder, events = make_project(**tables), list[Event]()
    _open(folder).select()
    write_rows(folder / "tasks" / "delta.jsonl", pair_rows("delta", 7))
    planned = _by_stage(_open(folder).costs("gradients"))
    assert planned["train"].cached
    report = _open(folder, events).gradients()
    assert planned["gradients"].steps == _totals(events)["gradients"] == report.computed > 0
    assert planned["gradients"].tokens > 0


def test_costs_of_fresh_gradients_equal_the_run(make_project: MakeProject) -> None:
    folder, events = make_project(**TRAJECTORY), list[Event]()
    _open(folder).gradients()
    planned = _by_stage(_open(folder).costs("gradients", fresh=True))
    _open(folder, events).gradients(fresh=True)
    assert planned["gradients"].steps == _totals(events)["gradients"]


def test_costs_of_interrupted_training_are_the_rest(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_CHECKPOINT_SECONDS", 0.0)
    folder, events = make_project(), list[Event]()
    (whole,) = _open(folder).costs("train").stages

    def interrupt(event: Event) -> None:
        if getattr(event, "stage", "") == "train" and getattr(event, "done", 0) >= whole.steps // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curator.Project.open(folder, reporter=Reporter(interrupt)).train()
    (rest,) = _open(folder).costs("train").stages
    assert 0 < rest.steps < whole.steps
    assert 0 < rest.tokens < whole.tokens
    _open(folder, events).train()
    assert rest.steps == _totals(events)["train"]


def test_costs_of_verify_after_selection_equal_the_run(make_project: MakeProject, passes: _Passes) -> None:
    folder, events = make_project(), list[Event]()
    expected = _by_stage(_open(folder).costs("verify", runs=3, seeds=1))
    assert not expected["verify"].exact
    _open(folder).select()
    planned = _by_stage(_open(folder).costs("verify", runs=3, seeds=1))
    assert _open(folder).store.artifacts("verify") == []
    assert [(name, stage.cached) for name, stage in planned.items()] == [
        ("train", True),
        ("gradients", True),
        ("verify", False),
    ]
    passes.batches = passes.tokens = 0
    _open(folder, events).verify(runs=3, seeds=1)
    assert planned["verify"].exact
    assert planned["verify"].tokens == passes.tokens == _totals(events)["verify"]
    assert planned["verify"].steps == passes.batches
    # Sizes of unknown subsets are expected to spread evenly.
    assert expected["verify"].steps == pytest.approx(planned["verify"].steps, rel=0.5)


def test_costs_of_apply_equal_the_run(make_project: MakeProject, passes: _Passes) -> None:
    folder, events = make_project(), list[Event]()
    _open(folder).select(include=["alpha"])
    (planned,) = _open(folder).costs("apply").stages
    passes.batches = passes.tokens = 0
    _open(folder, events).apply()
    assert (planned.stage, planned.steps, planned.tokens) == ("apply", passes.batches, passes.tokens)
    assert planned.steps == _totals(events)["apply"]
    assert [stage.cached for stage in _open(folder).costs("apply").stages] == [True]


@pytest.mark.parametrize("verb", ["train", "gradients", "select", "curve", "verify"])
def test_costs_change_nothing_but_read_data(make_project: MakeProject, verb: str) -> None:
    folder = make_project(**TRAJECTORY)
    _open(folder).costs(verb)
    project = _open(folder)
    for stage in ("train", "gradients", "estimate", "select", "verify", "rate"):
        assert project.store.artifacts(stage) == []
    assert not (folder / ".curator" / "adapters").exists()
    assert not (folder / "curator-manifest.json").exists()


def test_costs_check_arguments_as_the_verb(make_project: MakeProject) -> None:
    with pytest.raises(curator.ConfigError, match="unknown task: 'nope'"):
        _open(make_project()).costs("estimate", ["nope"])
    with pytest.raises(curator.ConfigError, match="no costs of 'export'"):
        _open(make_project("other")).costs("export")


def _cli(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["curator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (["train"], ["train"]),
        (["gradients"], ["train", "gradients"]),
        (["estimate", "alpha"], ["train", "gradients"]),
        (["select"], ["train", "gradients", "estimate", "select"]),
        (["curve"], ["train", "gradients", "estimate", "select", "curve"]),
        (["verify"], ["train", "gradients", "estimate", "select", "verify"]),
    ],
)
def test_dry_run_option_prints_one_document(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str], arguments: list[str], stages: list[str]
) -> None:
    folder = make_project()
    _cli(*arguments, "-p", str(folder), "--dry-run", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert [stage["stage"] for stage in document["stages"]] == stages
    for stage in document["stages"]:
        assert {"stage", "steps", "tokens", "seconds", "peak_bytes", "cached"} <= stage.keys()
        assert stage["cached"] is False
        # The default plan of `verify` has 24 runs, and four of them get a second seed.
        assert stage["workers"] == (28 if stage["stage"] == "verify" else 1)
        assert stage["peak_bytes"] > 10**8
    assert document["seconds"] == pytest.approx(sum(stage["seconds"] for stage in document["stages"]))
    # A dry run is no job.
    assert not (folder / ".curator" / "runs").exists()


def test_dry_run_of_apply_prints_table(make_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_project()
    _open(folder).select()
    _cli("apply", "-p", str(folder), "--dry-run")
    shown = capsys.readouterr().out
    assert "apply" in shown
    assert "to do" in shown
    assert "dry run: nothing is trained" in shown
    assert not (folder / ".curator" / "adapters" / "applied").exists()


def test_long_work_is_announced_before_it_starts(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_LONG", 0.0)
    folder, events = make_project(), list[Event]()
    planned = _by_stage(_open(folder).costs("train"))["train"]
    _open(folder, events).train()
    first = next(n for n, e in enumerate(events) if isinstance(e, StageStarted) and e.stage == "train")
    notes = [event.message for event in events[:first] if isinstance(event, Note)]
    assert any(note.startswith(f"train: {planned.steps:,} steps, {planned.tokens:,} tokens, about ") for note in notes)
    assert any(note.endswith(f"in all on this machine. Results: {folder / '.curator'}") for note in notes)


def test_short_work_is_not_announced(make_project: MakeProject) -> None:
    events: list[Event] = []
    _open(make_project(), events).train()
    assert not any("on this machine" in event.message for event in events if isinstance(event, Note))


def test_rate_of_finished_stage_predicts_the_next(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SHORTEST", 0.0)
    folder, events = make_project(), list[Event]()
    _open(folder, events).train()
    seconds = next(e.seconds for e in events if isinstance(e, StageFinished) and e.stage == "train")
    (planned,) = _open(folder).costs("train", fresh=True).stages
    assert planned.seconds == pytest.approx(seconds, abs=1e-3)
    # Twice the epochs take twice the time. Another model has no known rate.
    text = (folder / "curator.toml").read_text()
    (folder / "curator.toml").write_text(text.replace("epochs = 2", "epochs = 4"))
    (longer,) = _open(folder).costs("train").stages
    assert longer.seconds == pytest.approx(2 * seconds, abs=2e-3)
    (folder / "curator.toml").write_text(text.replace("r = 2", "r = 4"))
    (other,) = _open(folder).costs("train").stages
    assert other.seconds != pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize(
    ("pool", "ray", "kinds"),
    [
        (None, "", {"train", "fine-tune", "gradients"}),
        (GpuPool(["0", "1"]), "", {"train", "gradients"}),
        (GpuPool(["0", "1"]), "local", {"train"}),
    ],
    ids=["process", "gpus", "ray"],
)
def test_rate_of_shared_work_is_not_kept(
    make_project: MakeProject, pool: GpuPool | None, ray: str, kinds: set[str]
) -> None:
    project = _open(make_project())
    pipeline = project._pipeline
    pipeline._pool, pipeline.ray = pool, ray
    works = [Work(stage=kind, kind=kind, steps=1, tokens=8, size=8) for kind in ("train", "fine-tune", "gradients")]
    pipeline.begin(project.corpus(("target",)), works)
    for work in works:
        pipeline.workspace.reporter.emit(StageStarted(stage=work.stage, total=1, unit="steps"))
        pipeline.workspace.reporter.emit(StageFinished(stage=work.stage, seconds=2.0, summary=""))
    assert {kept.inputs["kind"] for kept in project.store.artifacts("rate")} == kinds


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch use two threads, as on a machine whose user decides nothing."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    with threadpool_limits(limits=2, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("seconds", "chosen"), [({2: 0.5, 1: 0.1}, 1), ({2: 0.1, 1: 0.2}, 2)])
@pytest.mark.usefixtures("two_threads")
def test_train_chooses_threads_by_trial_and_says_so(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int
) -> None:
    steps: list[int] = []

    def tried(step: Callable[[], None], counts: list[int], use: Callable[[int], None]) -> dict[int, float]:
        for count in counts:
            use(count)
            step()
            steps.append(torch.get_num_threads())
        return seconds

    monkeypatch.setattr("curator.project.probe.try_threads", tried)
    events: list[Event] = []
    _open(make_project(**TRAJECTORY), events).train()
    assert steps == [2, 1]
    assert torch.get_num_threads() == chosen
    assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {chosen}
    lines = [e.message for e in events if isinstance(e, Note) and e.message.startswith("threads: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"threads: {chosen} of 2 (a training step takes ")


@pytest.mark.usefixtures("two_threads")
def test_train_real_trial_changes_no_result(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another number of threads adds numbers in another order.
    monkeypatch.setattr("curator.project.probe.best_count", lambda _: 1)
    events: list[Event] = []
    with_trial = _open(make_project("one", **TRAJECTORY), events).train()
    assert any(isinstance(e, Note) and e.message.startswith("threads: 1 of 2 ") for e in events)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    without = _open(make_project("two", **TRAJECTORY)).train()
    assert [point["sha256"] for point in with_trial.points] == [point["sha256"] for point in without.points]


@pytest.mark.usefixtures("two_threads")
def test_train_user_sets_threads_makes_no_trial(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    events: list[Event] = []
    _open(make_project(), events).train()
    assert torch.get_num_threads() == 2
    assert not any(isinstance(e, Note) and e.message.startswith("threads: ") for e in events)


def test_costs_damaged_model_fails_as_the_verb(make_project: MakeProject) -> None:
    folder = make_project()
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"vocab_size": 10}))
    with pytest.raises(curator.DataError) as costs:
        _open(folder).costs("train")
    with pytest.raises(curator.DataError) as verb:
        _open(folder).train()
    assert str(costs.value) == str(verb.value)
