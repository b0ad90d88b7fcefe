"""The command palette: every action of the registry that is there on this screen, every task and every selection."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from curator.core.text import clean
from tui.actions import ACTIONS, key_name
from tui.app_base import AppBase

_MOST_TASKS = 20


class CuratorCommands(Provider):
    """What the palette offers."""

    def _actions(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        place = getattr(self.screen, "place", "")
        for action in ACTIONS:
            if action.id != "palette" and (place in action.places or "any" in action.places):
                run = partial(self.screen.run_action, action.id)
                yield f"{action.help}", f"{key_name(action.keys[0])}  {action.label}", run

    def _places(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app: AppBase = self.app  # type: ignore[assignment]
        if app.workspace is None:
            return
        for selection in app.workspace.selections:
            yield f"Load selection {clean(selection.name)}", selection.method, partial(app.load, selection.name)
        for row, name in enumerate(app.workspace.names):
            yield f"Open task {clean(name)}", "", partial(app.open_task, row, app.columns().examples.argsort())

    async def discover(self) -> Hits:
        """What is there before anything is typed."""
        for name, help, run in self._actions():
            yield DiscoveryHit(name, run, help=help)

    async def search(self, query: str) -> Hits:
        """What matches."""
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
