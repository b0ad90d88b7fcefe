"""The DuckDB store of a project. No other package imports duckdb.

Takes records, gradients and sums of the stages.
Stores them in one file, by short transactions under a lock file.
Returns the same records by the hash of their inputs.
"""
