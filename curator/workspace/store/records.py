"""Rows of the store as frozen dataclasses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Outputs of a stage, with the inputs that determine them."""

    stage: str
    key: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExample:
    """One example: its text, and its tokens for the model."""

    number: int
    """Position in the task, from 0."""
    file: str
    line: int
    hash: str
    """Hash of the content, independent of the tokenizer."""
    token_hash: str
    """Hash of `input_ids` and `labels`, which determine the gradient."""
    text: str
    spans: tuple[int, ...]
    """Alternating start and end, in characters, of each part of `text` that has loss."""
    input_ids: "Sequence[int] | npt.NDArray[np.int32]"
    labels: "Sequence[int] | npt.NDArray[np.int32]"
    """Token ids that have loss, −100 elsewhere. Tokens of the decoder for an encoder–decoder model."""
    completion_tokens: int
    truncated: bool
    left_out: str | None
    """Reason why the example cannot be trained on, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """One version of a task: its examples, with the inputs that determine them."""

    key: str
    name: str
    examples: Sequence[StoredExample]
    inputs: dict[str, Any]
    outputs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleIndex:
    """Small columns of a task's examples, in the order of the task."""

    hashes: list[str]
    token_hashes: list[str]
    lengths: list[int]
    """Tokens of each example."""
    completion_tokens: list[int]
    truncated: list[bool]
    left_out: list[str | None]


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """Token ids of the examples of one task, in the order of the task."""

    ids: "npt.NDArray[np.int32]"
    """Token ids of all examples, one after the other. The array can hold other tasks, too."""
    ends: "npt.NDArray[np.int64]"
    """Start of the first example in `ids`, then the end of each example (examples + 1)."""

    def of(self, number: int) -> "npt.NDArray[np.int32]":
        """Return the token ids of one example (length,)."""
        return self.ids[self.ends[number] : self.ends[number + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSelection:
    """One selection with its manifest."""

    key: str
    """Hash of the inputs that determine the selection."""
    name: str
    target: str
    """Names of the targets, joined by `+`."""
    method: str
    loss: float
    """Estimated loss, nats per target token."""
    manifest: str
    """The manifest as JSON. Its paths are relative to the project."""
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """One session with its whole history."""

    id: str
    edits: "tuple[StoredEdit, ...]"
    """Entries of the history, oldest first. A session has at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEdit:
    """One entry in the history of a session that edits a selection by hand."""

    number: int
    """Position in the session's history, from 0."""
    kind: str
    label: str
    """Description of the edit for people."""
    changes: dict[str, Any]
    loss: float | None
    """Estimated loss after the edit, in nats per target token. None if it was unknown."""
    made: datetime
