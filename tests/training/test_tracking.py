"""Experiment trackers: what curator logs, and that a tracker changes no result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import curator
from curator.core.config import TrainSection
from curator.core.errors import ConfigError
from curator.core.events import Event, Reporter, StageStarted

MakeProject = Callable[..., Path]


def _scalars(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return the numbers of each run of TensorBoard, by the run's folder and the tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[str, list[float]]] = {}
    for run in sorted(folder.iterdir()):
        numbers: dict[str, list[float]] = {}
        for file in sorted(run.rglob("events.out.tfevents.*")):
            events = EventAccumulator(str(file))
            events.Reload()
            for tag in events.Tags()["scalars"]:
                numbers.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
        found[run.name] = numbers
    return found


def test_tensorboard_receives_losses_and_estimates_of_every_run(make_project: MakeProject) -> None:
    pytest.importorskip("tensorboard")
    folder = make_project(train={"report_to": "tensorboard"})
    events: list[Event] = []
    project = curator.Project.open(folder, reporter=Reporter(events.append))
    selected = project.select()
    verified = project.verify(runs=2, seeds=1)
    applied = project.apply()
    runs = _scalars(folder / ".curator" / "tensorboard")
    names = sorted(runs)
    assert [name.partition("_")[0] for name in names] == ["apply", "meta-training", "select", "verify", "verify"]
    steps = next(event.total for event in events if isinstance(event, StageStarted) and event.stage == "train")
    assert len(runs["meta-training"]["train/loss"]) == steps
    assert runs["select_forward"]["curator/estimated_loss"] == pytest.approx([selected.estimated_loss], abs=1e-5)
    measured = [runs[name]["curator/measured_loss"][0] for name in names if name.startswith("verify")]
    assert sorted(measured) == pytest.approx(sorted(run.measured_loss for run in verified.runs), abs=1e-5)
    for name in names[-2:]:
        low, value, high = (runs[name][f"curator/estimated_loss{end}"][0] for end in ("_low", "", "_high"))
        assert low <= value <= high
        assert runs[name]["train/loss"]
    assert runs[names[0]]["curator/measured_loss"] == pytest.approx([applied.measured_loss], abs=1e-5)
    # A cached result is no new run.
    assert project.apply().cached
    assert sorted(_scalars(folder / ".curator" / "tensorboard")) == names


def test_tensorboard_equal_names_are_separate_runs(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    folder = make_project(train={"report_to": "tensorboard"})
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "logs"))
    project = curator.Project.open(folder)
    project.train()
    project.train(fresh=True)
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["meta-training", "meta-training-2"]
    assert not (folder / ".curator" / "tensorboard").exists()


def test_mlflow_file_store_receives_runs_with_estimates(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    # mlflow keeps its file store for local use, and asks for this switch.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)
    folder = make_project(train={"report_to": "mlflow"})
    project = curator.Project.open(folder)
    selected = project.select()
    verified = project.verify(runs=2, seeds=1)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("project")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(name.partition(" ")[0] for name in runs) == ["meta-training", "select", "verify", "verify"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert "loss" in runs["meta-training"].data.metrics
    estimated = runs["select forward"].data.metrics["estimated_loss"]
    assert estimated == pytest.approx(selected.estimated_loss, abs=1e-6)
    found = [run.data for name, run in runs.items() if name.startswith("verify")]
    assert sorted(data.metrics["measured_loss"] for data in found) == pytest.approx(
        sorted(run.measured_loss for run in verified.runs), abs=1e-6
    )
    assert all({"curator.subset", "curator.seed"} <= data.params.keys() for data in found)
    assert all("estimated_loss" in data.metrics for data in found)


def test_missing_tracker_fails_before_any_stage(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A folder of logs in the working directory is not the package.
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trackio").mkdir()
    folder = make_project(train={"report_to": "trackio"})
    events: list[Event] = []
    project = curator.Project.open(folder, reporter=Reporter(events.append))
    with pytest.raises(ConfigError, match="needs the package trackio"):
        project.train()
    assert [event.stage for event in events if isinstance(event, StageStarted)] == ["data"]


def _set(folder: Path, tracker: str) -> None:
    path = folder / "curator.toml"
    path.write_text(path.read_text().replace("[train]\n", f'[train]\nreport_to = "{tracker}"\n'))


def test_changed_tracker_keeps_results_and_reaches_export(make_project: MakeProject, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = make_project()
    before = curator.Project.open(folder).select()
    curator.Project.open(folder).export(before.manifest, format="trl", output=tmp_path / "without")
    assert yaml.safe_load((tmp_path / "without" / "sft.yaml").read_text())["report_to"] == "none"
    _set(folder, "tensorboard")
    project = curator.Project.open(folder)
    assert project.train().cached
    after = project.select()
    assert after.cached
    assert json.loads(Path(folder / "curator-manifest.json").read_text())["train"]["report_to"] == "tensorboard"
    project.export(folder / "curator-manifest.json", format="trl", output=tmp_path / "with")
    assert yaml.safe_load((tmp_path / "with" / "sft.yaml").read_text())["report_to"] == "tensorboard"
    # The cached selection is no new run, and the tracker is no change that `apply` refuses.
    assert not (folder / ".curator" / "tensorboard").exists()
    assert not project.apply().cached


def test_decisive_settings_are_all_but_the_tracker() -> None:
    every = TrainSection(report_to="wandb").model_dump(mode="json")
    assert TrainSection(report_to="wandb").decisive() == {n: v for n, v in every.items() if n != "report_to"}


@pytest.mark.parametrize(
    ("format", "file", "keys"),
    [
        ("llamafactory", "train.yaml", {"report_to": "mlflow"}),
        ("swift", "sft.yaml", {"report_to": "mlflow"}),
        ("axolotl", "config.yaml", {"use_mlflow": True}),
        ("oumi", "train.yaml", {"enable_mlflow": True, "enable_tensorboard": False}),
    ],
)
def test_export_carries_tracker_of_manifest(
    make_project: MakeProject, tmp_path: Path, format: str, file: str, keys: dict[str, Any]
) -> None:
    folder = make_project()
    result = curator.Project.open(folder).select()
    path = folder / "curator-manifest.json"
    document = json.loads(path.read_text())
    document["train"]["report_to"] = "mlflow"
    path.write_text(json.dumps(document))
    assert result.selected is not None
    report = curator.Project.open(folder).export(path, format=format, output=tmp_path / "out")
    written = yaml.safe_load((tmp_path / "out" / file).read_text())
    section = written.get("training", written)
    assert {key: section.get(key) for key in keys} == keys
    assert report.format == format
