"""What holds for the code as a whole: direction of imports, what is imported when, what is never used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from curator.cli.app import app

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "curator").rglob("*.py"))
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return set(done.stderr.split())


def test_imports_go_one_way() -> None:
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import curator", {"torch", "textual", "duckdb", "pydantic", "typer", "numpy", "rich"}),
        (
            "from curator.cli import main\nsys.argv = ['curator', '--help']\ntry: main()\nexcept SystemExit: pass",
            {"torch", "textual", "duckdb", "transformers", "datasets", "pyarrow", "numpy", "pydantic"},
        ),
        (
            "import curator.answers, curator.select, curator.project, curator.status",
            {"torch", "transformers", "peft", "datasets", "accelerate", "textual"},
        ),
    ],
)
def test_what_is_slow_is_imported_late(code: str, unwanted: set[str]) -> None:
    loaded = _loaded(code)
    assert "curator" in loaded
    assert not loaded & unwanted


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "curator", command, "--help"], capture_output=True, text=True, check=True
    )
    assert "Example: " in done.stdout
    assert f"curator {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


BANNED = {"eval", "exec", "pickle", "marshal", "os.system", "shell"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_dangerous_is_called(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & BANNED
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in BANNED | {"yaml"}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            # The other ways of reading YAML make objects, or call functions, that the text names.
            assert node.attr in {"safe_load", "YAMLError"}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in BANNED | {"torch.load"}
            assert not [word for word in node.keywords if word.arg == "shell"]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "execute":
            # SQL takes values as parameters only.
            assert not isinstance(node.args[0], ast.JoinedStr), f"{path}:{node.lineno}"
