"""The measured loss for all screens. This module imports no Textual."""

from tui.widgets import numbers
from tui.widgets.lines import Part


def measured_part(loss: float | None, *, word: bool = False) -> Part:
    """Return a measured loss with its sign; "" if the loss is not measured."""
    if loss is None:
        return ""
    return (f"◎ {'measured ' if word else ''}{numbers.loss(loss)}", "accent")
