"""The Task screen says in one sentence what the task does to the loss."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from tui_pilot import App, drive, text, until

from curator.estimate.whatif import LossDifference
from tui.widgets.task_sentence import task_sentence

DrawnProject = Callable[..., Path]


def _text(line: object) -> str:
    return "".join(part if isinstance(part, str) else part[0] for part in line)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "noise", "selected", "words"),
    [
        (-0.064, 0.009, True, " In: rare lowers the loss by 0.0640 ± 0.0090."),
        (0.02, 0.009, False, " Out: rare would raise the loss by 0.0200 ± 0.0090."),
        (0.002, 0.009, True, " In: rare makes no difference beyond the noise: +0.0020 ± 0.0090."),
    ],
)
def test_task_sentence_of_effect_names_direction_and_noise(
    value: float, noise: float, selected: bool, words: str
) -> None:
    assert _text(task_sentence("rare", LossDifference(value, noise), None, selected=selected)) == words


def test_task_screen_sentence_agrees_with_effect_of_toggle(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2", "g", "enter")
        pattern = r"In: (\w+) .*?([\d.]+) ± ([\d.]+); (\d+) of (\d+) examples help\."
        await until(pilot, lambda: re.search(pattern, " ".join(text(app).split())))
        found = re.search(pattern, " ".join(text(app).split()))
        assert found is not None
        assert app.estimate is not None
        assert app.session is not None
        row = app.session.names.index(found[1])
        assert float(found[2]) == pytest.approx(abs(float(app.estimate.flips[row])), abs=1e-4)
        assert np.isfinite(float(found[3]))
        assert int(found[4]) <= int(found[5])

    drive(drawn_project("12"), story)
