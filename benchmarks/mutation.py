"""Would the tests notice? Every small change of the mathematics and the manifest, each against the tests that run it.

    pip install mutmut
    python benchmarks/mutation.py --json FILE [--work DIR] [--modules estimate select projection manifest]

A copy of the tree is mutated by mutmut; the same command again goes on where it was. A mutant that no test kills is
kept with its diff. `mutation_explained.json` beside the results says why some of them change nothing that can be seen.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXPLAINED = ROOT / "benchmarks" / "results" / "mutation_explained.json"
MODULES = ("estimate", "select", "projection", "manifest")
TESTS = ("estimate", "select", "projection", "manifest", "whatif", "curve", "mixture", "calibration", "statistics")
_COPIED = ("curator", "tui", "tests", "benchmarks", "sample_data", "pyproject.toml", "README.md", "LICENSE")
_KILLED = ("killed", "timeout", "segfault")


def make_copy(work: Path, modules: list[str]) -> Path:
    """A copy of the tree that mutmut is configured for."""
    folder = work / "tree"
    if not folder.exists():
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".curator"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
    config = {
        "source_paths": ["curator"],
        "only_mutate": [f"curator/{module}.py" for module in modules],
        "also_copy": [name for name in _COPIED if name != "curator"],
        "pytest_add_cli_args": ["-n0", "-p", "no:cacheprovider", "-W", "ignore"],
        "pytest_add_cli_args_test_selection": [f"tests/test_{name}.py" for name in TESTS],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(text + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mutmut(folder: Path, *arguments: str, capture: bool = True) -> str:
    """Run mutmut in the copy; what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    return done.stdout or ""


def main() -> None:
    """Mutate, test, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the mutants; default: a temporary folder")
    parser.add_argument("--modules", nargs="+", default=list(MODULES), choices=MODULES)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_copy(arguments.work or Path(temporary), arguments.modules)
        mutmut(folder, "run", "--max-children", str(arguments.processes), capture=False)
        states = dict(re.findall(r"^\s*(\S+): (.+)$", mutmut(folder, "results", "--all", "true"), re.MULTILINE))
        explained = json.loads(EXPLAINED.read_text(encoding="utf-8")) if EXPLAINED.exists() else {}
        modules: dict[str, Any] = {}
        for module in arguments.modules:
            mine = {name: state for name, state in states.items() if name.startswith(f"curator.{module}.")}
            counts = Counter("killed" if state in _KILLED else state for state in mine.values())
            survivors = [
                {"name": name, "state": state, "why": explained.get(name, ""), "diff": mutmut(folder, "show", name)}
                for name, state in mine.items()
                if state not in _KILLED
            ]
            share = counts["killed"] / max(len(mine), 1)
            modules[module] = {"mutants": len(mine), **counts, "killed_share": round(share, 3), "survivors": survivors}
            print(f"{module:10} {len(mine)} mutants, {share:.1%} killed, {len(survivors)} live", flush=True)
    document = {
        "command": "python benchmarks/mutation.py --json FILE",
        "versions": {name: version(name) for name in ("mutmut", "pytest", "numpy")},
        "tests": [f"tests/test_{name}.py" for name in TESTS],
        "modules": modules,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
