"""What the screens show: plain values without Textual.

Takes a project's store and the user's edits.
Keeps the selection in progress, its undo history, filters and comparisons.
Returns snapshots that widgets draw.
"""
