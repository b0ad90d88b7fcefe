"""A poor environment: each command works or exits with a clear message and a documented code, never as a bug."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeProject, environment_with

from curator.cli.memory import is_out_of_memory

HOMELESS = """
import pwd
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
"""
WITHOUT_TEMPORARY_FOLDER = "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"


def run(
    *arguments: str | Path,
    redirect: str = "",
    environment: dict[str, str] | None = None,
    limit: Callable[[], None] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run curator by a shell that redirects streams."""
    words = [sys.executable, "-P", "-m", "curator", *map(str, arguments)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirect}', "sh", *words],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment or os.environ,
        preexec_fn=limit,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "bug in curator" not in done.stderr, done.stderr
    return done


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    return make_project("projekt-é")


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["table", "json"])
def test_check_closed_output_is_refused(folder: Path, option: list[str]) -> None:
    """Otherwise the store would get the number of standard output, and the table would be written into it."""
    done = run("check", "-p", folder, "-q", *option, redirect=">&-")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: standard output is closed")
    assert not (folder / ".curator").exists()


def test_check_closed_errors_and_input_work(folder: Path) -> None:
    done = run("check", "-p", folder, "--json", redirect="<&- 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["project"] == "projekt-é"


def test_check_ascii_output_is_replaced_or_escaped(folder: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run("check", "-p", folder, "-q", environment=environment)
    assert done.returncode == 0
    assert "projekt-?" in done.stdout
    done = run("check", "-p", folder, "-q", "--json", environment=environment)
    assert done.returncode == 0
    assert json.loads(done.stdout)["project"] == "projekt-é"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_help_full_disk_exits_with_code_3() -> None:
    done = run("--help", redirect=">/dev/full")
    assert done.returncode == 3
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no limit of virtual memory")
@pytest.mark.parametrize("megabytes", [400, 1000])
@pytest.mark.parametrize("command", ["check", "tui"])
def test_command_small_memory_names_the_limit(folder: Path, megabytes: int, command: str) -> None:
    """`ulimit -v` of 600 MB crashed the interpreter without a message."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = run(command, "-p", folder, limit=limit)
    assert done.returncode == 3
    assert "the limit of virtual memory is" in done.stderr
    assert "ulimit -v" in done.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (ValueError("other"), False),
    ],
)
def test_is_out_of_memory_knows_the_words_of_libraries(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
    outer = RuntimeError("outer")
    outer.__cause__ = error
    assert is_out_of_memory(outer) == expected


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_commands_without_usable_home_work(folder: Path, tmp_path: Path, home: str) -> None:
    environment = environment_with(tmp_path / "site", HOMELESS if home == "none" else "")
    for name in [name for name in environment if name.startswith(("HF_", "XDG_", "USER", "LOGNAME"))]:
        del environment[name]
    environment |= {"HF_HUB_OFFLINE": "1"}
    environment.pop("HOME", None)
    if home == "read-only":
        # No process can create files below this path.
        environment["HOME"] = "/proc/self/nowhere"
    for command in (["select", "-p", folder, "-q"], ["status", "-p", folder]):
        done = run(*command, environment=environment)
        assert done.returncode == 0, done.stderr
    done = run("export", folder / "curator-manifest.json", "-o", tmp_path / "out", environment=environment)
    assert done.returncode == 0, done.stderr


def test_commands_without_temporary_folder_exit_with_a_message(folder: Path, tmp_path: Path) -> None:
    environment = environment_with(tmp_path / "site", WITHOUT_TEMPORARY_FOLDER)
    done = run("select", "-p", folder, "-q", environment=environment)
    assert done.returncode in (0, 3), done.stderr
    if done.returncode:
        assert "No usable temporary directory" in done.stderr
