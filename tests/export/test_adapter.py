"""Test `curator apply`: the saved adapter has the measured loss, and a second call finds it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKPOINTS_AT_ONCE, environment_with, pair_rows, write_rows
from typer.testing import CliRunner

from curator.cli.app import app
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.events import Event, Note, Reporter, StageFinished, StageStarted
from curator.core.files import sha256_of, whole_folder
from curator.data.corpus import Corpus, validation_examples
from curator.data.tokens import TokenizedExample
from curator.project.project import Project
from curator.select.manifest import MANIFEST_NAME, check_files, read_manifest
from curator.training.trainer import measure_losses, train_adapter

MakeProject = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"
_made: dict[str, Path] = {}


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy a project with a selection of `alpha` and `beta` out of three tasks."""
    if not _made:
        folder = make_project("made", project={"name": "p"}, train={"learning_rate": 1e-2, "epochs": 1})
        Project.open(folder).select(include=["alpha", "beta"], exclude=["gamma"], name="mine")
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


@pytest.fixture
def applied(ready: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the same project after `apply`."""
    if "applied" not in _made:
        _open(ready).apply()
        _made["applied"] = Path(shutil.copytree(ready, tmp_path_factory.mktemp("applied") / "p"))
    return Path(shutil.copytree(_made["applied"], tmp_path / "applied"))


def _open(folder: Path, events: list[Event] | None = None) -> Project:
    return Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _loss(project: Project, adapter: Path, corpus: Corpus) -> float:
    """Compute an adapter's loss with `transformers` and `peft` alone, by the configured shares."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    named = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(named, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    total = 0.0
    for task in corpus.target_tasks:
        losses = []
        for example in validation_examples(task, project.store):
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            with torch.no_grad():
                losses.append(model(input_ids=ids, labels=labels).loss.item())
        total += project.config.data.share_of(task.name, corpus.targets) * sum(losses) / len(losses)
    return total


def _by_hand(project: Project, examples: Sequence[TokenizedExample], seed: int) -> float:
    corpus, tuned = project.corpus(("target",)), project._pipeline.load()
    train_adapter(
        tuned, examples, project.config.train, folder=project.root / "hand", reporter=Reporter(), stage="s", seed=seed
    )
    held_out = validation_examples(corpus.target_tasks[0], project.store)
    return float(measure_losses(tuned, held_out, batch_tokens=512).mean())


def _trained(events: list[Event]) -> bool:
    return any(isinstance(e, StageStarted) and e.stage == "apply" for e in events)


def test_apply_again_finds_the_adapter_with_the_measured_loss(applied: Path) -> None:
    before, ready, manifest = json.loads((_made["ready"] / MANIFEST_NAME).read_text()), applied, applied / MANIFEST_NAME
    events: list[Event] = []
    written = manifest.stat().st_mtime_ns
    project = _open(ready, events)
    report = project.apply()
    assert report.cached
    assert not _trained(events)
    assert [e.cached for e in events if isinstance(e, StageFinished) and e.stage == "apply"] == [True]
    assert manifest.stat().st_mtime_ns == written
    assert report.adapter == ready / ".curator" / "adapters" / "applied" / "target-mine"
    assert {p.name for p in report.adapter.iterdir()} >= {"adapter_config.json", WEIGHTS, MANIFEST_NAME}
    corpus = project.corpus(("target",))
    assert report.measured_loss == pytest.approx(_loss(project, report.adapter, corpus), abs=2e-5)
    after = json.loads(manifest.read_text())
    assert after == before | {"measured_loss": report.measured_loss}
    assert list(after) == list(before)
    # `verify` would make the same run, so the run counts as a measurement.
    (measured,) = _open(ready).estimates(("target",)).measured
    assert measured.subset == {"alpha", "beta"}
    assert [run.seed for run in measured.runs] == [report.seed] == [project.config.train.seed + 1]
    assert measured.mean == pytest.approx(report.measured_loss, abs=1e-6)
    kept, _ = project.manifest("mine")
    assert kept.measured_loss == report.measured_loss
    assert _open(ready).estimate(["alpha", "beta"]).measured_loss == report.measured_loss
    # The manifest next to the adapter has other paths, and is otherwise equal.
    of_adapter = read_manifest(report.adapter / MANIFEST_NAME)
    assert of_adapter.measured_loss == report.measured_loss
    check_files(of_adapter, report.adapter)
    assert of_adapter.model == read_manifest(manifest).model.model_copy(update={"name_or_path": "../../../../model"})
    assert not list((ready / ".curator" / "adapters" / "apply").iterdir())
    status = {stage.stage: stage for stage in _open(ready).status().stages}
    assert status["apply"].state == "done"
    assert "mine" in status["apply"].detail


def test_apply_to_another_folder_copies_the_adapter_without_training(applied: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    project = _open(applied, events)
    first = project.apply("mine")
    assert first.manifest is None, "a name has no file"
    elsewhere = project.apply("mine", output=tmp_path / "out" / "adapter")
    assert elsewhere.cached
    assert not _trained(events)
    assert elsewhere.adapter == tmp_path / "out" / "adapter"
    assert sha256_of(elsewhere.adapter / WEIGHTS) == sha256_of(first.adapter / WEIGHTS)
    check_files(read_manifest(elsewhere.adapter / MANIFEST_NAME), elsewhere.adapter)
    repeated = project.apply("mine", output=tmp_path / "out" / "adapter", fresh=True)
    assert _trained(events)
    assert (repeated.cached, repeated.measured_loss) == (False, first.measured_loss)
    # A damaged adapter is not the measured one. The copy replaces it.
    (first.adapter / WEIGHTS).write_bytes(b"damaged")
    assert project.apply("mine").cached
    assert sha256_of(first.adapter / WEIGHTS) == sha256_of(repeated.adapter / WEIGHTS)


def test_apply_folder_with_user_files_is_refused_and_kept(ready: Path, tmp_path: Path) -> None:
    project = _open(ready)
    (tmp_path / "file").touch()
    for name in ("thesis.txt", "README.md", "adapter_config.json"):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(ConfigError, match=name):
            project.apply(output=folder)
        assert (folder / name).read_text() == "mine"
    with pytest.raises(ConfigError, match="not a folder"):
        project.apply(output=tmp_path / "file")
    with pytest.raises(DataError, match="neither a manifest"):
        project.apply("nothing")

    def fill() -> None:
        with whole_folder(tmp_path / "with-README.md") as partial:
            (partial / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert (tmp_path / "with-README.md" / "README.md").read_text() == "mine"
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name or p.name == "half"]


def test_apply_manifest_replaced_meanwhile_keeps_the_new_manifest(ready: Path) -> None:
    """Another process selects again while the adapter is trained."""
    project = _open(ready)
    other = json.dumps(json.loads((ready / MANIFEST_NAME).read_text()) | {"name": "other"})

    def interfere(event: Event) -> None:
        notes.extend([event] if isinstance(event, Note) else [])
        if isinstance(event, StageStarted):
            (ready / MANIFEST_NAME).write_text(other)

    notes: list[Event] = []
    project = Project(project.workspace.reporting_to(Reporter(interfere)))
    report = project.apply()
    assert (ready / MANIFEST_NAME).read_text() == other
    assert report.manifest is None
    assert len([note for note in notes if isinstance(note, Note) and MANIFEST_NAME in note.message]) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("learning_rate = 0.01", "train.learning_rate"),
        ("r = 2", "lora.r"),
        ("max_length = 64", "data.max_length"),
        ("alpha.jsonl", "tasks.alpha.files.alpha.jsonl"),
        ("target.jsonl", "targets.target.files.target.jsonl"),
        ("model", "model.sha256"),
    ],
)
def test_apply_changed_project_is_refused_and_names_the_change(ready: Path, change: str, field: str) -> None:
    config = ready / "curator.toml"
    if change.endswith(".jsonl"):
        write_rows(ready / "tasks" / change, pair_rows("something else", 12))
    elif change == "model":
        path = ready / "model" / "config.json"
        path.write_text(path.read_text() + "\n")
    else:
        config.write_text(config.read_text().replace(change, change.partition("=")[0] + "= 32"))
    done = CliRunner().invoke(app, ["apply", "-p", str(ready), "-q"])
    assert isinstance(done.exception, ManifestMismatch)
    assert done.exception.exit_code == 4
    assert f"{field}: " in done.exception.message
    assert " → " in done.exception.message


