"""Network access, file permissions, and secrets in output files."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MakeProject
from manifests import everything

from curator.data.sources import Source
from curator.data.task_rows import read_task

SECRETS = {
    "HF_TOKEN": "hf_" + "s3cr3tT0k3n" * 3,
    "AWS_SECRET_ACCESS_KEY": "aws" + "s3cr3tK3y" * 4,
    "WANDB_API_KEY": "wandb" + "s3cr3t" * 6,
    "HOME_GROWN": "my-own-s3cr3t",
}
STAGES = """
import sys
from hostile import run_cli
p = sys.argv[1]
for command in (
    ["select", "-p", p, "-q"],
    ["verify", "-p", p, "-q", "--runs", "1", "--seeds", "1"],
    ["export", "forward", "-p", p, "-o", p + "/out"],
    ["status", "-p", p],
):
    print(run_cli(*command).check(0))
# Whatever happened before, only a missing model is requested from the hub.
print(run_cli("train", "-p", p + "-of-the-hub", "-q").check(3))
"""
# Records every address that the process looks up or connects to.
NO_NETWORK = """
import socket, sys
asked = []
def hook(event, args):
    if event in ("socket.getaddrinfo", "socket.connect") and not isinstance(args[-1], (str, bytes)):
        asked.append((event, args))
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def unplugged() -> list[str]:
    """Return a command prefix that removes the network. Empty if the prefix needs missing rights."""
    command = ["unshare", "--net", "--"]
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else []


def test_commands_offline_write_only_to_project_without_secrets(
    make_project: MakeProject, tmp_path: Path, unplugged: list[str]
) -> None:
    folder = make_project(train={"epochs": 1})
    own = everything(folder)
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    hub = make_project("project-of-the-hub", model=folder / "model")
    config = (hub / "curator.toml").read_text()
    (hub / "curator.toml").write_text(config.replace('name_or_path = "model"', 'name_or_path = "owner/nothing"'))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))} | SECRETS
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    stages = STAGES.replace("# Whatever", "assert not asked, asked\n# Whatever")
    script = f"{NO_NETWORK}\n{stages}"
    done = subprocess.run(
        [*unplugged, sys.executable, "-c", script, str(folder)],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.umask(0o027),
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "is not a local folder and not in the cache, and the hub cannot be reached" in done.stdout
    # No caches in the home folder, no files in the current folder, and no changes to the user's files.
    assert everything(tmp_path / "home") == {}
    assert everything(tmp_path / "work") == {}
    apart = (".curator", "out", "curator-manifest.json")
    assert {name: held for name, held in everything(folder).items() if Path(name).parts[0] not in apart} == own
    made = [path for name in (".curator", "out", "curator-manifest.json") for path in _all(folder / name)]
    assert len(made) > 10
    for path in made:
        wanted = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == wanted, (path, oct(path.stat().st_mode))
    for path in (*made, *_all(hub)):
        content = path.read_bytes() if path.is_file() else b""
        for secret in SECRETS.values():
            assert secret.encode() not in content, path
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS.values())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_read_task_table_of_this_machine_asks_no_server(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.delenv("HF_UPDATE_DOWNLOAD_COUNTS", raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    # `datasets` reports a load by this session, and hides every error.
    monkeypatch.setattr(datasets.load, "get_session", lambda: asked.append("session"))
    table = pa.table({"prompt": ["a"], "completion": ["b"]})
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    assert [row.content for row in read_task(Source(name="t", files=(path,)))] == [{"prompt": "a", "completion": "b"}]
    assert asked == []


def _all(path: Path) -> list[Path]:
    return [path, *path.rglob("*")]


@pytest.mark.parametrize(
    ("given", "disabled"),
    [
        ({}, True),
        ({"HF_HUB_DISABLE_TELEMETRY": "0"}, False),
        ({"HF_HUB_DISABLE_TELEMETRY": "0", "DO_NOT_TRACK": "1"}, True),
    ],
)
def test_quiet_libraries_disables_telemetry_by_default(given: dict[str, str], disabled: bool) -> None:
    code = (
        "import sys; from curator.cli.main import _quiet_libraries; _quiet_libraries();"
        "from huggingface_hub import constants; sys.exit(not constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    names = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == (0 if disabled else 1)
