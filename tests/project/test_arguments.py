"""Names and arguments are checked before any stage runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import curator
from curator.core.errors import ConfigError, CuratorError, DataError
from curator.core.events import Event, Reporter, StageStarted

MakeProject = Callable[..., Path]


def _stages(events: list[Event]) -> list[str]:
    return [event.stage for event in events if isinstance(event, StageStarted)]


def _stages_before_error(folder: Path, error: type[CuratorError], words: str, verb: str, **given: Any) -> list[str]:
    """Return the stages that started before a verb raised an error."""
    events: list[Event] = []
    project = curator.Project.open(folder, reporter=Reporter(events.append))
    with pytest.raises(error, match=words):
        getattr(project, verb)(**given)
    assert not (folder / ".curator" / "adapters").exists()
    assert project.store.artifacts("train") == []
    return _stages(events)


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("estimate", {"subset": ["nope"]}),
        ("estimate_all", {"subsets": [["alpha"], ["nope"]]}),
        ("select", {"include": ["nope"]}),
        ("select", {"exclude": ["nope"]}),
        ("examples", {"task": "nope"}),
    ],
)
def test_verb_unknown_task_fails_before_files_are_read(
    make_project: MakeProject, verb: str, given: dict[str, Any]
) -> None:
    folder = make_project()
    assert _stages_before_error(folder, ConfigError, "unknown task: 'nope'", verb, **given) == []
    assert not (folder / ".curator" / "store.duckdb").exists()


def test_estimate_target_as_task_fails_before_files_are_read(make_project: MakeProject) -> None:
    words = "target named as an auxiliary task"
    assert _stages_before_error(make_project(), ConfigError, words, "estimate", subset=["target"]) == []


@pytest.mark.parametrize("verb", ["train", "gradients", "curve", "verify", "select"])
def test_verb_unknown_target_fails_before_files_are_read(make_project: MakeProject, verb: str) -> None:
    assert _stages_before_error(make_project(), ConfigError, "unknown target", verb, target="nope") == []


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("select", {"method": "best"}, "unknown selection method"),
        ("select", {"threshold": float("nan")}, "threshold is not finite"),
        ("select", {"include": ["alpha"], "exclude": ["alpha"]}, "both included and excluded"),
        ("select", {"method": "mixture", "k": 2}, "tokens only"),
        ("verify", {"runs": 0}, "at least 1"),
        ("verify", {"seeds": 0}, "at least 1"),
    ],
)
def test_verb_invalid_argument_fails_before_files_are_read(
    make_project: MakeProject, verb: str, given: dict[str, Any], words: str
) -> None:
    assert _stages_before_error(make_project(), ConfigError, words, verb, **given) == []


def test_select_logistic_mixture_fails_before_files_are_read(make_project: MakeProject) -> None:
    folder = make_project(estimate={"method": "logistic"})
    assert _stages_before_error(folder, ConfigError, "quadratic estimator", "select", method="mixture") == []


def test_select_included_tasks_over_budget_fail_before_training(make_project: MakeProject) -> None:
    given = {"include": ["alpha", "beta"], "k": 1}
    assert _stages_before_error(make_project(), ConfigError, "exceed the budget", "select", **given) == ["data"]


def test_select_unwritable_output_fails_before_files_are_read(make_project: MakeProject, tmp_path: Path) -> None:
    words = "cannot write .*: it is a folder"
    assert _stages_before_error(make_project(), DataError, words, "select", output=tmp_path) == []
    (tmp_path / "file").touch()
    other = make_project("other")
    place = tmp_path / "file" / "best.json"
    assert _stages_before_error(other, DataError, "file is not a folder", "select", output=place) == []


def test_group_more_groups_than_examples_fails_before_training(make_project: MakeProject) -> None:
    words = "too few examples in task 'alpha' for 9 groups: 8"
    assert _stages_before_error(make_project(), ConfigError, words, "group", count=9) == ["data"]
