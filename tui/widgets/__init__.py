"""Widgets that Textual does not have.

Takes plain values.
Draws the values.
Returns messages when the user acts.
"""
