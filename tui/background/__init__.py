"""Threads behind the screens. No module here imports Textual.

Takes sessions, job logs and the machine's load.
Estimates, watches jobs and measures the machine in threads.
Returns results by callbacks.
"""
