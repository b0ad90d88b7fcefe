"""Change the mathematics and the manifest line by line, and check that a test fails for each change.

    pip install mutmut
    python tests/stress/mutation.py --json FILE [--work DIR] [--modules estimate select projection manifest]

mutmut changes a copy of the tree. The results list each surviving change with its diff. For a change that no test can
see, the results give the reason. Run the same command with the same `--work` to resume. It tests survivors again.
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

ROOT = Path(__file__).parents[2]
MODULES = {
    "estimate": "curator/estimate/estimator.py",
    "select": "curator/select/search.py",
    "projection": "curator/gradients/projection.py",
    "manifest": "curator/select/manifest.py",
}
TESTS = (
    "tests/estimate",
    "tests/select/test_search.py",
    "tests/select/test_manifest.py",
    "tests/select/test_mixture.py",
    "tests/gradients/test_projection.py",
)
_COPIED = ("curator", "tui", "tests", "benchmarks", "sample_data", "pyproject.toml", "README.md", "LICENSE")
_KILLED = ("killed", "timeout", "segfault")
# Patterns of changed lines that no test can see, each with the reason. The first matching pattern counts.
EXPLAINED = {
    r'encoding=(None|"UTF-8")': "the machine's own encoding is UTF-8, or the same name written otherwise",
    r"astype\(None\)": "None is float64 too",
    r"\.to\(None\)|device=None|arange\(dim, \)|, size, None\)": "there is one device here, and one kind of number",
    r"strict=(None|False)|, \)": "zip's guard against lengths that are equal by construction",
    r"/ signs\[": "to divide by a sign is to multiply by it",
    r"rows \* dim\), 2\)": "how much is turned at once changes no sum",
    r"reshape\(-2\)": "NumPy takes any negative number for the length that is left",
    r'model_dump\(mode=(None|"XXjsonXX"|"JSON")': "all that a manifest holds is of JSON's kinds already",
    r"ensure_ascii=None": "as false as False",
    r"_with\(.*, None\)": "as false as False",
    r"_Search\(estimator, None": "the search uses the problem in the scored methods only",
    r"single_losses \+ loss": "the same number added to each change alters no order",
    r"chunk: int = 257": "how many are estimated at once changes no estimate",
    r"<= share": "a drawn number equals the share once in 2⁵³ draws",
    r"include_url=(True|None)": "of the error only place and message are used",
    r"ThreadPoolExecutor": "how many threads there are, and their names, change no estimate",
    r"^\+\s+break$": "what stands in a hub does so with all of its files",
    r"losses\[best\] >= loss - least|gain >= np": "a difference that equals the least to the last bit",
}


def make_copy(work: Path, modules: list[str]) -> Path:
    """Copy the working tree, and configure mutmut for some modules.

    Args:
        work: Folder for the copy.
        modules: Keys of `MODULES`.
    """
    folder = work / "tree"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".curator")
            shutil.copytree(source, folder / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / name)
    config = {
        "source_paths": ["curator"],
        "only_mutate": [MODULES[module] for module in modules],
        "also_copy": [name for name in _COPIED if name != "curator"],
        # Skip the slowest test: it measures how good a projection is, not whether it is correct.
        "pytest_add_cli_args": ["-n0", "-p", "no:cacheprovider", "-W", "ignore", "-k", "not inner_products"],
        "pytest_add_cli_args_test_selection": list(TESTS),
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(text + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mutmut(folder: Path, *arguments: str, capture: bool = True) -> str:
    """Run mutmut in the copy, and return its output."""
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


def states_of(folder: Path) -> dict[str, str]:
    """Return the state of each mutant."""
    if not (folder / "mutants").exists():
        return {}
    return dict(re.findall(r"^\s*(\S+): (.+)$", mutmut(folder, "results", "--all", "true"), re.MULTILINE))


def survivor(folder: Path, name: str, state: str) -> dict[str, str]:
    """Describe a surviving mutant by its changed lines and the known reason for its survival."""
    lines = mutmut(folder, "show", name).splitlines()
    changed = [line for line in lines if re.match(r"[-+](?![-+])", line)]
    return {"name": name, "state": state, "why": reason(changed), "diff": "\n".join(changed)}


def reason(changed: list[str]) -> str:
    """Return the reason why no test can see a change, or an empty text."""
    new = [line for line in changed if line.startswith("+")]
    return next((why for pattern, why in EXPLAINED.items() if any(re.search(pattern, line) for line in new)), "")


def main() -> None:
    """Mutate, test, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="write the results to FILE")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the mutants in DIR; default: a temporary folder")
    parser.add_argument(
        "--modules", nargs="+", default=[*MODULES], choices=[*MODULES], help="mutate these modules (default: all)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="number of processes (default: CPU cores)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_copy(arguments.work or Path(temporary), arguments.modules)
        lived = [name for name, state in states_of(folder).items() if state not in (*_KILLED, "not checked")]
        for names in ([], lived) if lived else ([],):
            mutmut(folder, "run", "--max-children", str(arguments.processes), *names, capture=False)
        states = states_of(folder)
        modules: dict[str, Any] = {}
        for module in arguments.modules:
            mine = {
                name: state
                for name, state in states.items()
                if name.startswith(MODULES[module].removesuffix("py").replace("/", "."))
            }
            counts = Counter("killed" if state in _KILLED else state for state in mine.values())
            lived = [name for name, state in mine.items() if state not in (*_KILLED, "not checked")]
            survivors = [survivor(folder, name, mine[name]) for name in lived]
            counts["explained"] = explained = sum(bool(found["why"]) for found in survivors)
            share = counts["killed"] / max(len(mine) - counts["not checked"], 1)
            modules[module] = {"mutants": len(mine), **counts, "killed_share": round(share, 3), "survivors": survivors}
            killed = f"{len(mine)} mutants, {share:.1%} killed"
            print(f"{module:10} {killed}, {len(survivors)} survive, {explained} of them explained")
    document = {
        "command": "python tests/stress/mutation.py --json FILE",
        "versions": {name: version(name) for name in ("mutmut", "pytest", "numpy")},
        "tests": list(TESTS),
        "modules": modules,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
