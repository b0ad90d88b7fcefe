"""Scripts for Slurm and Kubernetes: their syntax, and the commands that they start."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from curator.cli.app import app

PACKAGING = Path(__file__).parents[2] / "packaging"
# Programs of Slurm and Ray, and those that the scripts start. Each writes its command line to a file.
STAND_IN = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> "$CALLS"\n'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins of all programs first on the path, and return the file of their command lines."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {name: STAND_IN for name in ("ray", "curator", "torchrun")}
    programs["curator"] += 'echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$CALLS"\nexit "${CODE:-0}"\n'
    programs["scontrol"] = "#!/usr/bin/env bash\nprintf 'one\\ntwo\\nthree\\n'\n"
    # Removes the options of srun, and runs the rest.
    programs["srun"] = STAND_IN + 'while [[ "$1" == -* ]]; do [ "$1" = -w ] || [ "$1" = -x ] && shift; shift; done\n'
    programs["srun"] += 'if [ "$1" = hostname ]; then echo "10.0.0.1 10.0.0.2"; else "$@"; fi\n'
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name, value in {
        "CALLS": str(calls),
        "CURATOR_RAY_WAIT": "0.2",
        "CURATOR_RAY_LIMIT": "0",
        "SLURM_JOB_NODELIST": "n[1-3]",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "16")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    return calls


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(PACKAGING / "slurm" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_sbatch_scripts_have_valid_syntax() -> None:
    scripts = sorted((PACKAGING / "slurm").glob("*.sbatch"))
    assert len(scripts) == 2
    for script in scripts:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert done.stderr == ""


def test_ray_sbatch_starts_ray_on_every_node_and_the_command_on_the_first(programs: Path) -> None:
    done = _run("ray.sbatch", "verify", "-p", "a project", "--runs", "4")
    assert done.returncode == 0, done.stderr
    calls = programs.read_text().splitlines()
    heads = [call for call in calls if call.startswith("ray start --head")]
    assert len(heads) == 1
    assert "--node-ip-address=10.0.0.1 --port=6379 --num-cpus=16 --num-gpus=4 --include-dashboard=false" in heads[0]
    (others,) = [call for call in calls if call.startswith("ray start") and call not in heads]
    assert "--address=10.0.0.1:6379 --num-cpus=16 --num-gpus=4" in others
    assert any(call.startswith("srun --nodes=2 --ntasks=2 -x one") for call in calls)
    assert "curator verify -p a project --runs 4 --ray 10.0.0.1:6379" in calls
    assert "token 64 token" in calls


def test_ray_sbatch_failed_command_gives_its_exit_code(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "3")
    assert _run("ray.sbatch", "verify").returncode == 3


def test_one_node_sbatch_starts_one_process_for_each_gpu(programs: Path) -> None:
    done = _run("one-node.sbatch", "select", "--json")
    assert done.returncode == 0, done.stderr
    assert programs.read_text() == "torchrun --standalone --nproc-per-node=4 -m curator select --json\n"


def test_rayjob_is_valid_yaml_and_starts_a_valid_command() -> None:
    job: dict[str, Any] = yaml.safe_load((PACKAGING / "kubernetes" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "curator"
    command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    parsed = command.make_context(words[1], words[2:])
    assert parsed.params["ray"] == "auto"
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        names = {variable["name"]: variable for variable in container["env"]}
        assert names["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in names["RAY_AUTH_TOKEN"]["valueFrom"]
        assert container["volumeMounts"] == [{"name": "project", "mountPath": "/project"}]
