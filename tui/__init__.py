"""The terminal interface. Only `curator tui` starts it.

From the top down; a line imports only from the lines below it:

app.py          the application: opens screens and dialogs, starts jobs
screens/        one module for each screen
dialogs/        one module for each modal dialog
widgets/        tables, lists, plots and lines of text; commands.py is the command palette
app_base.py     the state of the application and what screens may ask of it; settings.py holds preferences
state/          plain values: snapshot of the project, session, filters, comparisons
background/     threads: estimates, jobs, load of the machine
actions.py      one table of all actions, for keys, footer, help and the command palette
themes.py       colours
"""
