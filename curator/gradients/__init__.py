"""Compute projected per-example gradients.

Takes a meta-training and a corpus.
Captures the gradients of training examples during the training, and computes the others in passes.
Returns projected gradients and their sums over tasks, as rows of the store.
"""
