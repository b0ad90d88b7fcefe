"""Foundations that every other room uses: configuration, errors, events, files and text.

Takes the configuration file, environment variables and the file system.
Checks values, writes files atomically, reports progress and cleans untrusted text.
Returns frozen configuration values, typed events and errors with a hint.
"""
