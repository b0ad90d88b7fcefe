"""Modal dialogs, one module each.

Takes values from the screen.
Asks one question.
Returns a plain value, or None if the user cancels.
"""
