"""The terminal interface. `curator tui` is its only front door.

app.py         the application: what is open, who is told of what
actions.py     one registry of all that can be done: keys, footer, help, command palette
workspace.py   what the store knows about one target, read at once
session.py     the selection in hand: states, edits, undo
view.py        which tasks are shown, and in which order
thinking.py    estimates in a thread of their own
watch.py       runs, read from their logs
screens/  modals/  widgets/
"""
