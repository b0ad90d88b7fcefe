"""Take keys in their order: an action takes effect before the next key is looked at.

Textual gives each key to the widget that has the focus at that moment. It runs actions and moves the focus later.
Over a slow connection, several keys arrive at once. After `/`, the letters of a filter would then be commands of the
list. They would change the selection. Letters after `ctrl+u` would be in the field before it becomes empty.
"""

from typing import Any

from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from tui.actions import actions_of

# These actions move no focus and open nothing. A held arrow key must not wait for a drawing after each step.
_MOVES = frozenset(key for action in actions_of("list") if action.id != "open" for key in action.keys)
# In seconds, and number of looks: the longest wait for a new screen to take keys.
_LOOK, _LOOKS = 0.02, 100


class KeyOrder(App[None]):
    """An application that holds keys back while an action takes effect."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._held: list[events.Key] | None = None

    async def on_event(self, event: events.Event) -> None:
        """Hold a key back while the action of the key before takes effect."""
        if not isinstance(event, events.Key) or event.is_forwarded:
            await super().on_event(event)
        elif self._held is not None:
            self._held.append(event)
        elif isinstance(self.focused, Input) and not event.is_printable:
            held: list[events.Key] = []
            self._held = held
            # A field that is removed meanwhile runs nothing.
            self.set_timer(_LOOK * _LOOKS, lambda: self._give_up(held))
            # The letters before this key are in the queue of the field.
            if not self.focused.call_later(self._act_in_field, self.focused, event):
                await self._act_in_field(self.focused, event)
        else:
            await super().on_event(event)

    async def _act_in_field(self, field: Input, event: events.Key) -> None:
        """Run the action of a key in a field of text. Give out the held keys afterwards."""
        try:
            if not (await super()._check_bindings(event.key, True) or await super()._check_bindings(event.key)):
                field._forward_event(event)
        finally:
            self._follow(field)

    def _follow(self, node: DOMNode) -> None:
        """Wait for the messages of an action, which go from each widget to its parent up to the screen."""
        parent = node.parent
        waits = not isinstance(node, Screen) and isinstance(parent, Widget) and parent.is_running
        if not (waits and isinstance(parent, Widget) and parent.call_later(self._follow, parent)):
            self.call_after_refresh(self._settle, _LOOKS)

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        """Run the action of a key. Textual would give the key to the focused widget first, and act later.

        A field of text keeps its letters. `on_event` runs the actions of its other keys.
        """
        if await super()._check_bindings(key, priority):
            return True
        if not priority or isinstance(self.focused, Input) or not await super()._check_bindings(key):
            return False
        if key not in _MOVES:
            self._held = []
            self.call_after_refresh(self._settle, _LOOKS)
        return True

    async def _give_up(self, held: list[events.Key]) -> None:
        if self._held is held:
            await self._settle(0)

    async def _settle(self, looks: int) -> None:
        """Give out the keys that were held, when the screen has taken the focus."""
        screen = self.screen
        if looks and not (screen.is_running and (screen.focused is not None or not screen.focus_chain)):
            self.set_timer(_LOOK, lambda: self._settle(looks - 1))
            return
        held, self._held = self._held or [], None
        for number, event in enumerate(held):
            if self._held is not None:
                # This key started another action.
                self._held += held[number:]
                break
            await self.on_event(event)
