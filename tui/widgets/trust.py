"""How far an estimated loss may be trusted, in words that all screens share. No Textual."""

from tui.widgets import numbers
from tui.widgets.lines import Part


def measured_part(loss: float | None, *, word: bool = False) -> Part:
    """A measured loss as it stands beside an estimate; nothing where it was not measured."""
    if loss is None:
        return ""
    return (f"◎ {'measured ' if word else ''}{numbers.loss(loss)}", "accent")
