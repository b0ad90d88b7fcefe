"""A project that an earlier commit computed opens, and no stage is computed again.

`project-5240198.tar.xz` was made at commit 5240198, before the modules moved into rooms: by `curator select`,
`curator verify --runs 2 --seeds 1`, `curator select` and `curator select --method exchange --name second`.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from curator.core.events import Event, Note, Reporter, StageStarted
from curator.project.project import Project

ARCHIVE = Path(__file__).with_name("project-5240198.tar.xz")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The extracted project."""
    with tarfile.open(ARCHIVE) as archive:
        # Python 3.11.3 and earlier have no filters. The archive is ours.
        archive.extractall(tmp_path / "earlier", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    config = tmp_path / "earlier" / "curator.toml"
    # The project does not name its method. At the time, the default was `quadratic`.
    config.write_text(config.read_text() + '\n[estimate]\nmethod = "quadratic"\n')
    return tmp_path / "earlier"


def _known_part(after: Any, before: Any) -> Any:
    """Return a manifest without the fields that its earlier version does not have."""
    if isinstance(after, dict) and isinstance(before, dict):
        return {key: _known_part(after[key], before[key]) for key in before if key in after}
    if isinstance(after, list) and isinstance(before, list) and len(after) == len(before):
        return [_known_part(*pair) for pair in zip(after, before, strict=True)]
    return after


def test_status_of_an_earlier_project_finds_every_stage(earlier: Path) -> None:
    # A newer curator reads the rows again. They are the same, so no other stage is stale.
    Project.open(earlier).check()
    report = Project.open(earlier).status()
    states = {stage.stage: stage.state for stage in report.stages}
    assert {states[stage] for stage in ("data", "train", "gradients", "estimate", "select")} == {"done"}
    assert {row["name"] for row in report.selections} == {"second", "forward"}


def test_select_in_an_earlier_project_computes_nothing_and_keeps_the_manifest(earlier: Path) -> None:
    before = json.loads((earlier / "curator-manifest.json").read_text())
    events: list[Event] = []
    project = Project.open(earlier, reporter=Reporter(events.append))
    result = project.select(method="exchange", name="second")
    assert result.cached
    assert _known_part(json.loads((earlier / "curator-manifest.json").read_text()), before) == before
    stages = {event.stage for event in events if isinstance(event, StageStarted)}
    # Rows are read again where a newer curator looks for more in them. Nothing that costs is computed again.
    assert stages <= {"data"}
    assert project.estimates(("target",)).measured != []


def test_select_in_an_earlier_project_with_the_new_default_says_why_it_trains(earlier: Path) -> None:
    config = earlier / "curator.toml"
    config.write_text(config.read_text().replace('"quadratic"', '"trajectory"'))
    events: list[Event] = []
    result = Project.open(earlier, reporter=Reporter(events.append)).select(name="third")
    assert not result.cached
    (line,) = [event.message for event in events if isinstance(event, Note) and "trains again" in event.message]
    assert "did not capture gradients" in line
    assert 'method = "quadratic"' in line
    events.clear()
    assert Project.open(earlier, reporter=Reporter(events.append)).select(name="third").cached
    assert not [event for event in events if isinstance(event, Note) and "trains again" in event.message]
