"""How far an estimated loss may be trusted, in words that all screens share. No Textual."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curator.calibration import LEAST_RUNS
from tui import numbers
from tui.widgets.lines import Part

if TYPE_CHECKING:
    from curator.fine_tune import MeasuredSubset


def calibrated_on(measured: Sequence["MeasuredSubset"]) -> int:
    """How many really fine-tuned subsets correct the estimates; 0: too few to correct anything.

    As `Answers.calibrated_on`, which would fit the correction first, and that may take longer than a key may wait.
    """
    return len(measured) if len(measured) >= LEAST_RUNS else 0


def trust_word(subsets: int) -> str:
    """Whether estimates are calibrated, and by how many subsets; 0 for those that are not."""
    return f"calibrated·{subsets}" if subsets else "uncalibrated"


def measured_part(loss: float | None, *, word: bool = False) -> Part:
    """A measured loss as it stands beside an estimate; nothing where it was not measured."""
    if loss is None:
        return ""
    return (f"◎ {'measured ' if word else ''}{numbers.loss(loss)}", "accent")
