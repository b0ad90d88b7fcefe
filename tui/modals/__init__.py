"""Dialogs, one module each; every one returns a plain value or None."""
