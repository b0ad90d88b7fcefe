"""Modal dialogs, one module each.

Takes what the screen knows.
Asks one question.
Returns a plain value, or None if the user cancels.
"""
