"""Parsers of files in `.curator/`, of exports, and of lists that commands read."""

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from curator.cli.selection_commands import _read_subsets
from curator.core.errors import CuratorError
from curator.data.dropped import read_dropped
from curator.data.importers.exports import read_export
from curator.data.importers.importer import ImportedConfig
from curator.export.plan import _earlier_export
from curator.gradients.capture import visit_dtype
from curator.gradients.example_groups import ExampleGroup
from curator.gradients.metric import Metric
from curator.gradients.visits import Visits
from curator.workspace.store.measured import RunDetails
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.store.records import StoredEdit
from curator.workspace.store.tables import Store
from tui.dialogs.export import export_in
from tui.state.session import Session

_HASH = "0" * 64
_NAMES = ("a", "b")
# One value for each column that holds JSON, under the name of its table.
_VALUES: dict[str, Any] = {
    "artifacts": {"rows": [1, 2], "name": "a", "loss": 0.5},
    "edits": {
        "tasks": {"a": [1, 0]},
        "base": ["", "b"],
        "of": None,
        "drops": {"a": [[_HASH], []]},
        "selection": ["a"],
    },
    "measurements": {"a": _HASH},
    "metric_values": {"a": _HASH},
    "run_details": {"a": {"before": 1.0, "after": 0.5, "trained": True, "held_out": False}},
}
_RECORD = {
    "format": "trl",
    "written": {"a.jsonl": _HASH, "sft.yaml": _HASH},
    "tasks": [
        {
            "name": "a",
            "file": "a.jsonl",
            "rows_of_data": "a.jsonl",
            "validation": "",
            "validation_of_data": "",
            "target": True,
        }
    ],
}
_DIM = 4


def _value(table: str) -> bytes:
    return table.encode() + b"\n" + json.dumps(_VALUES[table]).encode()


@functools.cache
def _store() -> Store:
    """Make a store with one row in each table that holds JSON."""
    store = Store(Path(tempfile.mkdtemp(prefix="curator-fuzz-")) / "store.duckdb")
    store.put_artifact("task", "key", {"a": 1}, _VALUES["artifacts"])
    edit = StoredEdit(number=0, kind="set", label="a", changes=_VALUES["edits"], loss=None, made=datetime.now(UTC))
    store.put_edits("session", "t", [edit])
    store.put_measurement("recipe", "t", {"a": _HASH}, seed=0, loss=1.0, seconds=1.0, details=RunDetails())
    metric = StoredMetric(
        metric="m", part="", version="1", value=1.0, standard_error=None, examples=1, higher_is_better=True
    )
    store.put_metrics("recipe", "t", {"a": _HASH}, seed=0, values=[metric])
    return store


_UPDATES = {
    "artifacts": "UPDATE artifacts SET outputs = ?",
    "edits": "UPDATE edits SET changes = ?",
    "measurements": "UPDATE measurements SET subset = ?",
    "metric_values": "UPDATE metric_values SET subset = ?",
    "run_details": "UPDATE run_details SET task_losses = ?",
}


def _stored_value(folder: Path, content: bytes) -> None:
    """Put a damaged text into a column, and read it as the commands and the interface do."""
    name, _, text = content.decode("utf-8", "replace").partition("\n")
    store, table = _store(), name if name in _UPDATES else "edits"
    with store.write() as connection:
        for other, statement in _UPDATES.items():
            connection.execute(statement, [text if other == table else json.dumps(_VALUES[other])])
        # The subset joins the two tables.
        connection.execute("UPDATE run_details SET subset = (SELECT subset FROM measurements)")
    readers: dict[str, Callable[[], Any]] = {
        "artifacts": lambda: [dict(artifact.outputs) for artifact in store.artifacts("task")],
        "edits": lambda: _replay(store),
        "measurements": lambda: store.measurements("recipe"),
        "metric_values": lambda: store.metrics("recipe"),
        "run_details": lambda: store.measurements("recipe"),
    }
    readers[table]()


def _replay(store: Store) -> None:
    for stored in store.sessions("t"):
        # `continue_session` calls a history with this error damaged.
        with contextlib.suppress(ValueError):
            Session.replay(_NAMES, stored.edits)


def _record(folder: Path, content: bytes) -> None:
    """Read the record of an export as an export does that replaces it, as `curator init` does, and as the dialog."""
    (folder / "a.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n')
    (folder / "sft.yaml").write_bytes(b"model_name_or_path: m\n")
    (folder / "curator-manifest.json").write_bytes(b'{"name": "a", "lora": {"r": 2}, "train": {"epochs": 1}}')
    (folder / "curator-export.json").write_bytes(content)
    export_in(folder)
    for read in (
        lambda: _earlier_export(folder),
        lambda: read_export(folder, [folder], lambda path: ImportedConfig(path=path, trainer="trl")),
    ):
        with contextlib.suppress(CuratorError):
            read()


def _dropped(folder: Path, content: bytes) -> None:
    (folder / "dropped.jsonl").write_bytes(content)
    read_dropped(folder / "dropped.jsonl")


def _subsets(folder: Path, content: bytes) -> None:
    (folder / "subsets.json").write_bytes(content)
    _read_subsets(folder / "subsets.json")


def _whole_visits() -> bytes:
    visits = np.zeros(3, dtype=visit_dtype(_DIM))
    visits["step"], visits["position"], visits["length"] = [1, 2, 3], [0, 1, 0], 1.0
    visits["direction"] = np.eye(_DIM)[:3]
    return visits.tobytes()


def _visits(folder: Path, examples: bytes, visits: bytes) -> None:
    """Sum captured gradients from the list of examples and the file of visits."""
    (folder / "examples.json").write_bytes(examples)
    (folder / "visits-0000.bin").write_bytes(visits)
    groups = [ExampleGroup(hashes=["x"], weights=[1.0]), ExampleGroup(hashes=["y"], weights=[1.0])]
    found = Visits(folder, dim=_DIM, rank=2, groups=groups, names=["a"])
    found.unvisited([0, 1], (0, 3))
    found.sums((0, 3), found.basis(2, (0, 3)))


_EXAMPLES = json.dumps([["a", ["x"]], ["t", ["y"]]]).encode()


def _metric(folder: Path, content: bytes) -> None:
    (folder / "metric.safetensors").write_bytes(content)
    Metric.load(folder, torch.device("cpu"))


PARSERS: dict[str, tuple[Callable[[], Sequence[bytes]], Callable[[Path, bytes], None]]] = {
    "values in a store": (lambda: [_value(table) for table in _VALUES], _stored_value),
    "record of an export": (lambda: [json.dumps(_RECORD, indent=1).encode()], _record),
    "list of dropped examples": (lambda: [json.dumps({"task": "a", "sha256": _HASH}).encode() + b"\n"], _dropped),
    "list of subsets": (lambda: [b'[["a", "b"], ["c"]]'], _subsets),
    "examples of a capture": (lambda: [_EXAMPLES], lambda folder, text: _visits(folder, text, _whole_visits())),
    "visits of a capture": (lambda: [_whole_visits()], lambda folder, text: _visits(folder, _EXAMPLES, text)),
    "weights as safetensors": (lambda: [save({"a": torch.ones(3), "b": torch.ones(2)})], _metric),
}
"""Valid texts and the call of a parser, by the name of the parser."""
