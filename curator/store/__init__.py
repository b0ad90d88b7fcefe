"""What curator keeps: examples, gradients, estimates, selections, and what each was made from, in one DuckDB file.

    access.py   locks, connections, transactions
    schema.py   tables and migrations
    measured.py measured losses
    sums.py     sums over gradients
    tables.py   `Store`: reading and writing them

The only package that speaks to DuckDB.
"""

from curator.store.measured import Measurement
from curator.store.tables import Artifact, ExampleIndex, Store, StoredEdit, StoredExample, StoredTask

__all__ = ["Artifact", "ExampleIndex", "Measurement", "Store", "StoredEdit", "StoredExample", "StoredTask"]
