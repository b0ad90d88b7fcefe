"""All that can be done, in one table: keys, footer, help, command palette and the README are made from it.

An action belongs to one or more places: a screen, `list` (every list with a cursor) or `any` (every screen). Its method
is `action_<id>` on the screen or the list; a test makes sure that there is one.
"""

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that people can do.

    Attributes:
        id: Name; the method is `action_<id>`, and settings remap its keys by it.
        keys: Keys, the first of which is shown.
        label: One or two words for the footer.
        help: One line for the help and the palette.
        places: Where it is there.
        rank: Place in the footer, 1 first; 0 is not shown there.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    places: tuple[str, ...]
    rank: int = 0


def _action(id: str, keys: str, label: str, help: str, places: str, rank: int = 0) -> Action:
    return Action(id=id, keys=tuple(keys.split()), label=label, help=help, places=tuple(places.split()), rank=rank)


ACTIONS: tuple[Action, ...] = (
    # Places to be.
    _action("go_home", "1", "home", "Home: project, pipeline, selections", "any"),
    _action("go_tasks", "2", "tasks", "Tasks: what each does to the target; change the selection", "any"),
    _action("go_matrix", "3", "matrix", "Matrix: which task helps which", "any"),
    _action("go_runs", "4", "runs", "Runs: start, watch and stop the long work", "any"),
    _action("go_compare", "5", "compare", "Compare: up to four selections side by side", "any"),
    _action("back", "escape", "back", "Back: close, clear the filter or the range, leave", "any"),
    _action("palette", "ctrl+p colon", "commands", "Command palette: find any action by name", "any", 90),
    _action("help", "question_mark f1", "help", "All keys of this screen", "any", 99),
    _action("settings", "f2", "settings", "Theme, pointer and motion", "any"),
    _action("reload", "ctrl+l", "reload", "Read the project again", "any"),
    _action("quit", "q", "quit", "Quit; runs go on, edits are kept", "any"),
    # Every list.
    _action("down", "j down", "down", "Next row", "list"),
    _action("up", "k up", "up", "Row before", "list"),
    _action("page_down", "ctrl+d pagedown", "page down", "Down by a page", "list"),
    _action("page_up", "ctrl+u pageup", "page up", "Up by a page", "list"),
    _action("first", "g home", "first", "First row", "list"),
    _action("last", "G end", "last", "Last row", "list"),
    _action("open", "enter", "open", "Open what the cursor is on", "list"),
    # Changing the selection.
    _action(
        "toggle_task", "space", "toggle", "Turn the task, the marked ones or the range round", "tasks task matrix", 10
    ),
    _action("range", "v", "range", "Begin or end a range of rows", "tasks", 11),
    _action("mark", "m", "mark", "Mark the task, for changes to several", "tasks"),
    _action("take_shown", "a", "all in", "Put all shown tasks in; all that are not pinned", "tasks"),
    _action("drop_shown", "A", "all out", "Take all shown tasks out; all that are not pinned", "tasks"),
    _action("invert_shown", "i", "invert", "Turn all shown tasks round; all that are not pinned", "tasks"),
    _action("pin", "p", "pin", "Pin in, pin out, free: automatic methods keep to pins", "tasks task", 12),
    _action("fill", "f", "fill up", "Let forward or exchange selection go on from here", "tasks", 17),
    _action("undo", "u", "undo", "Undo the last change", "home tasks task matrix compare", 15),
    _action("redo", "U ctrl+r", "redo", "Redo what was undone", "home tasks task matrix compare"),
    _action("save", "w ctrl+s", "save", "Save the selection under a name", "home tasks task matrix compare", 18),
    _action("load", "o", "load", "Load a saved selection in place of this one", "tasks"),
    # Looking.
    _action("filter", "slash", "filter", "Show some tasks only; the help has the words it knows", "tasks matrix", 13),
    _action("find", "slash", "search", "Show only the examples whose text holds some words", "task", 13),
    _action("next_match", "n", "next match", "Next match", "runs"),
    _action("previous_match", "N", "match before", "Match before", "runs"),
    _action("sort", "s", "sort", "Sort by the next column", "tasks task compare", 14),
    _action("reverse", "S", "reverse", "Sort the other way round", "tasks task compare"),
    _action("order", "b", "best order", "Estimated loss against tokens as tasks are added in the best order", "tasks"),
    _action("next_task", "right_square_bracket", "next", "Next task; the target comes after the last", "task", 13),
    _action("previous_task", "left_square_bracket", "previous", "Task before", "task", 16),
    _action("next_pane", "tab", "pane", "Next pane", "home task runs", 22),
    _action("tokens", "t", "tokens", "Show the tokens of the example", "task", 14),
    _action("copy", "y", "copy", "Copy to the clipboard", "task runs compare", 24),
    _action("left", "h left", "left", "Column before", "matrix"),
    _action("right", "l right", "right", "Next column", "matrix"),
    _action("zoom", "plus equals_sign", "zoom", "Wider cells, with numbers", "matrix", 11),
    _action("unzoom", "minus", "zoom out", "Narrow cells", "matrix"),
    _action("arrange", "o", "order", "Order by cluster, by affinity or by name", "matrix", 12),
    _action("transpose", "t", "transpose", "Turn rows and columns round", "matrix", 16),
    # Runs.
    _action("start", "R", "run", "Start a stage as a process that outlives this terminal", "any", 40),
    _action("stop", "x", "stop", "Stop the run; what it has done is kept", "runs", 41),
    _action("resume", "r", "resume", "Run the same command again; it goes on where it was", "runs", 42),
    _action("follow", "f", "follow", "Follow the end of the log", "runs", 43),
    _action("log_scale", "L", "log scale", "Logarithmic loss axis", "runs", 44),
    _action("search", "slash", "search", "Search the log of the run", "runs", 45),
    # Out.
    _action("compare", "c", "compare", "Compare this selection with saved ones", "home tasks", 50),
    _action("pick", "p", "pick", "Pick the selections to compare", "compare", 10),
    _action("swap", "X", "swap", "Swap the first two selections", "compare", 12),
    _action("show_which", "d", "which", "All tasks, only the different ones, only in A, only in B", "compare", 11),
    _action(
        "verify",
        "V",
        "verify",
        "Verify: estimated against measured losses; measure more",
        "home tasks runs compare",
        55,
    ),
    _action("export", "e", "export", "Write files that a trainer reads", "home tasks compare", 60),
)


def actions_of(place: str) -> list[Action]:
    """The actions of one place, in the table's order."""
    return [action for action in ACTIONS if place in action.places]


def bindings_of(place: str) -> list[BindingType]:
    """Key bindings of one place, for a class's `BINDINGS`."""
    return [Binding(",".join(a.keys), a.id, a.label, show=False, id=a.id) for a in actions_of(place)]


_SHOWN = {
    "question_mark": "?",
    "slash": "/",
    "space": "space",
    "escape": "esc",
    "colon": ":",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
}


def key_name(key: str) -> str:
    """A key as people know it."""
    name = _SHOWN.get(key, key)
    return name.upper() if len(name) > 1 and name[0] == "f" and name[1:].isdigit() else name
