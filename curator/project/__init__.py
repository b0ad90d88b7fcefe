"""The Python API: `Project` and its verbs.

Takes a project folder and the arguments of one verb.
Runs the stages that are missing, each once.
Returns the report of the verb.
"""
