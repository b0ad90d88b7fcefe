"""The table of all actions. Keys, footer, help and command palette come from this table.

An action belongs to one or more places: a screen, `list` (every list with a cursor) or `any` (every screen). The method
of an action is `action_<id>` of the screen or the list. A test checks that every method exists.
"""

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action of the user.

    Attributes:
        id: Name of the action. The method is `action_<id>`, and settings remap keys by this name.
        keys: Keys of the action. Footer and palette show the first key.
        label: One or two words for the footer.
        help: One line for the help and the palette. The line starts with a verb and has at most 57 characters.
        places: Places where the action is available.
        rank: Position in the footer, 1 first. The footer does not show rank 0.
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
    # Screens.
    _action("go_home", "1", "home", "Open Home: project, pipeline and selections", "any"),
    _action("go_tasks", "2", "tasks", "Open Tasks: effect of each task, and the selection", "any"),
    _action("go_matrix", "3", "matrix", "Open Matrix: which task helps which", "any"),
    _action("go_runs", "4", "jobs", "Open Jobs: start, watch and stop jobs", "any"),
    _action("go_compare", "5", "compare", "Open Compare: up to four selections side by side", "any"),
    _action("back", "escape", "back", "Go back, or clear the filter or the range", "any"),
    _action("zoom_pane", "z", "zoom pane", "Show one pane alone, or all panes again", "any", 70),
    _action("palette", "ctrl+p colon", "commands", "Open the command palette: find any action by name", "any", 90),
    _action("help", "question_mark f1", "help", "Show all keys of this screen", "any", 99),
    _action("sessions", "ctrl+o", "sessions", "Continue another session of edits, or begin a new one", "any"),
    _action("settings", "f2", "settings", "Change theme, pointer and motion", "any"),
    _action("reload", "ctrl+l", "reload", "Read the project again", "any"),
    _action("quit", "q", "quit", "Quit (jobs continue, edits are kept)", "any"),
    # Lists.
    _action("down", "j down", "down", "Move to the next row", "list"),
    _action("up", "k up", "up", "Move to the previous row", "list"),
    _action("page_down", "ctrl+d pagedown", "page down", "Move down by a page", "list"),
    _action("page_up", "ctrl+u pageup", "page up", "Move up by a page", "list"),
    _action("first", "g home", "first", "Move to the first row", "list"),
    _action("last", "G end", "last", "Move to the last row", "list"),
    _action("open", "enter", "open", "Open the row under the cursor", "list", 9),
    # Changes of the selection.
    _action(
        "toggle_task", "space", "toggle", "Toggle the task; on Tasks, the marked ones or the range", "tasks matrix", 10
    ),
    _action("toggle_this", "i", "in/out", "Toggle the task", "task", 14),
    _action("mark_row", "space", "mark", "Mark the example or the range, or remove the mark", "task", 5),
    _action("range_rows", "v", "range", "Start a range of examples, or mark it", "task", 6),
    _action("drop_rows", "x", "drop", "Drop or restore the marked examples, or the one here", "task", 7),
    _action("drop_harmful", "X", "drop worst", "Drop the most harmful examples", "task", 8),
    _action("note", "n", "note", "Write a note: on the example, task or selection", "home tasks task compare"),
    _action("note_task", "N", "note task", "Write a note on the task", "task"),
    _action("show_rows", "d", "which", "Show all, harmful, marked or dropped examples", "task", 17),
    _action("range", "v", "range", "Start or end a range of rows", "tasks", 11),
    _action("mark", "m", "mark", "Mark the task, to change several tasks at once", "tasks"),
    _action("take_shown", "a", "all in", "Add all shown tasks, except pinned tasks", "tasks"),
    _action("drop_shown", "A", "all out", "Remove all shown tasks, except pinned tasks", "tasks"),
    _action("invert_shown", "i", "invert", "Invert all shown tasks, except pinned tasks", "tasks"),
    _action("pin", "p", "pin", "Pin in, pin out, or unpin (automatic methods keep pins)", "tasks task", 12),
    _action("fill", "f", "fill up", "Fill up by a method, within limits, and keep the pins", "tasks", 17),
    _action("undo", "u", "undo", "Undo the last change", "home tasks task matrix compare", 15),
    _action("redo", "U ctrl+r", "redo", "Redo the last undone change", "home tasks task matrix compare"),
    _action("save", "w ctrl+s", "save", "Save the selection under a name", "home tasks task matrix compare", 18),
    _action("selections", "o", "selections", "Load, rename, delete or annotate a selection", "home tasks compare"),
    _action("rename", "r", "rename", "Rename the saved selection under the cursor", "home"),
    _action("delete", "x", "delete", "Delete the saved selection under the cursor (undo: u)", "home"),
    # Views.
    _action("filter", "slash", "filter", "Filter the tasks by name, tag, source or number", "tasks matrix", 13),
    _action("find", "slash", "search", "Show only the examples that contain a text", "task", 13),
    _action("next_match", "n", "next match", "Go to the next match", "runs"),
    _action("previous_match", "N", "previous match", "Go to the previous match", "runs"),
    _action("sort", "s", "sort", "Sort by the next column", "tasks task compare", 14),
    _action("reverse", "S", "reverse", "Reverse the sort order", "tasks task compare"),
    _action("columns", "C", "columns", "Choose the columns of the table", "tasks", 71),
    _action("order", "b", "best order", "Show the loss of the best order, and take a part of it", "tasks"),
    _action("next_task", "right_square_bracket", "next", "Open the next task (the target is last)", "task", 13),
    _action("previous_task", "left_square_bracket", "previous", "Open the previous task", "task", 16),
    _action("next_pane", "tab", "pane", "Move to the next pane", "home task runs", 22),
    _action("tokens", "t", "tokens", "Switch between text and tokens", "task", 14),
    _action("copy", "y", "copy", "Send to the clipboard of the terminal", "task runs compare", 24),
    _action("left", "h left", "left", "Move to the previous column", "matrix"),
    _action("right", "l right", "right", "Move to the next column", "matrix"),
    _action("zoom", "plus equals_sign", "zoom", "Show wide cells with numbers", "matrix", 11),
    _action("unzoom", "minus", "zoom out", "Show narrow cells", "matrix"),
    _action("arrange", "o", "order", "Order by cluster, affinity or name", "matrix", 12),
    _action("transpose", "t", "transpose", "Swap rows and columns", "matrix", 16),
    # Jobs.
    _action("start", "R", "run", "Start a stage as a job (survives this terminal)", "any", 40),
    _action("stop", "x", "stop", "Stop the job (finished work is kept)", "runs", 41),
    _action("resume", "r", "resume", "Resume the job with the same command", "runs", 42),
    _action("follow", "f", "follow", "Follow the end of the log", "runs", 43),
    _action("log_scale", "L", "log scale", "Switch between linear and logarithmic loss axis", "runs", 44),
    _action("search", "slash", "search", "Search the log of the job", "runs", 45),
    # Results.
    _action("compare", "c", "compare", "Compare this selection with saved selections", "home tasks", 50),
    _action("pick", "p", "pick", "Pick the selections to compare", "compare", 10),
    _action("swap", "X", "swap", "Swap the first two selections", "compare", 12),
    _action("show_which", "d", "which", "Show all tasks, different tasks, only A, or only B", "compare", 11),
    _action(
        "verify",
        "V",
        "verify",
        "Verify estimates against measured losses, measure more",
        "home tasks runs compare",
        55,
    ),
    _action(
        "measure", "M", "measure", "Measure this selection, with the time shown before", "home tasks task compare", 54
    ),
    _action("report", "E", "report", "Write a report of the saved selection as one HTML file", "home tasks compare"),
    _action("export", "e", "export", "Export files for a trainer", "home tasks task compare", 60),
)


def actions_of(place: str) -> list[Action]:
    """Return the actions of one place, in the order of the table."""
    return [action for action in ACTIONS if place in action.places]


def bindings_of(place: str) -> list[BindingType]:
    """Return the key bindings of one place, for `BINDINGS` of a class."""
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
    """Return the name of a key for display: `?` for `question_mark`."""
    name = _SHOWN.get(key, key)
    return name.upper() if len(name) > 1 and name[0] == "f" and name[1:].isdigit() else name
