"""Screens, one module each. `base.py` holds what all of them share.

Takes snapshots and sessions.
Shows them and reacts to keys.
Returns nothing: every change goes through the application.
"""
