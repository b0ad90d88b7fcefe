"""One project folder: its store, its jobs and their logs.

Takes a folder with a `curator.toml`.
Opens the DuckDB store under locks and starts jobs as processes.
Returns a `Workspace`, rows of the store and records of jobs.
"""
