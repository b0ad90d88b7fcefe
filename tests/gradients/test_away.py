"""Parquet files of a pass on a cluster: equal gradients, and resuming. tests/workers/test_ray.py uses Ray itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import MakeProject

import curator
from curator.core.errors import DataError
from curator.data.tokens import TokenizedExample
from curator.gradients import away
from curator.gradients.segment_sets import segment_sets, validation_key
from curator.gradients.stage import gradient_sets
from curator.training.meta_init import find_meta_init
from curator.workers import ray_cluster
from curator.workers.ray_cluster import Cluster
from curator.workers.ray_files import Actor


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compute every block in this process, where Ray would send it to an actor. Return the names of its files."""
    seen: list[str] = []

    def compute(_: Cluster, files: Sequence[Path], start: Any, arguments: dict[str, Any]) -> Iterator[tuple[Path, int]]:
        actor = Actor(start, arguments)
        for path in files:
            seen.append(path.name)
            (row,) = actor(pa.table({"item": [str(path)]})).to_pylist()
            assert row["failed"] == ""
            yield Path(row["path"]), row["examples"]

    monkeypatch.setattr(away, "over_files", compute)
    monkeypatch.setattr(ray_cluster, "prepare", lambda _: None)
    monkeypatch.setattr(ray_cluster, "connect", lambda _: Cluster(cpus=2, gpus=0, nodes=1))
    return seen


def _stored(project: curator.Project) -> list[tuple[list[str], bytes, bytes]]:
    """Return token hashes, losses and gradients of each set in the store, sorted by hash."""
    meta = find_meta_init(project.workspace, project.corpus(("target",)))
    assert meta is not None
    found = []
    for one in gradient_sets(project.config, meta):
        hashes, losses, gradients = project.store.gradients(one.key)
        order = np.argsort(hashes)
        found.append((sorted(hashes), losses[order].tobytes(), gradients[order].tobytes()))
    return found


def test_gradients_away_interrupted_pass_resumes_and_equals_one_process(
    make_project: MakeProject, blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few batches in a part, so that a pass has several parts.
    monkeypatch.setattr(away, "PART_BATCHES", 2)
    folder = make_project(gradients={"batch_tokens": 64})
    here = curator.Project.open(folder)
    here.gradients()
    expected = _stored(here)
    assert [len(hashes) for hashes, _, _ in expected] == [36, 36]
    key = [s.key for s in gradient_sets(here.config, find_meta_init(here.workspace, here.corpus(("target",))))]  # type: ignore[arg-type]
    here.store.drop_gradients(key)
    read = away._read_part

    def interrupted(path: Path) -> Iterator[away.Found]:
        raise KeyboardInterrupt

    project = curator.Project.open(folder, ray="local")
    monkeypatch.setattr(away, "_read_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.gradients(fresh=True)
    parts = len(blocks)
    assert parts > 1
    monkeypatch.setattr(away, "_read_part", read)
    # One part of the first checkpoint is lost. All other parts of it are used again.
    (lost, *_) = sorted(folder.rglob("part-*.parquet"))
    lost.unlink()
    project = curator.Project.open(folder, ray="local")
    assert project.gradients(fresh=True).computed == 72
    assert len(blocks) == parts + 1 + parts
    assert _stored(project) == expected
    assert not list(folder.rglob("part-*.parquet"))


def test_gradients_away_parts_of_a_segment_start_workers_once(
    make_project: MakeProject, blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(estimate={"method": "trajectory"})
    here = curator.Project.open(folder)
    here.gradients()
    meta = find_meta_init(here.workspace, here.corpus(("target",)))
    assert meta is not None
    sets = segment_sets(here.config, meta)
    expected = [[a.tobytes() for a in here.store.gradients(validation_key(s))[1:]] for s in sets]
    starts: list[int] = []
    compute = away.over_files
    monkeypatch.setattr(
        away, "over_files", lambda c, files, *args: starts.append(len(files)) or compute(c, files, *args)
    )
    here.store.drop_gradients([key for s in sets for key in (s.key, validation_key(s))])
    project = curator.Project.open(folder, ray="local")
    project.gradients(fresh=True)
    # Training examples and validation examples of each segment. Each segment has several adapters.
    assert len(starts) == 2 * len(sets)
    assert min(starts) > 1
    assert [[a.tobytes() for a in project.store.gradients(validation_key(s))[1:]] for s in sets] == expected


def test_actor_error_for_the_user_reaches_the_driver(make_project: MakeProject, tmp_path: Path) -> None:
    project = curator.Project.open(make_project())
    corpus = project.corpus(("target",))
    wanted = away.AdapterPass(folder=tmp_path / "gone", sha256="0", spec=_spec(project), in_metric=False)
    path = tmp_path / "examples" / "00000000.parquet"
    path.parent.mkdir()
    away._write_examples(path, [[TokenizedExample([1, 2, 3], [-100, 2, 3])]])
    held = project.workspace.away(away.HeldExamples(project.store.path, {}))
    arguments = {"workspace": held, "model": corpus.model, "adapters": {tmp_path: wanted}}
    (row,) = Actor(away.Computer, arguments)(pa.table({"item": [str(path)]})).to_pylist()
    assert row["failed"].startswith("cannot read adapter")
    assert not (tmp_path / "part-00000000.parquet").exists()


def test_read_part_damaged_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "part-00000000.parquet"
    path.write_bytes(b"PAR1 no footer")
    with pytest.raises(DataError, match="part-00000000"):
        list(away._read_part(path))


def _spec(project: curator.Project) -> Any:
    from curator.gradients.stage import projection

    return projection(project.config)
