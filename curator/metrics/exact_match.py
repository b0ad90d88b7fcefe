"""The metric `exact_match`: share of rows whose answer the model writes exactly, by greedy generation.

The model reads a row up to its last answer, as the chat template writes it. It writes at most as many tokens as the
longest answer of the rows has. Its text ends at the first token that ends a text or a turn.

Both texts are normalised before the comparison: Unicode form NFC, and no special tokens. Each run of white space
becomes one space. White space at both ends is removed. Case and punctuation count.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.core.errors import ConfigError, DataError
from curator.data.model_files import first_line
from curator.data.tokens import IGNORED, TokenizedExample
from curator.metrics.base import HeldOut, MetricValue, proportion, weighted
from curator.training.model import TunedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def normalised(text: str) -> str:
    """Return a text in Unicode form NFC, with single spaces, and without white space at both ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True, slots=True)
class Question:
    """Hold what the model reads, and the tokens that it should write."""

    prompt: Sequence[int]
    answer: Sequence[int]


def question_of(example: TokenizedExample, *, encoder_decoder: bool) -> Question:
    """Split an example at the start of its last answer.

    Args:
        example: Tokens and labels of the example.
        encoder_decoder: Whether the labels are those of a decoder.

    Returns:
        The prompt and the answer. The prompt is empty for a text that has no prompt.
    """
    if encoder_decoder:
        return Question(example.input_ids, example.labels)
    labels = list(example.labels)
    end = len(labels)
    while end and labels[end - 1] == IGNORED:
        end -= 1
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    return Question(list(example.input_ids)[:start], labels[start:end])


