"""Verbs end to end on a tiny project: caching, staleness and recomputation."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import pair_rows, write_rows

import curator
from curator.core.errors import ConfigError, DataError, NumericalError, StoreBusy
from curator.core.events import Event, Reporter, StageFinished, StageStarted
from curator.data.corpus import validation_examples
from curator.gradients.stage import gradient_sets
from curator.select.manifest import Edit
from curator.select.methods import Request
from curator.training.meta_init import find_meta_init
from curator.training.trainer import measure_losses

MakeProject = Callable[..., Path]


def _open(folder: Path, events: list[Event] | None = None) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _started(events: list[Event]) -> list[str]:
    return [e.stage for e in events if isinstance(e, StageStarted)]


def _states(project: curator.Project) -> dict[str, str]:
    """Return the states of the stages that lead to a selection. `verify` is optional."""
    return {stage.stage: stage.state for stage in project.status().stages if stage.stage != "verify"}


def _reasons(project: curator.Project, stage: str) -> str:
    return " ".join(next(s.reasons for s in project.status().stages if s.stage == stage))


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "curator-manifest.json").read_text())
    del manifest["created"]
    return manifest


def test_select_runs_each_missing_stage_once(make_project: MakeProject) -> None:
    folder = make_project()
    events: list[Event] = []
    result = _open(folder, events).select()
    assert _started(events) == ["data", "train", "gradients", "estimate", "select"]
    assert {t.name for t in result.tasks} == {"alpha", "beta", "gamma"}
    assert not result.cached
    first = (folder / "curator-manifest.json").read_bytes()

    again: list[Event] = []
    repeated = _open(folder, again).select()
    assert repeated.cached
    assert _started(again) == []
    assert all(e.cached for e in again if isinstance(e, StageFinished))
    assert (folder / "curator-manifest.json").read_bytes() == first
    assert set(_states(_open(folder)).values()) == {"done"}


def test_select_same_input_gives_same_manifest(make_project: MakeProject) -> None:
    here, there = make_project("one", project={"name": "p"}), make_project("two", project={"name": "p"})
    for folder in (here, there):
        _open(folder).select()
    assert _manifest(here) == _manifest(there)


def test_gradients_use_mean_weights_before_checkpoint(make_project: MakeProject) -> None:
    folders = [make_project(f"average-{average}", gradients={"average": average}) for average in (0.0, 0.5)]
    hashes = [[point["sha256"] for point in _open(folder).train().points] for folder in folders]
    assert not set(hashes[0]) & set(hashes[1])


def test_select_last_request_is_current_selection(make_project: MakeProject) -> None:
    project = _open(make_project())
    first = project.select(include=["alpha"], k=1).selected
    assert project.select(include=["beta"], k=1).selected != first
    assert project.select(include=["alpha"], k=1).cached
    assert project.selections(("target",)).last_names_or_select() == first


def test_estimate_of_selection_equals_selection_loss(make_project: MakeProject) -> None:
    project = _open(make_project())
    result = project.select(method="exchange")
    estimate = project.estimate(result.selected)
    assert estimate.estimated_loss == result.estimated_loss
    report = project.estimate_all([["alpha", "beta", "gamma"], []])
    assert [e.estimated_loss for e in report.estimates] == [
        result.reference["all_tasks"],
        result.reference["target_only"],
    ]
    # Meta-training trained on all tasks together, so their loss is known.

    tuned = project._pipeline.load()
    tuned.load_adapter(project.folder / "adapters" / project.train().key / "final")
    (target,) = project.corpus(("target",)).target_tasks
    measured = measure_losses(tuned, validation_examples(target, project.store), batch_tokens=512).mean()
    assert report.estimates[0].estimated_loss == pytest.approx(measured, abs=1e-5)


@pytest.mark.parametrize(
    ("table", "key", "value", "stale"),
    [
        ("train", "learning_rate", 2e-3, {"train", "gradients", "estimate", "select"}),
        ("gradients", "projection_dim", 8, {"gradients", "estimate", "select"}),
        ("estimate", "ridge", 3.0, {"estimate", "select"}),
        ("select", "subsets", 60, {"estimate", "select"}),
        ("project", "name", "other", set()),
    ],
)
def test_status_changed_key_marks_dependent_stages_stale(
    make_project: MakeProject, table: str, key: str, value: Any, stale: set[str]
) -> None:
    folder = make_project()
    _open(folder).select()
    text = (folder / "curator.toml").read_text()
    changed = make_project("changed", **{table: {key: value}})
    (folder / "curator.toml").write_text((changed / "curator.toml").read_text().replace('"changed"', '"project"'))
    project = _open(folder)
    assert {stage for stage, state in _states(project).items() if state != "done"} == stale
    first = next((s for s in ("train", "gradients", "estimate") if s in stale), None)
    if first is not None:
        assert key in _reasons(project, first) or first == "gradients"
    if stale:
        events: list[Event] = []
        _open(folder, events).select()
        assert set(_started(events)) == stale
    # The old configuration finds its old results.
    (folder / "curator.toml").write_text(text)
    assert _open(folder).select().cached


def test_gradients_added_task_computes_only_its_own(make_project: MakeProject) -> None:
    folder = make_project()
    project = _open(folder)
    project.select()
    before = project.gradients()
    write_rows(folder / "tasks" / "delta.jsonl", pair_rows("delta", 5))
    assert _states(_open(folder))["data"] != "done"
    events: list[Event] = []
    result = _open(folder, events).select()
    assert "train" not in _started(events)
    started = next(e for e in events if isinstance(e, StageStarted) and e.stage == "gradients")
    assert started.total - started.done == 5 * before.points
    assert [t.name for t in result.tasks] == ["alpha", "beta", "delta", "gamma"]
    assert "has not seen: delta" in _reasons(_open(folder), "train")

    fresh: list[Event] = []
    _open(folder, fresh).select(fresh=True)
    assert {"train", "gradients", "estimate", "select"} <= set(_started(fresh))
    assert _reasons(_open(folder), "train") == ""


def test_status_changed_task_marks_train_stale(make_project: MakeProject) -> None:
    folder = make_project()
    _open(folder).select()
    write_rows(folder / "tasks" / "beta.jsonl", pair_rows("changed", 8))
    project = _open(folder)
    project.check()
    assert _states(project)["train"] == "stale"
    assert "tasks.beta" in _reasons(project, "train")


def test_corpus_excludes_target_validation_from_training(make_project: MakeProject) -> None:
    folder = make_project()
    project = _open(folder)
    (target,) = project.corpus(("target",)).target_tasks
    secret = [pair_rows("target", 12)[n] for n in target.split.validation[:2]]
    write_rows(folder / "tasks" / "leaky.jsonl", [*pair_rows("leaky", 4), *secret])
    report = _open(folder).check()
    leaky = next(t for t in report.tasks if t.name == "leaky")
    assert leaky.examples == 4
    assert leaky.left_out == {"also in the target's validation": 2}
    assert any("leaky: 2 examples left out" in problem for problem in report.problems)


def test_select_pins_and_budgets_apply_and_bad_names_raise(make_project: MakeProject) -> None:
    project = _open(make_project())
    for method in ("forward", "backward", "exchange", "ensemble"):
        result = project.select(method=method, include=["beta"], exclude=["alpha"], k=1)
        assert result.selected == ["beta"]
    with pytest.raises(ConfigError, match="both included and excluded"):
        project.select(include=["beta"], exclude=["beta"])
    with pytest.raises(ConfigError, match="unknown task: 'bata'") as caught:
        project.select(include=["bata"])
    assert "beta" in caught.value.hint
    with pytest.raises(ConfigError, match="exceed the budget"):
        project.select(include=["beta"], k=0)
    with pytest.raises(ConfigError, match="target named as an auxiliary task"):
        project.estimate(["target"])
    with pytest.raises(ConfigError, match="unknown selection method"):
        project.select(method="magic")
    with pytest.raises(ConfigError, match="unknown target: 'tarhet'"):
        project.select(target="tarhet")


def test_select_other_target_holds_out_its_own_examples(make_project: MakeProject) -> None:
    project = _open(make_project())
    project.select()
    result = project.select(target="alpha")
    assert {t.name for t in result.tasks} == {"beta", "gamma", "target"}
    both = project.select(target=["alpha", "target"])
    assert {t.name for t in both.tasks} == {"beta", "gamma"}
    assert both.to_json()["target"] == ["alpha", "target"]


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_select_on_encoder_decoder_works_with_both_estimators(
    make_project: MakeProject, tiny_t5_folder: Path, method: str
) -> None:
    folder = make_project(model=tiny_t5_folder, estimate={"method": method})
    result = _open(folder).select()
    assert np.isfinite([t.affinity for t in result.tasks]).all()
    assert result.estimated_loss_low < result.estimated_loss < result.estimated_loss_high


def test_gradients_nan_names_the_task(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    from curator.gradients.engine import GradientEngine

    project = _open(make_project())
    project.train()
    real = GradientEngine.project

    def broken(self: GradientEngine, examples: Any) -> Any:
        projected = real(self, examples)
        projected.gradients[0, 3] = np.nan
        return projected

    with monkeypatch.context() as patch:
        patch.setattr(GradientEngine, "project", broken)
        with pytest.raises(NumericalError, match=r"example [0-9]+ of task 'alpha'"):
            project.gradients()
    assert project.gradients().computed > 0


def test_gradients_are_done_only_after_sums_are_stored(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that ends just before it stores the artifact leaves no gradient to compute, and no known time."""
    # With so few dimensions, sums are smaller than gradients.
    project = _open(make_project(gradients={"projection_dim": 4}))
    project.train()
    with monkeypatch.context() as patch:
        patch.setattr(type(project.store), "put_artifact", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            project.gradients()
    meta = find_meta_init(project.workspace, project.corpus(("target",)))
    assert meta is not None
    keys = [s.key for s in gradient_sets(project.config, meta)]
    assert all(len(project.store.stored_sums(key)) == 4 for key in keys)
    assert project.gradients().computed == 0
    (artifact,) = project.store.artifacts("gradients")
    assert "seconds" not in artifact.outputs


def test_train_second_process_names_the_working_one(make_project: MakeProject) -> None:
    project = _open(make_project())
    other = _open(project.root)
    with project.workspace.job("train"), pytest.raises(StoreBusy, match=str(os.getpid())):
        other.train()


def test_check_model_without_weights_raises_data_error(make_project: MakeProject) -> None:
    folder = make_project()
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no weights.*pickle"):
        _open(folder).check()


def test_select_invalid_text_and_numbers_raise_errors(make_project: MakeProject) -> None:
    """A shell can pass bytes that are not UTF-8, and `--threshold nan`."""
    project = _open(make_project())
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        project.select(name="\udcff")
    for name in ("\udcff", "x" * 300, "x" * 100_000):
        with pytest.raises(DataError, match="neither a manifest nor the name of a selection"):
            project.manifest(name)
    for number in (math.nan, math.inf):
        with pytest.raises(ConfigError, match="threshold is not finite"):
            project.select(threshold=number)


def test_save_selection_is_found_by_name_and_exported(make_project: MakeProject, tmp_path: Path) -> None:
    project = _open(make_project())
    project.select(name="auto")
    selections = project.selections(("target",))
    request = Request(method="forward", include=("beta",))
    edits = [Edit(task="beta", selected=True, by="curator tui")]
    saved = selections.save(["beta", "alpha"], name="mine", request=request, edits=edits)
    assert [task.name for task in saved.tasks if task.selected] == ["alpha", "beta"]
    assert saved.estimated_loss == project.estimate(["alpha", "beta"]).estimated_loss
    assert saved.edits == tuple(edits)
    found, here = project.manifest("mine")
    assert found == saved
    assert here == project.root
    selections.save(["gamma"], name="mine", request=request)
    assert [task.name for task in project.manifest("mine")[0].tasks if task.selected] == ["gamma"]
    # Paths are relative to the project, which may move.
    moved = project.root.rename(tmp_path / "moved")
    report = _open(moved).export("mine", output=tmp_path / "out")
    assert [name for name, _ in report.files] == ["target.jsonl", "gamma.jsonl"]
    with pytest.raises(DataError, match="no such"):
        _open(moved).manifest("no such")
