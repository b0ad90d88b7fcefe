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
            "from curator.cli.main import main\nsys.argv = ['curator', '--help']\ntry: main()\nexcept SystemExit: pass",
            {"torch", "textual", "duckdb", "transformers", "datasets", "pyarrow", "numpy", "pydantic"},
        ),
        (
            "import curator.select.selections, curator.select.search, curator.project.project, curator.project.status",
            {"torch", "transformers", "peft", "datasets", "accelerate", "textual", "scipy"},
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
    assert f"## curator {command}\n" in (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")


BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "commands"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"}
BANNED_WORDS = {"shell", "allow_pickle"}
EXECUTING = {"execute", "executemany", "sql", "query"}
# Verbs of ours of the same name, which hand SQL on to the one module that takes any.
OURS = {"opened.sql", "self.store.query"}
# SQL that is no literal, by the end of the call, and why it may be.
KNOWN_SQL = {
    # The views, which are literals, and the query of others, which test_sql.py attacks.
    "curator/workspace/store/sql.py": (".execute(view)", ".sql(sql)"),
    # Questions that are literals, each asked in turn.
    "curator/workspace/store/check.py": (".execute(query)",),
    # A table's name, which can be no parameter, is in quotes: that of a damaged store may be any.
    "curator/workspace/store/salvage.py": (
        "'SELECT max(rowid) FROM ' + quoted)",
        "'SELECT * FROM ' + quoted + ' LIMIT 0')",
        "'SELECT * FROM ' + quoted + ' WHERE rowid BETWEEN ? AND ?', params=[start, end])",
    ),
}


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tui").rglob("*.py"))], ids=lambda path: path.name)
def test_nothing_dangerous_is_called(path: Path) -> None:
    found = dangers(path.read_text(encoding="utf-8"))
    known = KNOWN_SQL.get(str(path.relative_to(ROOT)), ())
    assert [line for line in found if not line.endswith(known)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from yaml import load",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "import a, marshal.x",
        "eval(x)",
        "os.system('x')",
        "__import__('x')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "subprocess.run('x', shell=True)",
        "np.load(f, allow_pickle=True)",
        "subprocess.Popen('ls')",
        "subprocess.run(f'ls {x}')",
        "c.execute(f'SELECT {x}')",
        "c.execute('SELECT ' + x)",
        "c.execute('SELECT %s' % x)",
        "c.sql(query, params=[x])",
        "insert(c, text, table)",
    ],
)
def test_what_is_dangerous_is_found(code: str) -> None:
    assert dangers(code)


def dangers(code: str) -> list[str]:
    """Calls that run what is foreign: code, pickles, shells, and SQL that is put together."""
    tree = ast.parse(code)
    # The one function that passes a statement on; those that call it are looked at instead.
    passing = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "insert"]
    passed = {id(inner) for function in passing for inner in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        wrong = any(module.partition(".")[0] in BANNED_MODULES for module in modules)
        if isinstance(node, ast.Call):
            name, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            wrong = name in BANNED_CALLS or bool(words.keys() & BANNED_WORDS)
            wrong |= name == "torch.load" and words.get("weights_only") != "True"
            # A command is a list of words, which no shell reads.
            wrong |= name.startswith("subprocess.") and bool(node.args) and not isinstance(node.args[0], ast.List)
            statement = None
            if name == "insert" and len(node.args) > 1:
                statement = node.args[1]
            elif (
                isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTING and name not in OURS and node.args
            ):
                statement = node.args[0]
            # SQL takes values as parameters only: a statement is a literal.
            literal = isinstance(statement, ast.Constant) and isinstance(statement.value, str)
            wrong |= statement is not None and not literal and id(node) not in passed
        if isinstance(node, ast.ImportFrom):
            wrong |= node.module == "yaml"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            # The other ways of reading YAML make objects, or call functions, that the text names.
            wrong = node.attr not in {"safe_load", "YAMLError"}
        if wrong:
            found.append(f"{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    return found
