"""Examples as padded tensors, and the loss of each example of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.tokens import IGNORED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """What the model is given for one example."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """For a causal model as long as `input_ids`, −100 where there is no loss; else the decoder's tokens."""

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.input_ids), len(self.labels))


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
        batch: From `collate`, on the model's device.
        encoder_decoder: Whether the labels are the decoder's; else they are shifted by one.

    Returns:
        Losses (n,), nats per token, in float32 or better, with their graph.
    """
    import torch
    from torch.nn import functional

    labels = batch["labels"]
    if encoder_decoder:
        logits = model(**batch).logits
    else:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        labels = labels[:, 1:]
    # Half precision is not enough for a sum over the vocabulary.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    tokens = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    counted = (labels != IGNORED).sum(dim=1).clamp(min=1)
    return tokens.sum(dim=1) / counted
