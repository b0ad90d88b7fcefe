"""Wide terminals show more: columns, the first example, and one pane alone."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from textual.pilot import Pilot
from tui_pilot import App, drive, grid, is_solved, text, until

from curator.estimate.whatif import LossDifference
from tui.widgets.selection_estimate import _differences
from tui.widgets.task_columns import COLUMNS, laid_out

DrawnProject = Callable[..., Path]
ALL = [column.name for column in COLUMNS]


@pytest.mark.parametrize(
    ("width", "more"),
    [
        (60, []),
        (80, ["bar", "tag"]),
        (87, ["bar", "tag", "error"]),
        (147, ["tokens", "error", "rank", "bar", "tag", "source", "preview"]),
    ],
)
def test_laid_out_wider_table_has_more_columns(width: int, more: list[str]) -> None:
    found = laid_out(width, longest=8, chosen=(), known=ALL)
    assert {name for name, _ in found} == {"task", "examples", "affinity", "flip", *more}
    assert sum(cells for _, cells in found) + 5 == width
    assert dict(found)["task"] >= 14


def test_laid_out_chosen_columns_are_the_only_ones() -> None:
    assert [name for name, _ in laid_out(80, longest=8, chosen=("rank", "error"), known=ALL)] == [
        "task",
        "error",
        "rank",
    ]


def test_tasks_wide_terminal_shows_interval_rank_source_and_example(
    drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: is_solved(app) and "first example" in text(app))
        table = app.screen.table  # type: ignore[attr-defined]
        assert app.snapshot is not None
        await until(pilot, lambda: table.starts)
        assert set(table.starts) == set(app.snapshot.names)
        title, first = grid(app)[4], grid(app)[5]
        assert all(words in title for words in ("±", "rank", "source", "first example"))
        assert "task0004" in first
        assert " 1 " in first
        assert "00004.jsonl" in first
        assert "0 of 4: answer 0" in first
        await pilot.press("z")
        await until(pilot, lambda: "edits   u undo" not in text(app))
        assert grid(app)[0].startswith("curator")
        assert "z all panes" in grid(app)[-1]
        await pilot.press("escape")
        await until(pilot, lambda: "edits   u undo" in text(app))

    drive(drawn_project(), story, (200, 50))


def test_differences_narrow_line_keeps_the_saved_selection() -> None:
    change = LossDifference(value=0.0762, noise=0.01)
    estimate = SimpleNamespace(versus_all=LossDifference(value=-0.3948, noise=0.01), versus_saved=change)
    parts = _differences(estimate, "ensemble", 24)  # type: ignore[arg-type]
    assert "".join(part if isinstance(part, str) else part[0] for part in parts) == "   vs ensemble +0.0762"
    wide = _differences(estimate, "ensemble", 60)  # type: ignore[arg-type]
    assert [part[0] for part in wide] == ["   vs all ", "−0.3948", "   vs ensemble ", "+0.0762"]
