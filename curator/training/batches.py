"""Examples as padded tensors, and the loss of each example of a batch."""

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curator.data.tokens import IGNORED, TokenizedExample

if TYPE_CHECKING:
    import torch


def collate(examples: Sequence[TokenizedExample]) -> dict[str, "torch.Tensor"]:
    """Pad on the right; the attention mask hides what was filled up, so any token id serves.

    Args:
        examples: The batch (n).

    Returns:
        `input_ids` and `attention_mask` (n, longest), `labels` (n, longest).
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
    """Group examples of similar length into batches of at most `budget` tokens, padding included; longest first.

    Longest first, so that a batch that does not fit into memory shows at once.

    Args:
        lengths: Tokens of each example.
        budget: Most tokens of a batch; an example that is longer by itself is a batch of its own.

    Yields:
        Positions in `lengths`.
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
    """Loss of each example: the mean negative log-likelihood of the tokens that carry loss.

    Args:
        model: The model.
        batch: From `collate`, in main memory: what is asked of the labels then makes no device wait.
        encoder_decoder: Whether the labels are the decoder's; else they are shifted by one.

    Returns:
        Losses (n,), nats per token, in float32 or better, with their graph, on the model's device.
    """
    import torch
    from torch.nn import functional

    device = next(model.parameters()).device
    labels = batch["labels"] if encoder_decoder else batch["labels"][:, 1:]
    rows, places = (labels != IGNORED).nonzero(as_tuple=True)
    wanted = labels[rows, places]
    inputs: dict[str, Any] = {name: _to(tensor, device) for name, tensor in batch.items()}
    if not encoder_decoder:
        del inputs["labels"]
        if _can_skip_logits(model):
            # The vocabulary is a large part of a small model: nothing is asked before the first completion token.
            first = int(places.min()) if len(places) else 0
            inputs["logits_to_keep"] = batch["input_ids"].shape[1] - first
            places = places - first
    logits = model(**inputs).logits[_to(rows, device), _to(places, device)]
    # Half precision is not enough for a sum over the vocabulary.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    tokens = functional.cross_entropy(logits, _to(wanted, device), reduction="none")
    # Laid out and summed, rather than added by index: on a GPU that has no fixed order.
    laid = logits.new_zeros(labels.shape).index_put((_to(rows, device), _to(places, device)), tokens)
    counts = torch.bincount(rows, minlength=len(labels)).clamp(min=1)
    losses: torch.Tensor = laid.sum(dim=1) / _to(counts, device)
    return losses


def _to(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _can_skip_logits(model: "torch.nn.Module") -> bool:
    """Whether the model can be asked for the logits of the last tokens alone."""
    base = getattr(model, "get_base_model", lambda: model)()
    return "logits_to_keep" in inspect.signature(base.forward).parameters
