"""The version of curator. `pyproject.toml` holds the same one."""

__version__ = "0.1.0"
