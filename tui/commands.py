"""The command palette: the actions of the screen, all tasks and all saved selections."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from curator.core.text import clean
from tui.actions import ACTIONS, key_name
from tui.app_base import AppBase

_MOST_TASKS = 20


class CuratorCommands(Provider):
    """Commands of the palette."""

    def _actions(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        place = getattr(self.screen, "place", "")
        for action in ACTIONS:
            if action.id != "palette" and (place in action.places or "any" in action.places):
                run = partial(self.screen.run_action, action.id)
                yield f"{action.help}", f"{key_name(action.keys[0])}  {action.label}", run

    def _places(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app = self.app
        assert isinstance(app, AppBase)
        if app.snapshot is None:
            return
        for selection in app.snapshot.selections:
            yield f"Load selection {clean(selection.name)}", selection.method, partial(app.load, selection.name)
        for row, name in enumerate(app.snapshot.names):
            yield f"Open task {clean(name)}", "", partial(app.open_task, row, app.columns().examples.argsort())

    async def discover(self) -> Hits:
        """Yield all actions, before the user types."""
        for name, help, run in self._actions():
            yield DiscoveryHit(name, run, help=help)

    async def search(self, query: str) -> Hits:
        """Yield the actions, tasks and selections that match a query."""
        matcher = self.matcher(query)
        for name, help, run in self._actions():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), run, help=help)
        found = 0
        for name, help, run in self._places():
            if (score := matcher.match(name)) > 0:
                yield Hit(score * 0.9, matcher.highlight(name), run, help=help)
                found += 1
                if found == _MOST_TASKS:
                    return
