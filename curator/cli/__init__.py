"""The `curator` command.

Takes command-line arguments.
Opens a project and calls one verb.
Prints the report as a table or as JSON, and exits with a documented code.
"""
