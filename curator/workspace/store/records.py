"""What is put into the store and found in it, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What a stage made, and from what."""

    stage: str
    key: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExample:
    """One example as it was read and as the model sees it."""

    number: int
    """Position in the task, from 0."""
    file: str
    line: int
    hash: str
    """Hash of the content, whatever the tokenizer."""
    token_hash: str
    """Hash of `input_ids` and `labels`: what a gradient depends on."""
    text: str
    spans: tuple[int, ...]
    """Start and end of each part of `text` that carries loss, in characters, one after the other."""
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """Token ids that carry loss, −100 elsewhere; for an encoder–decoder the decoder's tokens."""
    completion_tokens: int
    truncated: bool
    left_out: str | None
    """Why the example cannot be trained on, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """One version of a task: its examples, and what they were made from."""

    key: str
    name: str
    examples: Sequence[StoredExample]
    inputs: dict[str, Any]
    outputs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleIndex:
    """The light columns of a task's examples, in the task's order."""

    hashes: list[str]
    token_hashes: list[str]
    lengths: list[int]
    """Tokens of each example."""
    completion_tokens: list[int]
    truncated: list[bool]
    left_out: list[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSelection:
    """A selection with its manifest."""

    key: str
    """Hash of what decides the selection."""
    name: str
    target: str
    """Label of the targets: their names, joined."""
    method: str
    loss: float
    """Estimated loss, nats per target token."""
    manifest: str
    """The manifest as JSON; its paths are relative to the project."""
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEdit:
    """One entry in the history of a session in which somebody changes a selection by hand."""

    number: int
    """Position in the session's history, from 0."""
    kind: str
    label: str
    """What was done, in words."""
    changes: dict[str, Any]
    loss: float | None
    """Estimated loss after it, in nats per target token, if it was known."""
    made: datetime
