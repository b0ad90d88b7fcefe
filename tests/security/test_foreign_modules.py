"""Python files of a project never shadow modules: no command of curator imports them."""

import ast
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import pair_rows, write_rows
from served import Served, serving

from curator.core.interpreters import module_command
from curator.workspace.job_log import read_jobs
from curator.workspace.jobs import launch

ROOT = Path(__file__).parents[2]
# Modules that curator, its libraries or the start of Python import.
SHADOWS = ("duckdb", "torch", "multiprocessing", "typing", "textual", "numpy", "psutil", "tui", "json")


@pytest.fixture
def hostile(tmp_path: Path, tiny_llama_folder: Path) -> Path:
    """Return a project with Python files that have the names of modules. Each creates the file `pwned` when it runs."""
    folder = tmp_path / "project"
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = {json.dumps(str(tiny_llama_folder))}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'a').write('{name} ')\n")
    return folder


@pytest.fixture
def pwned(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pwned"
    yield path
    assert not path.exists(), f"modules of the project ran: {path.read_text()}"


def test_serve_project_with_shadowing_modules_imports_none(hostile: Path, pwned: Path) -> None:
    with serving(hostile, cwd=hostile) as server:

        async def main() -> None:
            async with Served(server) as session:
                await session.until_text("target", "tasks")

        asyncio.run(main())


def test_launch_project_with_shadowing_modules_imports_none(hostile: Path, pwned: Path) -> None:
    runs = hostile / ".curator" / "runs"
    job = launch(runs, ["check", "-p", str(hostile)], cwd=hostile)
    deadline = time.monotonic() + 60
    while (record := next(job_ for job_ in read_jobs(runs) if job_.id == job)).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert record.state == "done"


def test_check_store_project_with_shadowing_modules_imports_none(hostile: Path, pwned: Path) -> None:
    for arguments in (["check"], ["check", "--store"]):
        command = [*module_command("curator", *arguments), "-p", str(hostile)]
        done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_main_without_safe_path_imports_no_library_of_project(hostile: Path, pwned: Path) -> None:
    """Without `-P`, Python itself searches the working folder. curator removes the folder before it imports more."""
    for name in ("typing", "json", "tui"):
        (hostile / f"{name}.py").unlink()
    command = [sys.executable, "-m", "curator", "check", "-p", str(hostile)]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_main_child_of_library_imports_no_module_of_project(hostile: Path, pwned: Path) -> None:
    """Libraries start interpreters too, for example the resource tracker of `multiprocessing`."""
    program = (
        "import contextlib, multiprocessing, os, sys\n"
        "from curator.cli.main import main\n"
        "sys.argv = ['curator', '--version']\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=os.getcwd)\n"
        "    child.start()\n    child.join()\n    sys.exit(child.exitcode)\n"
    )
    script = hostile.parent / "start.py"
    script.write_text(program)
    # Like the program `curator`, the script does not have the working folder on its path.
    done = subprocess.run([sys.executable, str(script)], cwd=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LAUNCHERS = {
    "torchrun": ["--nproc_per_node", "1"],
    "accelerate": ["launch", "--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"],
}


@pytest.mark.parametrize(("launcher", "variable"), [("torchrun", ""), ("torchrun", "1"), ("accelerate", "1")])
def test_launcher_as_documented_imports_no_module_of_project(
    hostile: Path, pwned: Path, launcher: str, variable: str
) -> None:
    """The documented line sets PYTHONSAFEPATH. Without the variable, the modules `typing` and `json` would run."""
    if not variable:
        for name in ("typing", "json", "tui"):
            (hostile / f"{name}.py").unlink()
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
    program = shutil.which(launcher, path=str(Path(sys.executable).parent))
    assert program is not None
    options = [*LAUNCHERS[launcher], *(["--master_port", str(port)] if launcher == "torchrun" else [])]
    done = subprocess.run(
        [program, *options, "-m", "curator", "check", "-p", str(hostile)],
        cwd=hostile,
        env=os.environ | ({"PYTHONSAFEPATH": variable} if variable else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- the rule ------------------------------------------------------------------------------------------------------

HELPER = ROOT / "curator" / "core" / "interpreters.py"
# Programs other than Python, by the file that starts them.
OTHER_PROGRAMS = {
    "tui/background/machine.py": "[self._smi, *_SMI_QUERY]",
    # The words of the user's own configuration.
    "curator/metrics/command.py": "[program, *self._words[1:]]",
    # `serve_tui` makes this command by `module_command`.
    "curator/cli/peer_session.py": "*self._command",
}
STARTING = re.compile(
    r"(subprocess\.\w+|(asyncio\.)?create_subprocess_\w+|os\.(exec|spawn|posix_spawn)\w*|pty\.\w+"
    r"|multiprocessing\.\w+|(\w+\.)?ProcessPoolExecutor)"
)


def unsafe_starts(code: str, name: str = "") -> list[str]:
    """List the calls of a module that start a process otherwise than by `module_command`."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable":
            found.append(f"{node.lineno}: sys.executable")
        if isinstance(node, ast.ImportFrom) and node.module in ("subprocess", "multiprocessing", "sys"):
            wrong = [word.name for word in node.names if word.name in ("run", "Popen", "Process", "Pool", "executable")]
            found += [f"{node.lineno}: {node.module}.{word}" for word in wrong]
        if isinstance(node, ast.Call) and STARTING.fullmatch(ast.unparse(node.func)) and node.args:
            words = ast.unparse(node.args[0])
            if "*module_command(" not in words and words != OTHER_PROGRAMS.get(name):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_packages_start_interpreters_only_by_helper() -> None:
    found = {}
    for package in ("curator", "tui"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path != HELPER:
                name = path.relative_to(ROOT).as_posix()
                found[name] = unsafe_starts(path.read_text(encoding="utf-8"), name)
    assert {name: starts for name, starts in found.items() if starts} == {}


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run([sys.executable, '-m', 'curator'])",
        "subprocess.Popen(['python', '-m', 'curator'])",
        "asyncio.create_subprocess_exec('python3', '-m', 'curator')",
        "asyncio.create_subprocess_shell(command)",
        "os.execv(path, [path])",
        "from subprocess import Popen",
        "from sys import executable",
        "shlex.join([sys.executable, '-m', 'curator'])",
    ],
)
def test_unsafe_starts_other_start_is_found(code: str) -> None:
    assert unsafe_starts(code)


def test_documented_commands_with_module_set_safe_path() -> None:
    texts = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    texts += [*(ROOT / "curator").rglob("*.py"), *(ROOT / "tui").rglob("*.py")]
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"-m curator\b", line)
    ]
    assert len(lines) > 4
    assert [line for line in lines if not re.search(r"PYTHONSAFEPATH=1 |python3? -P -m curator", line)] == []
