"""Measure a fine-tuned model on the held-out rows by the metric that the user reports.

Takes a model with its adapter, and the held-out rows of the targets.
Measures the loss, exact matches, choices among answers, a task of lm-eval, or a command of the user.
Returns values with their standard errors.
"""
