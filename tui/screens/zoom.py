"""One pane over the whole screen."""

from textual.screen import Screen
from textual.widget import Widget

_PANES = ("zooms", "box", "pane")
"""Classes of the panes."""


def pane_of(widget: Widget) -> Widget:
    """Return the pane that holds a widget; the widget itself without a pane."""
    for node in widget.ancestors_with_self:
        if isinstance(node, Screen):
            break
        if isinstance(node, Widget) and any(node.has_class(name) for name in _PANES):
            return node
    return widget
