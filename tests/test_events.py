"""The event log survives whatever happens to the process that writes it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.events import (
    Event,
    EventLog,
    Note,
    Reporter,
    Stage,
    StageFinished,
    StageProgress,
    StageStarted,
    is_written,
    read_events,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
events = st.one_of(
    st.builds(StageStarted, stage=st.text(), total=st.integers(), unit=st.text(), done=st.integers(), time=numbers),
    st.builds(
        StageProgress,
        stage=st.text(),
        done=st.integers(),
        total=st.integers(),
        unit=st.text(),
        rate=numbers,
        seconds_left=st.none() | numbers,
        loss=st.none() | numbers,
        time=numbers,
    ),
    st.builds(StageFinished, stage=st.text(), seconds=numbers, summary=st.text(), cached=st.booleans(), time=numbers),
    st.builds(Note, message=st.text(), level=st.sampled_from(["info", "warning"]), time=numbers),
)


@given(st.lists(events, max_size=5), st.integers(0, 400))
def test_round_trip_and_any_end(tmp_path_factory: pytest.TempPathFactory, written: list[Event], cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "runs" / "events.jsonl"
    log = EventLog(path)
    for event in written:
        log(event)
    assert list(read_events(path)) == written
    log.close()
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) - cut, 0)])
    left = list(read_events(path))
    assert left == written[: len(left)]
    assert len(left) == path.read_bytes().count(b"\n")


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(Note(message="a\udcff"))
    log.close()
    with path.open("ab") as file:
        file.write(b'{"event": "FromTheFuture", "x": 1}\n{"event": "Note", "cut of\n\xff\xfe\n[]\n{"event": "Note"}\n')
    log = EventLog(path)
    log(Note(message="b"))
    assert [event.message for event in read_events(path) if isinstance(event, Note)] == ["a\udcff", "b"]


def test_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert not is_written(path)
    log = EventLog(path)
    assert is_written(path)
    log.close()
    assert not is_written(path)


def test_a_stage_reports_its_end_whatever_the_rate() -> None:
    seen: list[Event] = []
    stage = Reporter(seen.append).stage("train", 1000, "steps", done=400)
    for _ in range(600):
        stage.advance(loss=1.0)
    stage.finish("done")
    assert isinstance(seen[0], StageStarted)
    assert isinstance(seen[-1], StageFinished)
    progress = [event for event in seen if isinstance(event, StageProgress)]
    assert len(progress) < 100, "ten a second at most"
    assert progress[-1].done == 1000
    assert progress[-1].seconds_left == 0


def test_nothing_done_yet_has_no_time_left() -> None:
    seen: list[Event] = []
    Stage(seen.append, "s", 0, "x").advance(0)
    assert isinstance(seen[-1], StageProgress)
    assert seen[-1].seconds_left is None


def test_every_sink_hears_all() -> None:
    first: list[Event] = []
    second: list[Event] = []
    reporter = Reporter(first.append)
    reporter.with_sink(second.append).warn("w")
    reporter.note("n")
    assert [getattr(event, "message", None) for event in first] == ["w", "n"]
    assert len(second) == 1
