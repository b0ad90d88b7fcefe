"""What curator keeps: examples, gradients, estimates, selections, and what each was made from, in one DuckDB file.

    access.py    transactions, backups
    instances.py DuckDB instances, kept between accesses
    locks.py     who may, in which order
    schema.py    tables and migrations
    measured.py  measured losses
    reading.py   every row that can be read, in a process of its own
    check.py     whether the store is sound, and what can be saved of it
    sums.py      sums over gradients
    queries.py   SQL from outside, on views
    records.py   rows, as Python sees them
    tables.py    `Store`: reading and writing them

The only package that speaks to DuckDB.
"""

from curator.store.access import DAMAGED
from curator.store.measured import Measurement
from curator.store.queries import LISTING, Present
from curator.store.records import Artifact, ExampleIndex, StoredEdit, StoredExample, StoredTask
from curator.store.tables import Store

__all__ = [
    "DAMAGED",
    "LISTING",
    "Artifact",
    "ExampleIndex",
    "Measurement",
    "Present",
    "Store",
    "StoredEdit",
    "StoredExample",
    "StoredTask",
]
