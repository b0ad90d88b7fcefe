"""Runs and gradients on a real Ray cluster of this machine. With the extra `ray`: `pytest -m ray tests/workers`."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import environment_with, pair_rows, stored_examples, toml_of, write_rows
from tui_tmux import Tmux, needs_tmux, tmux

import curator
from curator.core.events import Event, Reporter, StageProgress, StageStarted
from curator.core.interpreters import module_command
from curator.gradients import away
from curator.gradients.stage import gradient_sets
from curator.training.meta_init import find_meta_init
from curator.workers import ray_cluster, ray_encoding

__all__ = ["tmux"]
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
_WITHOUT_RESULTS = shutil.ignore_patterns(".curator")
TASKS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def ready_away(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return a project with a trained adapter and no gradients. Shared by all tests: copy it before changing it."""
    folder = tmp_path_factory.mktemp("ray") / "project"
    shutil.copytree(tiny_llama_folder, folder / "model")
    for name in ("target", *TASKS):
        write_rows(folder / "tasks" / f"{name}.jsonl", pair_rows(name, 12 if name == "target" else 8))
    values: dict[str, Any] = {
        "model": {"name_or_path": "model"},
        "lora": {"r": 2, "alpha": 4},
        "data": {"tasks": "tasks/*.jsonl", "target": "target", "validation": 0.3, "max_length": 64},
        "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
        # One example in a batch, so that a pass has several parts.
        "gradients": {"projection_dim": 16, "points": [0.5, 1.0], "batch_tokens": 16},
        "estimate": {"method": "quadratic"},
        "select": {"subsets": 50},
    }
    (folder / "curator.toml").write_text(toml_of(values), encoding="utf-8")
    curator.Project.open(folder).train()
    return folder


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working folder of the process that starts the cluster."""
    return tmp_path_factory.mktemp("working")


@pytest.fixture(scope="module")
def cluster(working_folder: Path) -> Iterator[str]:
    """Start a cluster of two workers, as `--ray local` does, and stop it after the last test. Return its address."""
    import ray

    # Workers cannot import this file, so they get the code of its functions.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(working_folder)
        patched.setattr(ray_cluster, "_usable_cpus", lambda: 2)
        before = signal.getsignal(signal.SIGTERM)
        assert ray_cluster.connect("local").workers == 2
        assert signal.getsignal(signal.SIGTERM) is before, "a stopped job ends as interrupted"
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def _is_first(marker: Path) -> bool:
    """Return whether no process has asked before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _stored(project: curator.Project) -> list[tuple[dict[str, float], dict[str, bytes]]]:
    """Return losses and bytes of the gradients of each set in the store, by token hash."""
    meta = find_meta_init(project.workspace, project.corpus(("target",)))
    assert meta is not None
    found = []
    for one in gradient_sets(project.config, meta):
        hashes, losses, gradients = project.store.gradients(one.key)
        rows = zip(hashes, losses.tolist(), gradients.astype(np.float32), strict=True)
        found.append(
            ({h: loss for h, loss, _ in rows}, {h: g.tobytes() for h, g in zip(hashes, gradients, strict=True)})
        )
    return found


def _manifest(project: curator.Project) -> dict[str, Any]:
    result = project.select(name="after")
    document = json.loads(Path(result.manifest).read_text())
    del document["created"], document["project"]
    return dict(document)


