"""Determinism: equal input, configuration and seed give equal results, within documented limits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curator.gradients import stage as stages
from curator.project.project import Project
from curator.select.manifest import MANIFEST_NAME

MakeProject = Callable[..., Path]
# Nats per target token: the possible effect of the order of float32 sums, as docs/explanation/reliability.md states.
TOLERANCE = 1e-4


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_text())
    del found["created"]
    return found


@pytest.fixture
def trained(make_project: MakeProject) -> Path:
    """Return a project after meta-training, so that later stages can be compared."""
    folder = make_project(project={"name": "p"})
    Project.open(folder).train()
    return folder


def _selected(folder: Path, there: Path, **gradients: int) -> tuple[list[str], dict[str, float], Path]:
    """Select in a copy. Return the selected tasks, and all estimates by name."""
    copy = Path(shutil.copytree(folder, there))
    text = (copy / "curator.toml").read_text()
    for key, value in gradients.items():
        text = text.replace("[gradients]", f"[gradients]\n{key} = {value}")
    (copy / "curator.toml").write_text(text)
    found = Project.open(copy).select()
    numbers = {task.name: task.affinity for task in found.tasks}
    return found.selected, numbers | found.reference | {"loss": found.estimated_loss}, copy


def test_select_repeated_gives_same_manifest_bytes(trained: Path, tmp_path: Path) -> None:
    runs = [_selected(trained, tmp_path / str(number))[2] for number in range(2)]
    first, second = ((folder / MANIFEST_NAME).read_text().splitlines() for folder in runs)
    assert [line for line in first if '"created"' not in line] == [line for line in second if '"created"' not in line]


def test_select_other_batch_sizes_and_restarts_give_same_selection(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected, numbers, whole = _selected(trained, tmp_path / "whole")
    for tokens in (16, 100):
        others, other_numbers, _ = _selected(trained, tmp_path / f"batches-of-{tokens}", batch_tokens=tokens)
        assert others == selected
        assert other_numbers == pytest.approx(numbers, abs=TOLERANCE)

    # Interrupt after a commit, twice, and resume: the bytes must be the same.
    cut = Path(shutil.copytree(trained, tmp_path / "cut"))
    put, commits = stages.Store.put_gradients, 0

    def interrupted(self: stages.Store, *given: Any) -> None:
        nonlocal commits
        put(self, *given)
        commits += 1
        if commits in (1, 5):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "_COMMIT_SECONDS", 0.0)
        patch.setattr(stages.Store, "put_gradients", interrupted)
        restarts = 0
        while True:
            try:
                Project.open(cut).select()
                break
            except KeyboardInterrupt:
                restarts += 1
    assert restarts == 2
    assert _manifest(cut) == _manifest(whole)
    stores = [Project.open(folder).store for folder in (whole, cut)]
    for key in stores[0].artifacts("gradients")[0].inputs["sets"]:
        (hashes, losses, here), (others_, other_losses, there) = (store.gradients(key) for store in stores)
        order, other_order = np.argsort(hashes), np.argsort(others_)
        np.testing.assert_array_equal(losses[order], other_losses[other_order])
        np.testing.assert_array_equal(here[order], there[other_order])
