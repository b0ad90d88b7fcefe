"""Estimate the loss of any subset without training on it.

Takes projected gradients, validation losses and measured runs.
Sums gradients per task and solves small linear systems for each subset.
Returns estimated losses with intervals, affinities and what-if answers.
"""
