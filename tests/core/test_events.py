"""Event logs: writing, reading truncated or hostile logs, and progress reports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.events import (
    Event,
    EventLog,
    EventTail,
    Note,
    Reporter,
    Stage,
    StageFinished,
    StageProgress,
    StageStarted,
    is_written,
    log_line,
    read_events,
)

numbers = st.floats(-1e18, 1e18)
counts = st.integers(0, 10**18)
times = st.floats(0, 3e10)
events = st.one_of(
    st.builds(StageStarted, stage=st.text(), total=counts, unit=st.text(), done=counts, time=times),
    st.builds(
        StageProgress,
        stage=st.text(),
        done=counts,
        total=counts,
        unit=st.text(),
        rate=numbers,
        seconds_left=st.none() | numbers,
        loss=st.none() | numbers,
        time=times,
    ),
    st.builds(StageFinished, stage=st.text(), seconds=numbers, summary=st.text(), cached=st.booleans(), time=times),
    st.builds(Note, message=st.text(), level=st.sampled_from(["info", "warning"]), time=times),
)


@given(st.lists(events, max_size=5), st.integers(0, 400))
def test_read_events_truncated_log_yields_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, written: list[Event], cut: int
) -> None:
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


def test_read_events_lines_without_event_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(Note(message="a\udcff"))
    log.close()
    with path.open("ab") as file:
        file.write(b'{"event": "FromTheFuture", "x": 1}\n{"event": "Note", "cut of\n\xff\xfe\n[]\n{"event": "Note"}\n')
    log = EventLog(path)
    log(Note(message="b"))
    assert [event.message for event in read_events(path) if isinstance(event, Note)] == ["a\udcff", "b"]


@pytest.mark.parametrize(
    "changed",
    [
        {"time": "now"},
        {"time": 1e300},
        {"time": -1},
        {"time": float("nan")},
        {"stage": 1},
        {"stage": None},
        {"done": 1.5},
        {"done": True},
        {"done": -1},
        {"total": 10**400},
        {"unit": []},
        {"rate": float("inf")},
        {"rate": None},
        {"seconds_left": "1"},
        {"loss": float("nan")},
        {"loss": False},
    ],
    ids=lambda changed: str(changed)[:30],
)
def test_read_events_invalid_field_is_skipped(tmp_path: Path, changed: dict[str, Any]) -> None:
    known = {
        "event": "StageProgress",
        "stage": "s",
        "done": 1,
        "total": 2,
        "unit": "x",
        "rate": 1,
        "seconds_left": None,
    }
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (known, known | changed, known | {"loss": 2})))
    assert [event.loss for event in read_events(path) if isinstance(event, StageProgress)] == [None, 2]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b" " * 3_000_000,
        b'{"event": []}',
        b'{"event": "Note", "message": "x", "level": "\\u001b"}',
        b'{"event": "Note", "message": "x", "level": []}',
        b'{"event": "StageFinished", "stage": "s", "seconds": 1, "summary": "", "cached": 1}',
    ],
    ids=lambda line: str(line[:40]),
)
def test_read_events_hostile_line_is_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line + b'\n{"event": "Note", "message": "a"}\n')
    tail = EventTail(path)
    for found in (read_events(path), tail.read()):
        assert [event.message for event in found if isinstance(event, Note)] == ["a"]
    assert tail.read() == []


def test_event_tail_pipe_or_folder_has_no_events(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert EventTail(tmp_path / name).read() == []
        assert EventTail(tmp_path / name, last=10).read() == []
        assert not is_written(tmp_path / name)


def test_is_written_follows_open_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert not is_written(path)
    log = EventLog(path)
    assert is_written(path)
    log.close()
    assert not is_written(path)


def test_stage_fast_units_reports_rarely_and_at_end() -> None:
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


def test_stage_no_units_done_has_no_time_left() -> None:
    seen: list[Event] = []
    Stage(seen.append, "s", 0, "x").advance(0)
    assert isinstance(seen[-1], StageProgress)
    assert seen[-1].seconds_left is None


def test_reporter_two_sinks_receive_events() -> None:
    first: list[Event] = []
    second: list[Event] = []
    reporter = Reporter(first.append)
    reporter.with_sink(second.append).warn("w")
    reporter.note("n")
    assert [getattr(event, "message", None) for event in first] == ["w", "n"]
    assert len(second) == 1


@given(st.lists(events, max_size=8), st.lists(st.integers(1, 300), max_size=20))
def test_event_tail_growing_log_reads_each_event_once(
    tmp_path_factory: pytest.TempPathFactory, written: list[Event], sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("tail")
    log = EventLog(folder / "whole.jsonl")
    for event in written:
        log(event)
    log.close()
    content = (folder / "whole.jsonl").read_bytes()
    tail, seen = EventTail(folder / "events.jsonl"), list[Event]()
    assert tail.read() == []
    with (folder / "events.jsonl").open("ab", buffering=0) as file:
        for size in [*sizes, len(content)]:
            file.write(content[:size])
            content = content[size:]
            seen += tail.read()
            assert seen == list(read_events(folder / "events.jsonl"))
    assert seen == written
    assert tail.read() == []


@given(st.lists(events, max_size=8), st.integers(0, 1000))
def test_event_tail_with_last_starts_at_whole_line(
    tmp_path_factory: pytest.TempPathFactory, written: list[Event], last: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "events.jsonl"
    log = EventLog(path)
    for event in written:
        log(event)
    content = path.read_bytes()
    whole = content[-last:].count(b"\n") if last else 0
    if last < len(content) and whole and not content[:-last].endswith(b"\n"):
        whole -= 1
    tail = EventTail(path, last=last)
    assert tail.read() == written[len(written) - whole :]
    log(Note(message="more"))
    (more,) = tail.read()
    assert isinstance(more, Note)
    log.close()


def test_event_tail_lines_without_event_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "FromTheFuture"}\n\xff\n{"event": "Note", "message": "a"}\n{"event"')
    tail = EventTail(path)
    assert [event.message for event in tail.read() if isinstance(event, Note)] == ["a"]
    with path.open("ab") as file:
        file.write(b': "Note", "message": "b"}\n')
    assert [event.message for event in tail.read() if isinstance(event, Note)] == ["b"]


def test_event_log_descriptor_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.set_inheritable(descriptor, True)
    log = EventLog(path, descriptor=descriptor)
    log(Note(message="a"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        log.close()
        assert not is_written(path)
        child.communicate(b"\n")
    assert len(list(read_events(path))) == 1


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (StageStarted(stage="train", total=9, unit="steps", done=3), "train: resumed at 3 of 9 steps"),
        (StageStarted(stage="train", total=9, unit="steps"), "train: started (9 steps)"),
        (StageStarted(stage="select", total=0, unit="steps"), "select: started"),
        (
            StageProgress(stage="train", done=3, total=9, unit="steps", rate=2.0, seconds_left=75.0, loss=1.25),
            "train: 3/9 steps · 2.0/s · loss 1.250 · 1 min 15 s left",
        ),
        (StageFinished(stage="train", seconds=3.0, summary="9 steps"), "train: done in 3.0 s (9 steps)"),
        (StageFinished(stage="train", seconds=0.0, summary="", cached=True), "train: nothing to do"),
        (Note(message="hm", level="warning"), "warning: hm"),
    ],
)
def test_log_line_formats_event(event: Event, line: str) -> None:
    assert log_line(event) == line
