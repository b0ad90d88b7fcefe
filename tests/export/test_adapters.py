"""Test `curator apply` of several selections: one pool makes the runs, and each adapter equals that of its own call."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject
from typer.testing import CliRunner

from curator.cli.app import app
from curator.core.errors import ConfigError, NumericalError
from curator.core.events import Event, Reporter, StageFinished, StageStarted
from curator.core.files import sha256_of
from curator.project.project import Project
from curator.workers.pool import Ended, Follow, Perform, ThisProcess, Work

WEIGHTS = "adapter_model.safetensors"
_made: dict[str, Path] = {}


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy a project with two selections of different tasks, and a third of the tasks of the first."""
    if not _made:
        folder = make_project("made", train={"learning_rate": 1e-2, "epochs": 1})
        project = Project.open(folder)
        project.select(include=["alpha", "beta"], exclude=["gamma"], name="two")
        project.select(include=["alpha", "beta"], exclude=["gamma"], method="random", name="same")
        project.select(include=["gamma"], exclude=["alpha", "beta"], name="one")
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _open(folder: Path, events: list[Event] | None = None) -> Project:
    return Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


class _LastFirst(ThisProcess):
    """Do parts in this process, the last first, as workers that differ in speed may."""

    started = 0

    def run(self, work: Work, parts: Any, follow: Follow) -> Ended:
        perform: Perform = work.start(self._load)
        for number in reversed(range(len(parts))):
            type(self).started += parts[number] is not None
            yield number, perform(parts[number], lambda event, n=number: follow(n, event))  # type: ignore[misc]


def test_apply_all_gives_the_adapters_of_single_calls_and_one_run_for_equal_tasks(ready: Path, tmp_path: Path) -> None:
    alone = _open(Path(shutil.copytree(ready, tmp_path / "alone")))
    expected = [alone.apply(name) for name in ("two", "one", "same")]
    events: list[Event] = []
    project = _open(ready, events)
    pool = project._pipeline._pool = _LastFirst(project._pipeline.load)
    report = project.apply_all(["two", "one", "same"])
    assert pool.started == 2
    assert [adapter.name for adapter in report.adapters] == ["two", "one", "same"]
    assert [adapter.cached for adapter in report.adapters] == [False, False, True]
    for adapter, other in zip(report.adapters, expected, strict=True):
        assert adapter.measured_loss == other.measured_loss
        assert sha256_of(adapter.adapter / WEIGHTS) == sha256_of(other.adapter / WEIGHTS)
        assert project.manifest(adapter.name)[0].measured_loss == adapter.measured_loss
    # One stage of all steps, and each loss in the order of the selections.
    (begun,) = [event for event in events if isinstance(event, StageStarted) and event.stage == "apply"]
    ended = [event for event in events if isinstance(event, StageFinished) and event.stage == "apply"]
    assert begun.unit == "steps"
    assert begun.total == sum(alone.costs("apply", name, fresh=True).stages[0].steps for name in ("two", "one"))
    assert [event.cached for event in ended] == [False, True]
    assert not list((ready / ".curator" / "adapters" / "apply").iterdir())
    assert all(adapter.cached for adapter in _open(ready).apply_all(["one", "two", "same"]).adapters)


def test_costs_of_apply_all_add_the_runs_and_count_their_workers(ready: Path) -> None:
    project = _open(ready)
    (both,) = project.costs("apply_all", ["two", "one", "same"]).stages
    single = [project.costs("apply", name).stages[0] for name in ("two", "one")]
    assert (both.stage, both.workers) == ("apply", 2)
    assert (both.steps, both.tokens) == (sum(s.steps for s in single), sum(s.tokens for s in single))


def test_apply_all_diverging_run_keeps_the_other_adapter(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curator.workers import fine_tuning

    real = fine_tuning.fine_tune

    def diverging(*given: Any, **named: Any) -> Any:
        if given[2] == {"gamma"}:
            raise NumericalError("the loss is not finite at step 1", hint="Lower train.learning_rate.")
        return real(*given, **named)

    monkeypatch.setattr(fine_tuning, "fine_tune", diverging)
    with pytest.raises(NumericalError, match="not finite at step 1"):
        _open(ready).apply_all(["one", "two"])
    assert (ready / ".curator" / "adapters" / "applied" / "target-two" / WEIGHTS).is_file()
    assert not (ready / ".curator" / "adapters" / "applied" / "target-one").exists()
    assert _open(ready).apply("two").cached


@pytest.mark.parametrize("named", [[], ["two", "two"]], ids=["nothing", "twice"])
def test_apply_all_bad_names_are_refused_before_training(ready: Path, named: list[str]) -> None:
    with pytest.raises(ConfigError, match="no selection is named" if not named else "two selections have the name"):
        _open(ready).apply_all(named)
    assert not (ready / ".curator" / "adapters" / "applied").exists()


def test_apply_command_of_several_selections_prints_one_document_and_all_tables(ready: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapters"
    command = ["apply", "two", "one", "-p", str(ready), "-q", "-o", str(output)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert [adapter["name"] for adapter in document["adapters"]] == ["two", "one"]
    assert [adapter["adapter"] for adapter in document["adapters"]] == [
        str(output / "target-two"),
        str(output / "target-one"),
    ]
    assert all((output / name / WEIGHTS).is_file() for name in ("target-two", "target-one"))
    shown = CliRunner().invoke(app, command).stdout
    assert all(f"{adapter['measured_loss']:.4f}" in shown for adapter in document["adapters"])