class ExactMatch:
    """Share of rows whose answer the model writes exactly.

    Args:
        tokenizer: Tokenizer of the model.
        encoder_decoder: Whether the model is an encoder–decoder.
        batch_tokens: Maximum number of tokens of a batch, padding and generated tokens included.
    """

    name = "exact_match"
    version = 1
    reads_rows = True
    in_process = True
    bounds = (0.0, 1.0)
    settings = ""
    higher_is_better = True

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, encoder_decoder: bool, batch_tokens: int) -> None:
        self._tokenizer, self._encoder_decoder, self._batch_tokens = tokenizer, encoder_decoder, batch_tokens

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Check that each target has rows with a prompt and a whole answer.

        Raises:
            ConfigError: A target has no such row.
        """
        for held in rows:
            if not self._questions(held):
                raise ConfigError(
                    f"metric 'exact_match' needs rows with a prompt and a whole answer:"
                    f" no {held.part} row of target {held.task.name!r} has both",
                    hint='Use rows with `prompt` and `completion`, or set metric = "loss" under [verify].',
                )

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Let the model answer every row. Rows that `max_length` cuts off are left out.

        Raises:
            DataError: The settings of the model for writing are impossible.
        """
        found = []
        for held in rows:
            questions = self._questions(held)
            written = self.answers(tuned, questions)
            hits = [self._matches(q, text) for q, text in zip(questions, written, strict=True)]
            found.append((held.share, proportion(hits)))
        return weighted(found)

    def answers(self, tuned: TunedModel, questions: Sequence[Question]) -> list[list[int]]:
        """Return the tokens that the model writes after each prompt, up to the first token that ends an answer.

        Args:
            tuned: The model.
            questions: Prompts and answers (n).

        Raises:
            DataError: The settings of the model for writing are impossible.
        """
        tuned.model.eval()
        stops = self._stops(tuned, questions)
        longest = max((len(q.answer) for q in questions), default=0)
        written: list[list[int]] = [[] for _ in questions]
        with tuned.inference():
            for positions in _batches([len(q.prompt) for q in questions], longest, self._batch_tokens):
                prompts = [questions[p].prompt for p in positions]
                for position, ids in zip(positions, self._generate(tuned, prompts, longest, stops), strict=True):
                    written[position] = ids
        return written

    def _generate(
        self, tuned: TunedModel, prompts: Sequence[Sequence[int]], longest: int, stops: set[int]
    ) -> list[list[int]]:
        import torch
        from transformers import GenerationConfig

        width = max(map(len, prompts))
        pad = self._pad(stops)
        ids = torch.full((len(prompts), width), pad)
        attention = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            # An encoder reads from the left. A decoder continues at the right end.
            place = slice(0, len(prompt)) if self._encoder_decoder else slice(width - len(prompt), width)
            ids[row, place] = torch.tensor(list(prompt))
            attention[row, place] = 1
        room = getattr(tuned.model.config, "max_position_embeddings", None)
        if room and not self._encoder_decoder:
            longest = max(1, min(longest, room - width))
        # LoRA's layers are in the base model. peft's own `generate` would replace its settings.
        base: Any = tuned.model.get_base_model()
        own = base.generation_config
        # Every setting that changes greedy generation is set, because models bring settings of their own.
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_new_tokens=0,
            max_new_tokens=longest,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=sorted(stops) or None,
            bos_token_id=_token(own.bos_token_id),
            decoder_start_token_id=_token(own.decoder_start_token_id),
        )
        base.generation_config = settings
        try:
            out: torch.Tensor = base.generate(
                input_ids=ids.to(tuned.device), attention_mask=attention.to(tuned.device), generation_config=settings
            )
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"the model cannot write an answer: {first_line(error)}",
                hint="Correct generation_config.json of the model, or choose another metric under [verify].",
            ) from error
        finally:
            base.generation_config = own
        skipped = 1 if self._encoder_decoder else width
        return [_until(row, stops) for row in out[:, skipped:].tolist()]

    def _questions(self, held: HeldOut) -> list[Question]:
        special = set(self._tokenizer.all_special_ids)
        found = []
        for position, example in enumerate(held.examples):
            question = question_of(example, encoder_decoder=self._encoder_decoder)
            if question.answer and not held.is_truncated(position) and not special.issuperset(question.prompt):
                found.append(question)
        return found

    def _stops(self, tuned: TunedModel, questions: Sequence[Question]) -> set[int]:
        """Return the tokens that end an answer: those of the model, and special tokens in the answers."""
        base: Any = tuned.model.get_base_model()
        ends = base.generation_config.eos_token_id
        stops = {end for end in (ends if isinstance(ends, list) else [ends]) if _token(end) is not None}
        if self._tokenizer.eos_token_id is not None:
            stops.add(int(self._tokenizer.eos_token_id))
        special = set(self._tokenizer.all_special_ids)
        return stops | {token for question in questions for token in question.answer if token in special}

    def _pad(self, stops: set[int]) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad) if pad is not None else min(stops, default=0)

    def _matches(self, question: Question, written: Sequence[int]) -> bool:
        if not set(self._tokenizer.all_special_ids).intersection(question.answer):
            # No token ends this answer, so text after it does not count.
            written = written[: len(question.answer)]
        return self._text(written) == self._text(question.answer)

    def _text(self, ids: Sequence[int]) -> str:
        return normalised(str(self._tokenizer.decode(list(ids), skip_special_tokens=True)))


def _token(value: object) -> int | None:
    """Return the number of a token. None for any other value: `generation_config.json` is not checked."""
    return value if type(value) is int and 0 <= value < 2**31 else None


def _until(ids: list[int], stops: set[int]) -> list[int]:
    """Return the tokens before the first one that ends an answer."""
    return ids[: next((place for place, token in enumerate(ids) if token in stops), len(ids))]


def _batches(lengths: Sequence[int], longest: int, budget: int) -> Iterator[list[int]]:
    """Group prompts of similar length, so that prompts and answers of a batch have at most `budget` tokens."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        width = lengths[batch[0]] if batch else lengths[position]
        if batch and (len(batch) + 1) * (width + longest) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
