"""Embed tasks by the base model's hidden states, averaged over tokens and then over examples.

The adapter is off. The states are the last hidden states of a decoder, or of the encoder of an encoder–decoder.
The store caches the mean of each task by the hash of its examples. Only new tasks need the model.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from curator.core.arrays import Floats
from curator.core.config import Config
from curator.core.errors import ConfigError, DataError, NumericalError
from curator.core.provenance import hash_of, key_of
from curator.data.corpus import Corpus, Task, training_examples, validation_examples
from curator.data.tokens import TokenizedExample
from curator.training.batches import by_length, collate
from curator.training.meta_init import LoadModel
from curator.training.model import TunedModel
from curator.training.sharding import is_sharded
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch


# Increase when the same examples give other embeddings.
_VERSION = 1
_COMMIT_SECONDS = 10.0


def find_embeddings(workspace: Workspace, corpus: Corpus) -> Floats | None:
    """Return the mean embedding of each task of a corpus, in its order (n, d). None if one is not stored.

    The examples of a target are its training and its validation examples.
    """
    contents = [_content(task) for task in corpus.tasks]
    hashes, _, vectors = workspace.store.gradients(_set_key(workspace.config, corpus), sorted(set(contents)))
    rows = {content: row for row, content in enumerate(hashes)}
    if not rows.keys() >= set(contents):
        return None
    return vectors[[rows[content] for content in contents]].astype(np.float64)


def task_embeddings(workspace: Workspace, corpus: Corpus, load: LoadModel) -> Floats:
    """Return the mean embedding of each task of a corpus, in its order (n, d). Embed tasks that are not stored.

    Args:
        workspace: The project.
        corpus: The tasks.
        load: Returns the model.

    Raises:
        DataError: The model has no hidden states.
        NumericalError: Hidden states are not finite.
        StoreBusy: Another process works on the project.
    """
    found = find_embeddings(workspace, corpus)
    if found is None:
        with workspace.job("embedding"):
            make_embeddings(workspace, corpus, load)
        found = find_embeddings(workspace, corpus)
        assert found is not None
    return found


def make_embeddings(workspace: Workspace, corpus: Corpus, load: LoadModel) -> None:
    """Embed the tasks that are not stored. Store finished tasks also on an interruption.

    Args:
        workspace: The project.
        corpus: The tasks.
        load: Returns the model.

    Raises:
        DataError: The model has no hidden states.
        NumericalError: Hidden states are not finite.
        ConfigError: Several processes share the model, of which only the main one selects.
    """
    if is_sharded(workspace.config.model):
        raise ConfigError(
            "cannot embed tasks in several processes with model.shard",
            hint="Start curator in one process, or choose another --method.",
        )
    store = workspace.store
    key = _set_key(workspace.config, corpus)
    there = store.gradient_hashes(key)
    missing = {content: task for task in corpus.tasks if (content := _content(task)) not in there}
    count = sum(len(task.split.train) + len(task.split.validation) for task in missing.values())
    tuned = load()
    stage = workspace.reporter.stage("embedding", count, "examples")
    waiting: dict[str, Floats] = {}
    last = time.monotonic()
    try:
        for content, task in missing.items():
            examples = _examples(task, store)
            waiting[content] = embed(tuned, examples, batch_tokens=workspace.config.gradients.batch_tokens).mean(axis=0)
            if not np.isfinite(waiting[content]).all():
                del waiting[content]
                raise NumericalError(
                    f"hidden states of task {task.name!r} are not finite", hint="Set model.dtype to float32."
                )
            stage.advance(len(examples))
            if time.monotonic() - last > _COMMIT_SECONDS:
                _commit(store, key, waiting)
                waiting, last = {}, time.monotonic()
    except (KeyboardInterrupt, NumericalError):
        _commit(store, key, waiting)
        raise
    _commit(store, key, waiting)
    stage.finish(f"{count} examples of {len(missing)} tasks")


def embed(tuned: TunedModel, examples: Sequence[TokenizedExample], *, batch_tokens: int) -> Floats:
    """Average the base model's last hidden states over the tokens of each example.

    Args:
        tuned: Model. Its adapter is off during the call.
        examples: Examples (n). A decoder reads prompt and completion, an encoder reads the prompt.
        batch_tokens: Tokens of a batch, padding included.

    Returns:
        Embeddings (n, d).

    Raises:
        DataError: The model has no hidden states.
    """
    tuned.model.eval()
    found: Floats | None = None
    with tuned.model.disable_adapter(), tuned.inference():
        for positions in by_length([len(example.input_ids) for example in examples], batch_tokens):
            batch = collate([examples[p] for p in positions])
            means = _means(tuned, batch).cpu().double().numpy()
            found = np.zeros((len(examples), means.shape[1])) if found is None else found
            found[positions] = means
    return np.zeros((0, 0)) if found is None else found


def _means(tuned: TunedModel, batch: dict[str, "torch.Tensor"]) -> "torch.Tensor":
    """Return the mean hidden state over each row's tokens, without padding (n, d)."""
    model = cast("Any", tuned.model.get_base_model())
    # Skip the output layer: its logits over the vocabulary are not needed.
    body = model.get_encoder() if tuned.encoder_decoder else model.base_model
    mask = batch["attention_mask"].to(tuned.device)
    states = getattr(
        body(input_ids=batch["input_ids"].to(tuned.device), attention_mask=mask), "last_hidden_state", None
    )
    if states is None:
        raise DataError(
            f"cannot embed tasks: {type(model).__name__} has no hidden states",
            hint="Choose another --method.",
        )
    weights = mask[:, :, None].to(states.device)
    return cast("torch.Tensor", (states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))


def _set_key(config: Config, corpus: Corpus) -> str:
    model = {"sha256": corpus.model.sha256, "dtype": config.model.dtype, "quantization": config.model.quantization}
    return key_of({"embedding": _VERSION, "model": model})


def _content(task: Task) -> str:
    return hash_of([*task.train_hashes, "", *task.validation_hashes])


def _examples(task: Task, store: Store) -> list[TokenizedExample]:
    held_out = validation_examples(task, store) if task.split.validation else []
    return training_examples(task, store) + held_out


def _commit(store: Store, key: str, means: dict[str, Floats]) -> None:
    if means:
        store.put_gradients(key, list(means), np.zeros(len(means)), np.stack(list(means.values())).astype(np.float32))