def test_connect_local_listens_on_loopback_and_wants_a_token(cluster: str) -> None:
    assert cluster.startswith("127.0.0.1:")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    servers = [p for p in psutil.process_iter(["name"]) if p.info["name"] in ("gcs_server", "raylet")]
    ours = [p for p in servers if p.ppid() == os.getpid()]
    assert len(ours) == 2
    listening = {c.laddr.ip for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_connect_working_folder_is_not_on_the_path_of_workers(cluster: str, working_folder: Path) -> None:
    import ray

    found = ray.get(ray.remote(lambda: __import__("sys").path).remote())
    assert str(working_folder) not in found
    assert "" not in found


def test_verify_killed_worker_gives_store_and_manifest_of_one_process(
    ready_away: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = curator.Project.open(shutil.copytree(ready_away, tmp_path / "here"))
    expected = here.verify(runs=3, seeds=1, forgetting=True)
    place = shutil.copytree(ready_away, tmp_path / "away")
    # Gradients of one process: another test computes them on the cluster.
    curator.Project.open(place).select()
    marker = tmp_path / "killed"

    class Fatal:
        """Kill the worker at the first progress of its run."""

        def __init__(self) -> None:
            self.put = self

        def remote(self, _number: int, event: Event) -> None:
            if isinstance(event, StageProgress):
                os.kill(os.getpid(), signal.SIGKILL)

    def perform(key: str, works: list[Any], number: int, part: Any, mailbox: Any, version: str) -> Any:
        from curator.workers.ray_pool import perform_part

        if number == 1 and _is_first(marker):
            mailbox = Fatal()
        return perform_part(key, works, number, part, mailbox, version)

    monkeypatch.setattr("curator.workers.ray_pool.perform_part", perform)
    project = curator.Project.open(place, ray="local")
    found = project.verify(runs=3, seeds=1, forgetting=True)
    assert marker.exists()
    assert [(run.subset, run.seed, run.measured_loss) for run in found.runs] == [
        (run.subset, run.seed, run.measured_loss) for run in expected.runs
    ]
    assert len(found.runs) == 3
    # The runs calibrate the estimates in their order, so equal stores give equal manifests.
    assert _manifest(project) == _manifest(here)
    assert not list((project.workspace.adapters / "verify").glob("*"))


def test_gradients_killed_driver_and_killed_actor_give_the_gradients_of_one_process(
    ready_away: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = curator.Project.open(shutil.copytree(ready_away, tmp_path / "here"))
    here.gradients()
    place = shutil.copytree(ready_away, tmp_path / "away")
    # The first driver dies when it has all parts of the first checkpoint, before it stores any.
    program = (
        "import os, signal\nfrom curator.gradients import away\n"
        "away._read_part = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = environment_with(tmp_path / "site", program)
    command = [*module_command("curator", "gradients", "-p", str(place), "--ray", cluster)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = sorted(place.rglob("part-*.parquet"))
    assert len(parts) > 1
    for path in parts[1:]:
        path.unlink()
    written: list[Path] = []
    write, marker = away._write_examples, tmp_path / "killed"

    def counted(path: Path, rows: Any) -> None:
        written.append(path)
        write(path, rows)

    class Dying(away.Computer):
        """Kill the first worker that gets the second file."""

        def __call__(self, path: Path) -> int:
            if int(path.stem) == away.PART_BATCHES and _is_first(marker):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(path)

    monkeypatch.setattr(away, "_write_examples", counted)
    monkeypatch.setattr(away, "Computer", Dying)
    events: list[Event] = []
    project = curator.Project.open(place, ray="local", reporter=Reporter(events.append))
    report = project.gradients()
    assert marker.exists()
    # The first part of the first checkpoint was there.
    assert len(written) == 2 * len(parts) - 1
    assert report.computed == here.gradients().examples * 2
    progress = [event.done for event in events if isinstance(event, StageProgress) and event.stage == "gradients"]
    assert progress == sorted(progress)
    assert _stored(project) == _stored(here)
    assert _manifest(project) == _manifest(here)
    assert not list(place.rglob("*.parquet"))
    assert "gradients" not in {kept.inputs["kind"] for kept in project.store.artifacts("rate")}


def test_check_killed_worker_gives_the_store_of_one_process(
    ready_away: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [shutil.copytree(ready_away, tmp_path / name, ignore=_WITHOUT_RESULTS) for name in ("here", "away")]
    for place in places:
        write_rows(place / "tasks" / "large.jsonl", pair_rows("large", 200))
    here = curator.Project.open(places[0])
    here.check()
    marker, workers = tmp_path / "killed", tmp_path / "workers"
    workers.mkdir()

    class Dying(ray_encoding.EncodeFile):
        """Kill the first worker that gets a second file."""

        def __call__(self, path: Path) -> int:
            own = workers / str(os.getpid())
            if own.exists() and _is_first(marker):
                os.kill(os.getpid(), signal.SIGKILL)
            own.touch()
            # The other worker has started before all files are done.
            while len(list(workers.iterdir())) < 2:
                time.sleep(0.05)
            return super().__call__(path)

    monkeypatch.setattr(ray_encoding, "EncodeFile", Dying)
    monkeypatch.setattr(ray_encoding, "_FILE_CHARACTERS", 1000)
    project = curator.Project.open(places[1], ray="local")
    project.check()
    assert marker.exists()
    assert len(stored_examples(here)["examples"]) == 12 + 3 * 8 + 200
    assert stored_examples(project) == stored_examples(here)
    assert not (places[1] / ".curator" / "encoding").exists()


def test_open_ray_local_twice_and_by_address_join_one_cluster(cluster: str) -> None:
    assert ray_cluster.connect("local").nodes == 1
    assert ray_cluster.connect(cluster).nodes == 1


def test_interrupted_race_frees_the_workers_and_resumes_to_the_manifest_of_one_process(
    ready_away: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    here = curator.Project.open(shutil.copytree(ready_away, tmp_path / "here"))
    expected = here.select(runs=2)
    place = shutil.copytree(ready_away, tmp_path / "away")
    curator.Project.open(place).select()
    marker = tmp_path / "waits"

    class Endless:
        """Send the first progress of a run, and then wait for ever."""

        def __init__(self, mailbox: Any) -> None:
            self.put, self._put = self, mailbox.put

        def remote(self, number: int, event: Event) -> None:
            self._put.remote(number, event)
            while isinstance(event, StageProgress):
                time.sleep(1)

    def perform(key: str, works: list[Any], number: int, part: Any, mailbox: Any, version: str) -> Any:
        from curator.workers.ray_pool import perform_part

        mailbox = Endless(mailbox) if _is_first(marker) else mailbox
        return perform_part(key, works, number, part, mailbox, version)

    def interrupt(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "verify":
            raise KeyboardInterrupt

    monkeypatch.setattr("curator.workers.ray_pool.perform_part", perform)
    with pytest.raises(KeyboardInterrupt):
        curator.Project.open(place, ray="local", reporter=Reporter(interrupt)).select(runs=2)
    assert marker.exists()
    until = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, "a worker still runs after the interrupt"
        time.sleep(0.1)
    project = curator.Project.open(place, ray="local")
    found = project.select(runs=2)
    assert found.estimated_loss == expected.estimated_loss
    assert _manifest(project) == _manifest(here)


def test_apply_of_two_selections_runs_side_by_side_and_gives_the_losses_of_one_process(
    ready_away: Path, cluster: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    place = shutil.copytree(ready_away, tmp_path / "project")
    here = curator.Project.open(place)
    here.select(include=["alpha"], name="first")
    here.select(exclude=["alpha"], name="second")
    project = curator.Project.open(place, ray="local", reporter=Reporter(events.append))
    report = project.apply_all(["first", "second"])
    begun = [event for event in events if isinstance(event, StageStarted) and event.stage == "apply"]
    assert [event.unit for event in begun] == ["steps"]
    assert all((adapter.adapter / "adapter_model.safetensors").is_file() for adapter in report.adapters)
    assert "fine-tune" not in {kept.inputs["kind"] for kept in here.store.artifacts("rate")}
    losses = [adapter.measured_loss for adapter in report.adapters]
    assert losses == [here.apply(name, fresh=True).measured_loss for name in ("first", "second")]


@needs_tmux
def test_terminal_interface_runs_stops_and_resumes_a_verification_on_the_cluster(
    ready_away: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import ray

    place = shutil.copytree(ready_away, tmp_path / "project")
    curator.Project.open(place).select()
    monkeypatch.setenv("CURATOR_RAY", cluster)
    # The terminal inherits the environment of this process.
    window: Tmux = request.getfixturevalue("tmux")
    window.open(place, "4")

    def measure() -> None:
        window.keys("V")
        window.until(lambda shown: "R measure" in shown)
        window.keys("R")
        window.until(lambda shown: "run a stage" in shown)
        window.keys("Enter")

    measure()
    window.until(lambda shown: re.search(r"▌verify +▶", shown))
    window.keys("g", "x")
    window.until(lambda shown: "y yes" in shown)
    window.keys("y")
    window.until(lambda shown: "interrupted" in shown)
    until = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, "a worker still runs after the job was stopped"
        time.sleep(0.1)
    measure()
    window.until(lambda shown: re.search(r"▌\w+ +✓ done .* verify --", shown), 240)
    window.quit()
    logs = [path.read_text() for path in (place / ".curator" / "runs").glob("*/events.jsonl")]
    assert sum("ray: 2 workers on 1 nodes" in text for text in logs) == 2


def test_ray_sbatch_starts_a_cluster_and_runs_its_command_there(ready_away: Path, tmp_path: Path) -> None:
    place = shutil.copytree(ready_away, tmp_path / "project")
    curator.Project.open(place).select()
    folder = tmp_path / "bin"
    folder.mkdir()
    # Slurm's programs are stand-ins for one node. Ray and curator are real.
    programs = {
        "scontrol": "echo one",
        "srun": 'while [[ "$1" == -* ]]; do [ "$1" = -w ] && shift; shift; done\n'
        'if [ "$1" = hostname ]; then echo 127.0.0.1; else exec "$@"; fi',
        "curator": f'exec {shlex.join(module_command("curator"))} "$@"',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"CURATOR_RAY_PORT": str(port), "CURATOR_RAY_WAIT": "5"}
    settings |= {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "2"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    paths = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment |= settings | {"PATH": os.pathsep.join(paths)}
    script = Path(__file__).parents[2] / "packaging" / "slurm" / "ray.sbatch"
    command = ["bash", str(script), "verify", "-p", str(place), "--runs", "2", "--seeds", "1", "--json"]
    # Programs of Ray outlive the script for a moment, so a pipe would not end with it.
    answer, log = tmp_path / "answer", tmp_path / "log"
    with answer.open("w") as out, log.open("w") as errors:
        done = subprocess.run(command, env=environment, stdout=out, stderr=errors, check=False, timeout=240)
    assert done.returncode == 0, log.read_text()
    assert "ray: 2 workers on 1 nodes" in log.read_text()
    assert len(json.loads(answer.read_text())["runs"]) == 2
    # The job ends its cluster.
    until = time.monotonic() + 60
    while any(f":{port}" in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < until, "Ray still runs after the job"
        time.sleep(0.2)
