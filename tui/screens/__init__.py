"""Screens, one module each. `base.py` holds the base class.

Takes snapshots and sessions.
Shows snapshots and sessions, and reacts to keys.
Returns nothing: every change goes through the application.
"""
