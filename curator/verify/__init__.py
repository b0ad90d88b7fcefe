"""Fine-tune on some subsets and compare measured with estimated losses.

Takes estimates and a number of runs.
Chooses probe subsets, measures them and calibrates later estimates.
Returns a report of errors, rank correlation and interval coverage.
"""
