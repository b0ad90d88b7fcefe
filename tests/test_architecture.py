"""Rules for the whole code: the direction of imports, light imports, help of commands, and dangerous calls."""

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
    """Return the top-level modules that a new interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return set(done.stderr.split())


def _program(name: str) -> str:
    """Return the path of a program in the interpreter's environment, which may be inactive."""
    return str(Path(sys.executable).with_name(name))


def test_lint_imports_of_the_project_keeps_every_contract() -> None:
    command = [_program("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import curator", {"torch", "textual", "duckdb", "pydantic", "typer", "numpy", "rich"}),
        (
            "from curator.cli.main import main\nsys.argv = ['curator', '--help']\ntry: main()\nexcept SystemExit: pass",
            {"torch", "textual", "duckdb", "transformers", "datasets", "pyarrow", "numpy", "pydantic"},
        ),
        (
            "import curator.select.selections, curator.select.search, curator.project.project, curator.project.status",
            {"torch", "transformers", "peft", "datasets", "accelerate", "textual", "scipy"},
        ),
    ],
)
def test_import_of_light_modules_loads_no_heavy_package(code: str, unwanted: set[str]) -> None:
    loaded = _loaded(code)
    assert "curator" in loaded
    assert not loaded & unwanted


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help_has_example_and_reference_page(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "curator", command, "--help"], capture_output=True, text=True, check=True
    )
    assert "Example: " in done.stdout
    assert f"## curator {command}\n" in (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")


# Dangers that ruff does not find. Its rules S and TID251 find the others: `test_ruff_dangerous_code_is_refused`.
BANNED_CALLS = {"compile", "__import__"}
BANNED_WORDS = {"allow_pickle"}
# Walks that end with a RecursionError in a deep folder. `curator.core.folders` has others.
WALKS = {"rglob", "rmtree"}
EXECUTING = {"execute", "executemany", "sql", "query"}
# Functions of curator with such a name. They pass SQL on to the only module that accepts any SQL.
OURS = {"opened.sql", "self.store.query"}
# Permitted calls, such as SQL that is not a literal: the end of each call, and the reason.
KNOWN = {
    # It catches the RecursionError.
    "curator/core/folders.py": ("shutil.rmtree(folder, ignore_errors=True)",),
    # The views are literals. The user's query runs in a sandbox, which test_sql.py attacks.
    "curator/workspace/store/sql.py": (".execute(view)", ".sql(sql)"),
    # A loop over queries that are literals.
    "curator/workspace/store/check.py": (".execute(query)",),
    # A table's name cannot be a parameter. It is quoted, because a damaged store may contain any name.
    "curator/workspace/store/salvage.py": (
        "'SELECT max(rowid) FROM ' + quoted)",
        "'SELECT * FROM ' + quoted + ' LIMIT 0')",
        "'SELECT * FROM ' + quoted + ' WHERE rowid BETWEEN ? AND ?', params=[start, end])",
    ),
}


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tui").rglob("*.py"))], ids=lambda path: path.name)
def test_source_file_calls_nothing_dangerous(path: Path) -> None:
    found = dangers(path.read_text(encoding="utf-8"))
    known = KNOWN.get(str(path.relative_to(ROOT)), ())
    assert [line for line in found if not line.endswith(known)] == []


@pytest.mark.parametrize(
    "code",
    [
        "__import__('x')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "subprocess.Popen('ls')",
        "subprocess.run(f'ls {x}')",
        "c.execute(f'SELECT {x}')",
        "c.execute('SELECT ' + x)",
        "c.execute('SELECT %s' % x)",
        "c.sql(query, params=[x])",
        "insert(c, text, table)",
        "folder.rglob('*')",
        "shutil.rmtree(folder)",
    ],
)
def test_dangers_dangerous_code_is_found(code: str) -> None:
    assert dangers(code)


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle", "TID251"),
        ("import cloudpickle", "TID251"),
        ("from joblib import load", "TID251"),
        ("import marshal", "TID251"),
        ("import shelve", "TID251"),
        ("import dill", "TID251"),
        ("import pandas\npandas.read_pickle(path)", "S301"),
        ("from yaml import load", "TID251"),
        ("import yaml\nyaml.load(text)", "S506"),
        ("import yaml\nyaml.unsafe_load(text)", "TID251"),
        ("import yaml\nyaml.full_load(text)", "TID251"),
        ("eval(text)", "S307"),
        ("exec(text)", "S102"),
        ("import os\nos.system(text)", "S605"),
        ("import os\nos.popen(text)", "S605"),
        ("import os\nos.execvp(text, [text])", "S606"),
        ("import subprocess\nsubprocess.getoutput(text)", "S605"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "S602"),
        ("import subprocess\nsubprocess.run([text])", "S603"),
        ("connection.execute(f'SELECT {text} FROM t')", "S608"),
    ],
)
@pytest.mark.parametrize("folder", ["curator", "tui"])
def test_ruff_dangerous_code_is_refused(code: str, rule: str, folder: str) -> None:
    """The project's configuration of ruff applies these rules to both packages."""
    command = [_program("ruff"), "check", "--no-cache", "--output-format", "concise", "--stdin-filename"]
    done = subprocess.run(
        [*command, f"{folder}/snippet.py", "-"], cwd=ROOT, input=code, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f": {rule} " in done.stdout


@pytest.mark.parametrize("code", ["yaml.safe_load(text)", "yaml.safe_dump(text)", "yaml.dump(text, Dumper=Safe)"])
def test_ruff_safe_yaml_is_allowed(code: str) -> None:
    command = [_program("ruff"), "check", "--no-cache", "--select", "S,TID251", "--stdin-filename"]
    done = subprocess.run(
        [*command, "curator/snippet.py", "-"],
        cwd=ROOT,
        input=f"import yaml\n{code}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not dangers(code)


def test_ruff_security_rules_find_nothing_in_both_packages() -> None:
    command = [_program("ruff"), "check", "--no-cache", "--select", "S,TID251", "--ignore", "S101"]
    done = subprocess.run([*command, "curator", "tui"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def dangers(code: str) -> list[str]:
    """List calls that run code of others, and SQL statements that are not literals.

    Args:
        code: Source of a module.

    Returns:
        Line and text of each call.
    """
    tree = ast.parse(code)
    # Only `insert` passes a statement on. The statements of its callers are checked instead.
    passing = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "insert"]
    passed = {id(inner) for function in passing for inner in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        wrong = False
        if isinstance(node, ast.Call):
            name, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            wrong = name in BANNED_CALLS or bool(words.keys() & BANNED_WORDS)
            wrong |= isinstance(node.func, ast.Attribute) and node.func.attr in WALKS
            wrong |= name == "torch.load" and words.get("weights_only") != "True"
            # A command must be a list, which no shell interprets.
            wrong |= name.startswith("subprocess.") and bool(node.args) and not isinstance(node.args[0], ast.List)
            statement = None
            if name == "insert" and len(node.args) > 1:
                statement = node.args[1]
            elif (
                isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTING and name not in OURS and node.args
            ):
                statement = node.args[0]
            # Values belong in parameters, so that every statement is a literal.
            literal = isinstance(statement, ast.Constant) and isinstance(statement.value, str)
            wrong |= statement is not None and not literal and id(node) not in passed
        if wrong:
            found.append(f"{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    return found
