"""Killed stages and concurrent processes: short versions of the stress tests."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STRESS = Path(__file__).parents[1] / "stress"


def run(script: str, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run a stress test and return its JSON document."""
    found = tmp_path / "found.json"
    command = [sys.executable, str(STRESS / script), "--json", str(found), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(found.read_text())
    return document


def test_stages_killed_and_repeated_give_same_results(tmp_path: Path) -> None:
    # tests/verify kills `verify`.
    stages = ("train", "gradients", "select", "export")
    rows = run("kills.py", tmp_path, "--moments", "1", "--work", str(tmp_path), "--stages", *stages)["rows"]
    assert len(rows) == len(stages)
    assert [row for row in rows if row["problems"]] == []
    assert any(row["code"] == -9 for row in rows), "at least one kill interrupted a stage"


def test_processes_concurrent_access_has_no_problems(tmp_path: Path, drawn_project: Callable[..., Path]) -> None:
    project = ("--project", str(drawn_project()))
    found = run("concurrency.py", tmp_path, "--seconds", "3", "--readers", "2", "--tuis", "1", *project)
    assert found["problems"] == []
    assert all(process["count"] > 0 for process in found["processes"].values())
