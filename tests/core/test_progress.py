"""Progress displays on a terminal and in logs."""

import io
import sys
from typing import Any

import pytest
from conftest import HOSTILE

from curator.core.events import Note, StageFinished, StageProgress, StageStarted
from curator.core.progress import BarProgress, NoProgress, PlainProgress, make_progress
from curator.core.text import clean

EVENTS = [
    StageProgress(stage="train", done=1, total=4, unit="steps", rate=1.0, seconds_left=3.0, time=0.5),
    StageStarted(stage="train", total=4, unit="steps", done=1, time=1.0),
    StageProgress(stage="train", done=2, total=4, unit="steps", rate=1.0, seconds_left=2.0, loss=1.5, time=7.0),
    StageProgress(stage="train", done=3, total=4, unit="steps", rate=1.0, seconds_left=1.0, time=8.0),
    Note(message=f"about {HOSTILE[0]}", level="warning", time=9.0),
    Note(message="by the way", time=10.0),
    StageFinished(stage="train", seconds=3.0, summary=f"of {HOSTILE[1]}", time=11.0),
    StageStarted(stage="gradients", total=0, unit="gradients", time=12.0),
    StageFinished(stage="gradients", seconds=0.0, summary="all there", cached=True, time=13.0),
    StageFinished(stage="select", seconds=0.0, summary="without a beginning", time=14.0),
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, progress: Any, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    with progress() as display:
        for event in EVENTS:
            display(event)
    return stream.getvalue()


def test_bar_progress_prints_line_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _shown(monkeypatch, BarProgress, _Terminal())
    for words in ("3.0 s", "nothing to do", "all there", "without a beginning", "by the way", "! "):
        assert words in shown
    # Untrusted text is cleaned.
    assert "about " + clean(HOSTILE[0]) in shown
    assert HOSTILE[0] not in shown
    assert clean(HOSTILE[1]) in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown[-40:], "the cursor is visible again"


def test_plain_progress_frequent_steps_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _shown(monkeypatch, PlainProgress, io.StringIO()).splitlines()
    assert len(lines) == len(EVENTS) - 2, "two steps follow another line within `LOG_INTERVAL`"
    assert not any(HOSTILE[0] in line for line in lines)


def test_make_progress_depends_on_terminal_and_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_progress(quiet=True), NoProgress)
    assert _shown(monkeypatch, NoProgress, io.StringIO()) == ""
    assert isinstance(make_progress(quiet=False), PlainProgress)
    monkeypatch.setattr(sys, "stderr", _Terminal())
    assert isinstance(make_progress(quiet=False), BarProgress)
