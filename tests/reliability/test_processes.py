"""The command line in separate processes: killed and resumed, and several processes under torchrun."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeProject, environment_with

from curator.data.corpus import validation_examples
from curator.gradients.stage import gradient_sets
from curator.project.project import Project
from curator.training.meta_init import find_meta_init
from curator.training.trainer import measure_losses


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "curator-manifest.json").read_text())
    del manifest["created"]
    return manifest


def _command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "curator", *arguments, "-p", str(folder)]


def _kill_when(folder: Path, stage: str, sign: signal.Signals) -> int:
    """Start `curator select`, kill it after the first progress of a stage, and return its exit code."""
    process = subprocess.Popen(_command(folder, "select"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        events = []
        for log in (folder / ".curator" / "runs").glob("*/events.jsonl"):
            events += [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if any(event["event"] == "StageProgress" and event["stage"] == stage for event in events):
            process.send_signal(sign)
            break
        time.sleep(0.005)
    return process.wait(timeout=60)


# Enough work in each stage, so that a kill interrupts the stage.
LONG: dict[str, Any] = {
    "project": {"name": "p"},
    "train": {"epochs": 3, "batch_size": 2},
    "gradients": {"batch_tokens": 32},
}


def test_select_killed_and_repeated_gives_same_manifest(make_project: MakeProject) -> None:
    # test_kills.py kills every stage at random moments. This test starts the command as a user does.
    whole, cut = make_project("whole", **LONG), make_project("cut", **LONG)
    Project.open(whole).select()
    assert _kill_when(cut, "train", signal.SIGKILL) == -signal.SIGKILL
    assert Project.open(cut).status().runs[0]["state"] == "lost"
    assert _kill_when(cut, "gradients", signal.SIGTERM) == 130
    assert Project.open(cut).status().runs[0]["state"] == "interrupted"
    assert not (cut / "curator-manifest.json").exists()
    Project.open(cut).select()
    assert _manifest(cut) == _manifest(whole)
    leftovers = [p for p in cut.rglob("*") if "partial" in p.name or "checkpoint" in p.name]
    assert not leftovers
    stored = Project.open(cut).store
    for artifact in stored.artifacts("gradients"):
        for key in artifact.inputs["sets"]:
            hashes = stored.gradients(key)[0]
            assert len(hashes) == len(set(hashes)) == artifact.outputs["examples"]


def _launch(folder: Path, *arguments: str) -> list[str]:
    """Return the command for two processes on this machine."""
    # `accelerate launch --cpu` ignores the number of processes and starts one.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    return [*launcher, "-m", "curator", *arguments, "-p", str(folder)]


def _assert_same_gradients(one: Path, two: Path) -> None:
    stores = Project.open(one).store, Project.open(two).store
    for key in stores[0].artifacts("gradients")[0].inputs["sets"]:
        (hashes, losses, here), (others, other_losses, there) = (store.gradients(key) for store in stores)
        order, other_order = np.argsort(hashes), np.argsort(others)
        assert sorted(hashes) == sorted(others)
        np.testing.assert_allclose(losses[order], other_losses[other_order], rtol=1e-5)
        np.testing.assert_allclose(here[order], there[other_order], atol=1e-5 * np.abs(here).max())


def test_select_two_processes_equals_one_process(make_project: MakeProject) -> None:
    two = make_project("two", project={"name": "p"}, train={"epochs": 6})
    done = subprocess.run(_launch(two, "select", "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # One process resumes from the results of two, and computes the same gradients at the same checkpoints.
    one = Path(shutil.copytree(two, two.parent / "one"))
    project = Project.open(one)
    assert project.train().cached
    assert project.gradients(fresh=True).computed > 0
    _assert_same_gradients(one, two)
    alone, shared = project.select(), json.loads(done.stdout)
    assert [task for task in alone.selected] == [task["name"] for task in shared["tasks"] if task["selected"]]
    assert shared["estimated_loss"] == pytest.approx(alone.estimated_loss, rel=1e-5)
    # Training has reduced the loss.
    corpus = project.corpus(("target",))
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    (target,) = corpus.target_tasks
    before = measure_losses(project._pipeline.load(), validation_examples(target, project.store), batch_tokens=512)
    assert np.mean([meta.final_losses[h] for h in target.validation_hashes]) < before.mean()


def test_select_two_processes_capture_every_visit_once(make_project: MakeProject) -> None:
    two = make_project(
        "two",
        project={"name": "p"},
        train={"epochs": 4},
        estimate={"method": "trajectory"},
        gradients={"projection_dim": 16, "points": "auto"},
    )
    done = subprocess.run(_launch(two, "select", "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    project = Project.open(two)
    assert project.select().cached
    captured = project.estimates(("target",)).trajectory
    # The whole pass of one process visits the same examples at the same adapters.
    with project.store.write() as connection:
        connection.execute("DELETE FROM segment_sums")
        connection.execute("DELETE FROM artifacts WHERE stage = 'gradients'")
    again = Project.open(two)
    assert again.gradients().computed > 0
    passed = again.estimates(("target",)).trajectory
    for one, other in zip(captured.segments, passed.segments, strict=True):
        assert one.examples.tolist() == other.examples.tolist()
    # In the first segment of so short a run, the metric of the visits differs much from that at the segment's end.
    for one, other in zip(captured.segments[2:], passed.segments[2:], strict=True):
        for first, second in zip(one.gradient_sums, other.gradient_sums, strict=True):
            # Training visits an example once or twice, at an adapter that differs from the segment's mean.
            assert first @ second > 0.8 * np.linalg.norm(first) * np.linalg.norm(second)
            assert np.linalg.norm(first) == pytest.approx(np.linalg.norm(second), rel=0.5)
    assert not list((two / ".curator" / "adapters").rglob("visits-*.bin"))


# Every batch is committed. The last rank is killed in its third batch.
DYING_RANK = """\
import os, signal
if "RANK" in os.environ:
    import curator.gradients.engine, curator.gradients.stage
    curator.gradients.stage._COMMIT_SECONDS = 0.0
    project = curator.gradients.engine.GradientEngine.project
    batches = []
    def at_most_two(self, examples):
        batches.append(examples)
        if os.environ["RANK"] == "1" and len(batches) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return project(self, examples)
    curator.gradients.engine.GradientEngine.project = at_most_two
"""


def test_gradients_killed_rank_keeps_commits_and_resumes(make_project: MakeProject) -> None:
    one, two = make_project("one", **LONG), make_project("two", **LONG)
    Project.open(one).train()
    subprocess.run(["cp", "-r", str(one / ".curator"), str(two)], check=True)
    environment = environment_with(two.parent / "dying", DYING_RANK)
    launched = subprocess.run(
        _launch(two, "gradients"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    assert launched.returncode != 0
    kept = sum(len(Project.open(two).store.gradient_hashes(key)) for key in _set_keys(one))
    assert kept > 0
    computed = Project.open(two).gradients().computed
    assert computed == Project.open(one).gradients().computed - kept > 0
    _assert_same_gradients(one, two)


def _set_keys(folder: Path) -> list[str]:
    project = Project.open(folder)
    meta = find_meta_init(project.workspace, project.corpus(("target",)))
    assert meta is not None
    return [s.key for s in gradient_sets(project.config, meta)]
