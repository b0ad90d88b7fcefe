"""An assistant of `curator mcp` sends hostile arguments."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import curator
from curator.cli.assistant_tools import AssistantTools, explained
from curator.core.errors import ConfigError, CuratorError
from curator.select.manifest import MANIFEST_NAME


@pytest.fixture
def project(drawn_project: Callable[..., Path]) -> Path:
    """Return a project with estimates and without a selection."""
    return drawn_project()


@pytest.mark.parametrize("allow_runs", [False, True])
def test_assistant_folder_that_programs_trust_is_refused(project: Path, allow_runs: bool) -> None:
    """Files in a hidden folder can be hooks and workflows."""
    tools = AssistantTools(project, allow_runs=allow_runs)
    for folder in (".git/hooks", ".github/workflows", "out/.hidden", ".curator", "."):
        with pytest.raises(ConfigError, match="not a folder for exports"):
            tools.export("x", folder=folder)
    assert not (project / ".git").exists()


def test_assistant_impossible_folder_is_refused(project: Path) -> None:
    tools = AssistantTools(project, allow_runs=True)
    (project / "loop").symlink_to(project / "loop")
    for folder in ("\ud800", "a\0b"):
        with pytest.raises(ConfigError, match="outside the project"):
            tools.export("x", folder=folder)
    for folder in ("loop/out", "x" * 5000):
        with pytest.raises((CuratorError, OSError)):
            tools.export("x", folder=folder)


@pytest.mark.parametrize("name", ["k", "max_tokens", "max_examples"])
@pytest.mark.parametrize("value", [-1, 2**60, 10**5000, float("nan")], ids=["negative", "large", "digits", "nan"])
def test_assistant_number_out_of_range_is_refused(project: Path, name: str, value: float) -> None:
    limits: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"{name} is out of range"):
        AssistantTools(project, allow_runs=False).select(**limits)


def test_assistant_too_many_subsets_are_refused(project: Path) -> None:
    tools = AssistantTools(project, allow_runs=False)
    with pytest.raises(ConfigError, match="too many subsets: 100,000") as refused:
        tools.estimate([[]] * 100_000)
    assert refused.value.hint == "Ask for at most 1,000 subsets in one call."
    assert len(tools.estimate([[], []])["estimates"]) == 2


def test_assistant_hostile_names_are_values(project: Path) -> None:
    """A name can hold any character. It reads no file, and answers hold it cleaned."""
    tools = AssistantTools(project, allow_runs=True)
    name = "a\0b\nc\x1b[31m\u202e"
    assert tools.select(name=name, k=2)["name"] == "a\ufffdb\nc\ufffd[31m\ufffd"
    assert tools.export(name, folder="out")["dry_run"] is False
    assert "\x1b" not in json.dumps(tools.status(), ensure_ascii=False)
    for unknown in ("\0", "\ud800", "../x", "/etc/passwd\0.json", "x" * 5000):
        with pytest.raises(CuratorError):
            tools.select(include=[unknown])
        with pytest.raises(CuratorError):
            tools.explain(unknown)
        with pytest.raises(CuratorError):
            tools.explain("x", selection=unknown)
    with pytest.raises(CuratorError):
        tools.select(name="\ud800")


def test_assistant_read_only_explain_keeps_no_selection(drawn_project: Callable[..., Path]) -> None:
    """The examples of a task depend on the last selection. The old code made one, and stored it."""
    project = drawn_project("12")
    task = next(entry.name for entry in curator.Project.open(project).select(k=2).tasks)
    manifest = (project / MANIFEST_NAME).read_bytes()
    other = drawn_project("13")
    (other / MANIFEST_NAME).write_bytes(manifest)
    with pytest.raises(ConfigError, match="this server may not make one"):
        AssistantTools(other, allow_runs=False).explain(task)
    assert curator.Project.open(other).store.selections() == []


def test_explained_error_of_a_library_is_clean_and_short() -> None:
    found = explained(ValueError("\x1b[31mred\u202e" + "x" * 100_000))
    assert found.startswith("ValueError: \ufffd[31mred\ufffd")
    assert len(found) == 2000
    assert explained(ConfigError("a", hint="Do b.")) == "a\nDo b."
