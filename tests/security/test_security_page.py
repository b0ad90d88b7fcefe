"""Each promise of SECURITY.md names tests, and the tests exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def _tables() -> list[list[list[str]]]:
    """Return the rows of each table of the page, with the row of names first."""
    blocks = re.findall(r"(?m)(?:^\|.*\n)+", PAGE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks]


def _tests() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_security_page_every_promise_names_existing_tests() -> None:
    tests, promises = _tests(), 0
    for names, _, *rows in _tables():
        if names[-1] != "test":
            continue
        for row in rows:
            promises += 1
            named = re.findall(r"`(test_\w+)`", row[-1])
            assert named, row[0]
            assert [name for name in named if name not in tests] == [], row[0]
    assert promises > 35


def test_security_page_tables_of_promises_have_column_of_tests() -> None:
    without = [names for names, *_ in _tables() if names[-1] != "test"]
    assert without == [["source", "trusted for"], ["who", "what"]], "only two tables make no promise"


def test_security_page_says_how_to_report() -> None:
    _, _, report = PAGE.partition("## Reporting a vulnerability")
    assert "Report a vulnerability" in report
    assert "private" in report
