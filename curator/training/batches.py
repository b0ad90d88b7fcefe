"""Pad examples to tensors, group them into batches, and compute the loss of each example."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curator.data.tokens import IGNORED, TokenizedExample

if TYPE_CHECKING:
    import torch


def collate(examples: Sequence[TokenizedExample]) -> dict[str, "torch.Tensor"]:
    """Pad the examples of a batch on the right. The attention mask hides the padding, so its token id is arbitrary.

    Args:
        examples: Examples of the batch (n).

    Returns:
        `input_ids` and `attention_mask` (n, longest input), and `labels` (n, longest labels).
    """
    import torch

    width = max(len(e.input_ids) for e in examples)
    label_width = max(len(e.labels) for e in examples)
    input_ids = torch.zeros((len(examples), width), dtype=torch.long)
    attention = torch.zeros((len(examples), width), dtype=torch.long)
    labels = torch.full((len(examples), label_width), IGNORED)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        attention[row, : len(example.input_ids)] = 1
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return {"input_ids": input_ids, "attention_mask": attention, "labels": labels}


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group examples of similar length into batches of at most `budget` tokens, including padding.

    The longest batch is first, so a batch that exceeds the memory fails at once.

    Args:
        lengths: Length of each example in tokens (n).
        budget: Maximum number of tokens of a batch. A longer example is a batch of its own.

    Yields:
        Positions in `lengths` of the examples of one batch.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        width = lengths[batch[0]] if batch else lengths[position]
        if batch and (len(batch) + 1) * width > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def example_losses(
    model: "torch.nn.Module", batch: dict[str, "torch.Tensor"], *, encoder_decoder: bool
) -> "torch.Tensor":
    """Compute the loss of each example: the mean negative log-likelihood of the tokens that carry loss.

    Args:
        model: Causal model or encoder–decoder.
        batch: Result of `collate`. In main memory, reading the labels causes no wait for the device.
        encoder_decoder: Whether the labels are those of a decoder. The labels of a causal model are shifted by one.

    Returns:
        Losses (n,) in nats per token, at least float32, with their graph, on the model's device.
    """
    import torch
    from torch.nn import functional

    device = next(model.parameters()).device
    labels = batch["labels"] if encoder_decoder else batch["labels"][:, 1:]
    rows, places = (labels != IGNORED).nonzero(as_tuple=True)
    wanted = labels[rows, places]
    inputs: dict[str, Any] = {name: _to(tensor, device) for name, tensor in batch.items()}
    if not encoder_decoder:
        inputs.pop("labels")
        if _can_skip_logits(model):
            # The output layer is a large part of a small model, so logits before the first completion are skipped.
            first = int(places.min()) if len(places) else 0
            inputs["logits_to_keep"] = batch["input_ids"].shape[1] - first
            places = places - first
    logits = model(**inputs).logits[_to(rows, device), _to(places, device)]
    # Half precision is too coarse for a sum over the vocabulary.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    tokens = functional.cross_entropy(logits, _to(wanted, device), reduction="none")
    # A sum by index has a random order on a GPU, so the losses are placed in a matrix and summed by row.
    placed = logits.new_zeros(labels.shape).index_put((_to(rows, device), _to(places, device)), tokens)
    counts = torch.bincount(rows, minlength=len(labels)).clamp(min=1)
    losses: torch.Tensor = placed.sum(dim=1) / _to(counts, device)
    return losses


def loss_tokens(batch: Mapping[str, "torch.Tensor"], encoder_decoder: bool) -> "torch.Tensor":
    """Count the tokens of each example that carry loss (n,). A causal model predicts no first token."""
    labels = batch["labels"] if encoder_decoder else batch["labels"][:, 1:]
    return (labels != IGNORED).sum(dim=1)


def _to(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    if tensor.device == device:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _can_skip_logits(model: "torch.nn.Module") -> bool:
    """Return whether the model can compute only the logits of the last tokens."""
    model = getattr(model, "module", model)
    base = getattr(model, "get_base_model", lambda: model)()
    return "logits_to_keep" in inspect.signature(base.forward).parameters
