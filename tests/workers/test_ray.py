"""Fine-tuning runs on a real Ray cluster of this machine. Run `pytest -m ray`, with the extra `ray` installed."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import pair_rows

import curator
from curator.core.events import Event, Reporter

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
TASKS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def ready_away(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return a project with gradients and a selection. Shared by all tests: copy it before changing it."""
    from conftest import toml_of, write_rows

    folder = tmp_path_factory.mktemp("ray") / "project"
    shutil.copytree(tiny_llama_folder, folder / "model")
    for name in ("target", *TASKS):
        write_rows(folder / "tasks" / f"{name}.jsonl", pair_rows(name, 12 if name == "target" else 8))
    values: dict[str, Any] = {
        "model": {"name_or_path": "model"},
        "lora": {"r": 2, "alpha": 4},
        "data": {"tasks": "tasks/*.jsonl", "target": "target", "validation": 0.3, "max_length": 64},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
        "gradients": {"projection_dim": 16, "points": [0.5, 1.0]},
        "estimate": {"method": "quadratic"},
        "select": {"subsets": 50},
    }
    (folder / "curator.toml").write_text(toml_of(values), encoding="utf-8")
    curator.Project.open(folder).select()
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start a cluster of two workers, as `--ray local` does, and stop it after the last test."""
    import ray

    from curator.workers import ray_cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_cluster, "_usable_cpus", lambda: 2)
        ray_cluster.connect("local")
    yield
    ray.shutdown()


def _copied(ready: Path, place: Path) -> Path:
    """Copy the project. The copy has the same path in every test that compares results."""
    shutil.copytree(ready, place)
    return place


def test_verify_worker_killed_in_the_middle_gives_the_store_of_one_process(
    ready_away: Path, cluster: None, tmp_path: Path
) -> None:
    import psutil

    here = curator.Project.open(_copied(ready_away, tmp_path / "here"))
    expected = here.verify(runs=5, seeds=1, forgetting=True)
    killed: list[int] = []

    def kill(event: Event) -> None:
        """Kill a worker as soon as a run reports progress."""
        if killed or type(event).__name__ != "StageProgress":
            return
        found = [p for p in psutil.process_iter(["name", "cmdline"]) if "perform_part" in " ".join(p.cmdline())]
        if found:
            killed.append(found[0].pid)
            found[0].kill()

    away = curator.Project.open(_copied(ready_away, tmp_path / "away"), ray="local", reporter=Reporter(kill))
    found = away.verify(runs=5, seeds=1, forgetting=True)
    assert len(killed) == 1
    assert [(run.subset, run.seed, run.measured_loss) for run in found.runs] == [
        (run.subset, run.seed, run.measured_loss) for run in expected.runs
    ]
    assert found.spearman == expected.spearman
    # The runs calibrate the estimates in their order, so equal stores give equal manifests.
    one, other = (json.loads(project.select(name="after").manifest.read_text()) for project in (here, away))
    for manifest in (one, other):
        del manifest["created"], manifest["project"]
    assert one == other
    assert not list((away.workspace.adapters / "verify").glob("*"))
