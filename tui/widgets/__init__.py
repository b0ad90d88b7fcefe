"""Widgets that Textual does not have.

Takes plain values.
Draws them.
Returns messages when the user acts.
"""
