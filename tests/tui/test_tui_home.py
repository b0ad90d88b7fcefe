"""Home answers: bars with intervals and one sentence, all from one revision of the estimates."""

import re
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from tui_pilot import App, drive, is_solved, text, until

import curator
from tui.widgets.answer import Bar, bar_of

DrawnProject = Callable[..., Path]


def test_bar_of_loss_shows_interval_on_scale() -> None:
    bar = Bar(name="x", loss=0.5, low=0.25, high=0.75, words="")
    assert bar_of(bar, 1.0, 9) == "██├─┼─┤  "
    assert bar_of(Bar(name="x", loss=1.0, low=1.0, high=1.0, words=""), 1.0, 5) == "█████"
    assert bar_of(Bar(name="x", loss=None, low=0.0, high=0.0, words=""), 1.0, 5) == "     "


def test_home_answer_shows_select_interval_then_plain_one_after_edit(drawn_project: DrawnProject) -> None:
    root = drawn_project("12")
    chosen = curator.Project.open(root).select(name="mine", k=3)
    wide = f"±{(chosen.estimated_loss_high - chosen.estimated_loss_low) / 2:.4f}"

    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.session is not None
        await pilot.press("1")
        await until(pilot, lambda: f"{wide} estimated, chosen" in text(app))
        shown = text(app)
        for words in ("target only", "all 12 tasks", "mine (", "loss on target, lower is better", "6 verify"):
            assert words in shown
        assert f"{chosen.estimated_loss:.4f}" in shown
        assert re.search(r"mine is (better|worse|no different)", " ".join(shown.split()))
        await pilot.press("2")
        await until(pilot, lambda: f"{wide} chosen" in text(app))
        await pilot.press("space", "1")
        await until(pilot, lambda: is_solved(app) and "mine, changed" in text(app))
        await until(pilot, lambda: "estimating" not in text(app))
        assert app.estimate is not None
        shown = text(app)
        assert f"{app.estimate.target_loss.loss:.4f}" in shown
        assert "chosen" not in shown
        assert "Your change is" in " ".join(shown.split())

    drive(root, story)
