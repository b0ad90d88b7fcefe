"""The command palette: actions of the screen, tasks, saved selections, jobs and themes."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape

from curator.core.text import clean
from tui.actions import ACTIONS, key_name
from tui.app_base import AppBase
from tui.background.run_watcher import name_of

_MOST_FOUND = 40
"""Most tasks, selections, jobs and themes for one query."""


class CuratorCommands(Provider):
    """Provide the commands of the palette."""

    def _actions(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        place = getattr(self.screen, "place", "")
        for action in ACTIONS:
            if action.id != "palette" and (place in action.places or "any" in action.places):
                run = partial(self.screen.run_action, action.id)
                yield f"{action.help}", f"{key_name(action.keys[0])}  {action.label}", run

    def _places(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app = self.app
        assert isinstance(app, AppBase)
        snapshot = app.snapshot
        for selection in snapshot.selections if snapshot is not None else ():
            # The palette reads the second text as markup.
            name, method = clean(selection.name), escape(clean(selection.method))
            yield f"Load selection {name}", method, partial(app.load, selection.name)
            yield f"Rename selection {name}", method, partial(app.ask_name, selection.name)
            yield f"Delete selection {name}", "undo: u", partial(app.delete_selection, selection.name)
        for view in app.jobs:
            started = f"{view.job.started.astimezone():%Y-%m-%d %H:%M}"
            yield f"Open job {clean(name_of(view))} of {started}", view.job.state, partial(app.open_job, view.job.id)
        for theme in sorted(app.available_themes):
            shade = "dark" if app.available_themes[theme].dark else "light"
            yield f"Use theme {theme}", shade, partial(app.use_theme, theme)

    def _tasks(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app = self.app
        assert isinstance(app, AppBase)
        for row, task in enumerate(app.snapshot.names if app.snapshot is not None else ()):
            yield f"Open task {clean(task)}", "", partial(app.open_task, row, app.columns().examples.argsort())

    async def discover(self) -> Hits:
        """Yield the actions, selections, jobs and themes, before the user types."""
        for name, help, run in chain(self._actions(), self._places()):
            # A text alone would be read as markup, and a name may hold anything.
            yield DiscoveryHit(Content(name), run, text=name, help=help)

    async def search(self, query: str) -> Hits:
        """Yield all that matches a query."""
        matcher = self.matcher(query)
        for name, help, run in self._actions():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), run, help=help)
        found = 0
        for name, help, run in chain(self._places(), self._tasks()):
            if (score := matcher.match(name)) > 0:
                yield Hit(score * 0.9, matcher.highlight(name), run, help=help)
                found += 1
                if found == _MOST_FOUND:
                    return