def test_apply_allow_changed_trains_on_the_present_data(ready: Path) -> None:
    text = (ready / MANIFEST_NAME).read_text()
    write_rows(ready / "tasks" / "alpha.jsonl", pair_rows("something else", 9))
    # A change of a task that is not selected has no effect.
    write_rows(ready / "tasks" / "gamma.jsonl", pair_rows("other", 3))
    events: list[Event] = []
    report = _open(ready, events).apply(allow_changed=True)
    assert {task.name: task.examples for task in report.tasks}["alpha"] == 9
    assert any("tasks.alpha.files" in e.message for e in events if isinstance(e, Note))
    assert (ready / MANIFEST_NAME).read_text() == text, "the loss belongs to other data than the manifest names"
    assert report.manifest is None
    of_adapter = read_manifest(report.adapter / MANIFEST_NAME)
    assert of_adapter.measured_loss == report.measured_loss
    check_files(of_adapter, report.adapter)
    (ready / "tasks" / "beta.jsonl").unlink()
    with pytest.raises(ManifestMismatch, match="'beta'"):
        _open(ready).apply(allow_changed=True)


def test_apply_weights_train_on_the_rows_of_an_export(ready: Path, tmp_path: Path) -> None:
    path = ready / MANIFEST_NAME
    document = json.loads(path.read_text())
    for task in document["tasks"]:
        task["weight"] = {"alpha": 0.5, "beta": 1.25}.get(task["name"], 1.0)
    path.write_text(json.dumps(document))
    project = _open(ready)
    report = project.apply()
    assert {task.name: task.examples for task in report.tasks if not task.target} == {"alpha": 4, "beta": 10}
    # The rows of an export give the same training set independently.
    project.export(path, output=tmp_path / "out")
    examples: list[TokenizedExample] = []
    corpus = project.corpus(("target",))
    for task in corpus.tasks:
        if task.name == "gamma":
            continue
        own = (ready / "tasks" / f"{task.name}.jsonl").read_text().splitlines()
        rows = project.store.tokens(task.version.key)
        exported = (tmp_path / "out" / f"{task.name}.jsonl").read_text().splitlines()
        examples += [TokenizedExample(*rows[own.index(line)]) for line in exported]
    assert report.measured_loss == pytest.approx(_by_hand(project, examples, report.seed), abs=2e-6)
    assert json.loads(path.read_text())["measured_loss"] == report.measured_loss
    # A weighted selection is not a subset, and must not calibrate estimates.
    assert _open(ready).estimates(("target",)).measured == []
    assert _open(ready).apply().cached


