"""One module for each export format, named like the format.

Takes a plan with the rows of each task.
Writes data files and the configuration that one trainer reads.
Returns the names of the files.
"""
