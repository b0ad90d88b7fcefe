"""Test that the sums of segments equal plain loops over visits, and that separate passes add what is missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeProject, pair_rows, write_rows

from curator import Project
from curator.core.errors import DataError
from curator.core.events import Reporter
from curator.estimate.segment_inputs import read_trajectory
from curator.estimate.trajectory import Trajectory
from curator.gradients import segment_sets as segment_sets_module
from curator.gradients import segments as module
from curator.gradients.capture import read_visits
from curator.gradients.example_groups import training_groups
from curator.gradients.segment_sets import capture_folder, segment_sets, sketch
from curator.gradients.visits import gradients_of, spans
from curator.training.meta_init import find_meta_init, learning_rates
from curator.workspace.store.tables import Store


def _project(make_project: MakeProject, **given: Any) -> Project:
    tables: dict[str, Any] = {
        "estimate": {"method": "trajectory"},
        "train": {"epochs": 3},
        "gradients": {"points": "auto"},
    }
    return Project.open(make_project(**tables | given))


def _trajectory(project: Project) -> Trajectory:
    corpus = project.corpus(project.config.data.targets)
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    return read_trajectory(project.workspace, corpus, meta, segment_sets(project.config, meta))


def test_sketch_dim_of_configuration_is_size_of_captured_gradients(make_project: MakeProject) -> None:
    project = _project(make_project, gradients={"points": "auto", "projection_dim": 16, "sketch_dim": 300})
    project.gradients()
    trajectory = _trajectory(project)
    assert trajectory.basis.shape == (300, 4)
    assert {segment.gradient_sums.shape[1] for segment in trajectory.segments} == {300}
    assert {segment.validation.gradients.shape[1] for segment in trajectory.segments} == {300}


def _packed(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix))]


def test_make_segments_sums_equal_loops_over_visits(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "remove_visits", lambda folder: None)
    project = _project(make_project)
    project.gradients()
    corpus = project.corpus(project.config.data.targets)
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    assert meta.captured
    (visits,) = read_visits(capture_folder(project.workspace, meta.key), sketch(project.config).dim)
    names = json.loads((capture_folder(project.workspace, meta.key) / "examples.json").read_text())
    tokens = {h: w for group in training_groups(corpus) for h, w in zip(group.hashes, group.weights, strict=True)}
    place_of: list[tuple[str, str]] = [(name, h) for name, hashes in names for h in hashes]
    trajectory = _trajectory(project)
    basis = trajectory.basis
    rates = learning_rates(project.config, meta.checkpoints[-1].step)
    total = sum(sum(group.weights) for group in training_groups(corpus))
    first = 0
    assert len(trajectory.segments) == 4
    for segment, gradient_set in zip(trajectory.segments, segment_sets(project.config, meta), strict=True):
        checkpoint, unsettled = gradient_set.checkpoint, 3
        assert segment.step == pytest.approx(sum(rates[first : checkpoint.step]) / total)
        for number, group in enumerate(training_groups(corpus)):
            task = corpus.auxiliary[number].name if number < len(corpus.auxiliary) else corpus.targets[0]
            seen: dict[str, list[np.ndarray]] = {}
            for visit in visits:
                if max(first, unsettled) < visit["step"] <= checkpoint.step and place_of[visit["position"]][0] == task:
                    seen.setdefault(place_of[visit["position"]][1], []).append(gradients_of(visit[None])[0])
            ratio = sum(group.weights) / sum(tokens[h] for h in seen)
            mean = {h: np.mean(found, axis=0, dtype=np.float64) for h, found in seen.items()}
            expected = ratio * sum(tokens[h] * g for h, g in mean.items())
            curvature = ratio * sum(tokens[h] * np.outer(g @ basis, g @ basis) for h, g in mean.items())
            outside = [
                (tokens[h], np.mean([g @ g - (g @ basis) @ (g @ basis) for g in found])) for h, found in seen.items()
            ]
            rest = ratio * sum(w * lost for w, lost in outside) / (len(basis) - basis.shape[1])
            size = np.abs(expected).max()
            np.testing.assert_allclose(segment.gradient_sums[number], expected, rtol=1e-4, atol=1e-5 * size)
            np.testing.assert_allclose(
                segment.curvatures[number], _packed(curvature), rtol=1e-3, atol=1e-4 * np.abs(curvature).max()
            )
            assert segment.rest[number] == pytest.approx(rest, rel=1e-3)
            assert segment.weights[number] == sum(group.weights)
            (examples,) = segment.read([number])
            for h, gradient in zip(group.hashes, examples.gradients, strict=True):
                if h in mean:
                    np.testing.assert_allclose(gradient @ basis, mean[h] @ basis, rtol=1e-3, atol=1e-4 * size)
        first = checkpoint.step


def test_make_segments_added_task_gets_pass_at_each_segment(make_project: MakeProject) -> None:
    project = _project(make_project)
    project.gradients()
    before = _trajectory(project)
    write_rows(project.root / "tasks" / "zeta.jsonl", pair_rows("zeta", 5))
    again = Project.open(project.root)
    report = again.gradients()
    assert report.computed == 4 * 5
    assert report.points == 4
    after = _trajectory(again)
    for old, new in zip(before.segments, after.segments, strict=True):
        assert len(new.weights) == len(old.weights) + 1
        np.testing.assert_array_equal(new.gradient_sums[[0, 1, 2, 4]], old.gradient_sums)
        assert np.abs(new.gradient_sums[3]).max() > 0
        assert new.step == old.step
    assert after.trained is not None
    assert after.trained.tolist() == [True, True, True, False]


def test_make_segments_without_capture_visits_every_example(make_project: MakeProject, tiny_gpt2_folder: Path) -> None:
    # The embedding is no linear layer, so training cannot capture its gradients.
    project = _project(
        make_project,
        model=tiny_gpt2_folder,
        lora={"r": 2, "target_modules": ["wte", "c_attn"]},
        gradients={"points": [0.5, 1.0]},
    )
    project.gradients()
    trajectory = _trajectory(project)
    assert len(trajectory.segments) == 2
    for segment in trajectory.segments:
        assert (np.abs(segment.gradient_sums).max(axis=1) > 0).all()
        (examples,) = segment.read([0])
        assert len(examples.gradients) == 8
    assert not list((project.root / ".curator" / "adapters").rglob("visits-*.bin"))


def test_gradients_same_command_again_computes_nothing(make_project: MakeProject) -> None:
    project = _project(make_project)
    assert project.gradients().computed > 0
    assert Project.open(project.root).gradients().computed == 0
    assert not list((project.root / ".curator" / "adapters").rglob("visits-*.bin"))


def test_read_trajectory_without_sums_names_command(make_project: MakeProject) -> None:
    project = _project(make_project)
    project.gradients()
    with project.store.write() as connection:
        connection.execute("DELETE FROM segment_sums")
    with pytest.raises(DataError, match="not stored") as error:
        _trajectory(project)
    assert "curator gradients" in str(error.value.hint)


@pytest.mark.parametrize(
    ("ends", "first"), [([24, 47, 70, 94], 3), ([176, 351, 526, 702], 8), ([2, 4, 6, 8], 1), ([1, 2, 3, 4], 0)]
)
def test_spans_of_captured_run_leave_out_its_unsettled_steps(ends: list[int], first: int) -> None:
    # The second step has gradients a hundred times too long: Adam has not seen LoRA's matrix A yet.
    assert spans(ends, captured=True) == list(zip([first, *ends[:-1]], ends, strict=True))
    assert spans(ends, captured=False)[0] == (0, ends[0])


@pytest.mark.parametrize("calls", [2, 5, 9])
def test_make_segments_resumed_pass_computes_same_gradients(
    make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = _project(make_project)
    resumed = Project.open(shutil.copytree(whole.root, tmp_path / "resumed", symlinks=True))
    whole.gradients()
    put, made = Store.put_gradients, 0

    def fail_once(store: Store, key: str, *given: Any) -> None:
        nonlocal made
        made += 1
        if made == calls:
            raise DataError("no space left on device", hint="Free some space.")
        put(store, key, *given)

    monkeypatch.setattr(Store, "put_gradients", fail_once)
    with pytest.raises(DataError, match="no space"):
        resumed.gradients()
    resumed.gradients()
    for expected, found in zip(_trajectory(whole).segments, _trajectory(resumed).segments, strict=True):
        np.testing.assert_array_equal(found.validation.losses, expected.validation.losses)
        np.testing.assert_array_equal(found.validation.gradients, expected.validation.gradients)
        np.testing.assert_array_equal(found.gradient_sums, expected.gradient_sums)


def test_make_segments_captured_gradients_are_gone_warns_that_estimates_change(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = _project(make_project)
    project.gradients()
    # A later version of curator may sum the visits in another way. They are removed after their sums are stored.
    monkeypatch.setattr(segment_sets_module, "_VERSION", segment_sets_module._VERSION + 1)
    said: list[str] = []
    again = Project.open(project.root, reporter=Reporter(lambda event: said.append(getattr(event, "message", ""))))
    again.gradients()
    assert any("captured are gone" in words and "curator train --fresh" in words for words in said)