def test_apply_seed_of_meta_training_calibrates_no_estimate(ready: Path) -> None:
    project = _open(ready)
    assert project.apply(seed=project.config.train.seed).measured_loss > 0
    assert _open(ready).estimates(("target",)).measured == []


def test_apply_several_targets_weighs_losses_by_target_weights(make_project: MakeProject) -> None:
    folder = make_project(train={"epochs": 1}, data={"target": ["target", "beta"], "target_weights": {"beta": 3.0}})
    project = _open(folder)
    project.select(include=["alpha"])
    report = project.apply()
    corpus = project.corpus(("target", "beta"))
    assert report.target == ("target", "beta")
    assert report.measured_loss == pytest.approx(_loss(project, report.adapter, corpus), abs=2e-5)
    assert json.loads((folder / MANIFEST_NAME).read_text())["measured_loss"] == report.measured_loss


def _apply(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "curator", "apply", "-p", str(folder), *arguments]


def test_apply_killed_resumes_to_the_same_adapter(ready: Path, applied: Path) -> None:
    environment = environment_with(ready.parent / "at once", CHECKPOINTS_AT_ONCE)
    process = subprocess.Popen(_apply(ready), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    work = ready / ".curator" / "adapters" / "apply"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not list(work.rglob("complete")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert json.loads((ready / MANIFEST_NAME).read_text())["measured_loss"] is None
    events: list[Event] = []
    report = _open(ready, events).apply()
    (begun,) = [e for e in events if isinstance(e, StageStarted) and e.stage == "apply"]
    assert begun.done > 0, "where it was"
    undisturbed = _open(applied).apply()
    assert report.measured_loss == undisturbed.measured_loss
    assert sha256_of(report.adapter / WEIGHTS) == sha256_of(undisturbed.adapter / WEIGHTS)
    assert not [p for p in ready.rglob("*") if "partial" in p.name or "checkpoint" in p.name]


def test_apply_interrupted_after_training_repeats_one_step(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    project = _open(ready)
    with monkeypatch.context() as patched:
        patched.setattr("curator.training.fine_tune.measure_losses", interrupt)
        patched.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            project.apply()
    events: list[Event] = []
    _open(ready, events).apply()
    (begun,) = [e for e in events if isinstance(e, StageStarted) and e.stage == "apply"]
    assert begun.done == begun.total - 1


def test_apply_command_prints_loss_and_adapter(applied: Path) -> None:
    done = CliRunner().invoke(app, ["apply", "mine", "-p", str(applied), "-q", "--json"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["target"] == "target"
    assert [task["name"] for task in document["tasks"]] == ["alpha", "beta", "target"]
    shown = CliRunner().invoke(app, ["apply", "mine", "-p", str(applied), "-q"]).stdout
    assert f"{document['measured_loss']:.4f}" in shown
    assert document["adapter"] in shown
    assert "cached" in shown
