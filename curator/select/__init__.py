"""Choose a subset of auxiliary tasks from the estimates.

Takes an estimator, affinities, budgets and pinned tasks.
Searches by forward, backward, exchange or another method.
Returns a selection and its manifest.
"""
