"""Compute projected per-example gradients.

Takes the checkpoints of meta-training and a corpus.
Computes the gradient of every example and projects it to `projection_dim` numbers.
Returns rows of the store, found by example and checkpoint.
"""
