"""The DuckDB store of a project. No other package imports duckdb.

Takes records, gradients and sums of the stages.
Keeps them in one file, in short transactions under a lock file.
Returns the same records, found by the hash of their inputs.
"""
