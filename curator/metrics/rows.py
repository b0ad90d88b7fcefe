"""Read the held-out rows of the targets, as tokens and as they stand in their files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from curator.core.errors import DataError
from curator.core.provenance import hash_of
from curator.data.corpus import Corpus
from curator.data.discovery import find_held_out, find_tasks
from curator.data.model_files import load_architecture, load_tokenizer
from curator.data.rows import Row
from curator.data.task_rows import read_task
from curator.data.tokens import Encoder, TokenizedExample
from curator.metrics.base import HeldOut, Part
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def held_out_rows(workspace: Workspace, corpus: Corpus, part: Part) -> list[HeldOut]:
    """Return the held-out rows of every target. The list is empty if a target has no rows in the part.

    Args:
        workspace: The project.
        corpus: Tasks of the project, split for the targets.
        part: Part of the held-out rows.
    """
    found = []
    for task in corpus.target_tasks:
        version, numbers = task.held_out(part)
        tokens = workspace.store.tokens(version.key) if numbers else []
        found.append(
            HeldOut(
                task=task,
                part=part,
                share=workspace.config.data.share_of(task.name, corpus.targets),
                version=version,
                numbers=numbers,
                examples=[TokenizedExample(*tokens[n]) for n in numbers],
            )
        )
    return found if all(rows.numbers for rows in found) else []


def rows_hash(rows: Sequence[HeldOut]) -> str:
    """Return a hash of the tokens of held-out rows and of the shares of the targets."""
    return hash_of(
        text
        for held in rows
        for text in (held.task.name, repr(held.share), *(held.version.index.token_hashes[n] for n in held.numbers))
    )


def read_again(workspace: Workspace, held: HeldOut) -> list[Row]:
    """Return held-out rows as they stand in their files, which hold more than the store keeps.

    Args:
        workspace: The project.
        held: Held-out rows of one target.

    Raises:
        DataError: A file cannot be read, or has changed since curator read it.
    """
    name, data = held.task.name, workspace.config.data
    source = None
    if held.version is not held.task.version:
        source = find_held_out(data, name, workspace.root, held.part)
    if source is None:
        source = next(found for found in find_tasks(data, workspace.root) if found.name == name)
    read = read_task(replace(source, name=name), keep_bad=True)
    hashes = held.version.index.hashes
    if len(read) != len(hashes) or any(read[n].hash != hashes[n] for n in held.numbers):
        raise DataError(
            f"files of target {name!r} have changed during the command: {source.place}",
            hint="Run the same command again.",
        )
    return [read[n] for n in held.numbers]


def project_tokenizer(workspace: Workspace, corpus: Corpus) -> tuple["PreTrainedTokenizerBase", bool]:
    """Return the tokenizer of the project's model, and whether the model is an encoder–decoder.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        ConfigError: The chat template is not valid.
        DataError: The tokenizer cannot be read.
    """
    section, model = workspace.config.model, corpus.model
    architecture = load_architecture(model.folder, section)
    tokenizer = load_tokenizer(model.folder, section, model.chat_template)
    return tokenizer, bool(getattr(architecture, "is_encoder_decoder", False))


def project_encoder(workspace: Workspace, corpus: Corpus) -> Encoder:
    """Return the encoder of the project's model, as it encoded the stored examples.

    Arguments and errors are those of `project_tokenizer`.
    """
    tokenizer, encoder_decoder = project_tokenizer(workspace, corpus)
    return Encoder(tokenizer, max_length=workspace.config.data.max_length, encoder_decoder=encoder_decoder)
