"""Define one export format in each module. A module has the name of its format.

`FORMAT` lists the forms of a row, the kinds of data files, and the command that trains. Its function `files` returns
the text of the trainer's configuration.
"""
