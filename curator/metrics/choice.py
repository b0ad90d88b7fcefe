"""The metric `choice`: share of rows whose right answer has the highest probability among the row's `choices`.

The score of a choice is the sum of the log-probabilities of its tokens after the row's prompt. The chat template
writes both, as in training. The right choice is the row's answer.
"""

from collections.abc import Sequence

from curator.core.errors import ConfigError
from curator.data.bad_rows import rows_refusal
from curator.data.corpus import Corpus
from curator.data.rows import Content, Row
from curator.data.tokens import Encoded, Encoder, TokenizedExample
from curator.metrics.base import HeldOut, MetricValue, proportion, weighted
from curator.metrics.exact_match import normalised
from curator.metrics.rows import project_encoder, read_again
from curator.training.batches import by_length, collate, example_losses, loss_tokens
from curator.training.model import TunedModel
from curator.workspace.workspace import Workspace

_HINT = "Add a list `choices` to each row, with the answer among them."
# Choices of one row, and the position of the right one.
_Question = tuple[list[TokenizedExample], int]


class Choice:
    """Share of rows whose right choice is the most probable one.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
    """

    name = "choice"
    version = 1
    reads_rows = True
    in_process = True
    bounds = (0.0, 1.0)
    settings = ""
    higher_is_better = True

    def __init__(self, workspace: Workspace, corpus: Corpus) -> None:
        self._workspace, self._corpus = workspace, corpus
        self._encoder: Encoder | None = None
        self._known: dict[tuple[str, str], list[_Question]] = {}

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Check that every row has choices and an answer among them.

        Raises:
            ConfigError: A row has no choices, or its answer is not among them.
            DataError: The rows cannot be read again.
        """
        for held in rows:
            self._questions(held)

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Compare the choices of every row. Rows that `max_length` cuts off are left out."""
        return weighted([(held.share, proportion(self._hits(tuned, self._questions(held)))) for held in rows])

    def _hits(self, tuned: TunedModel, questions: Sequence[_Question]) -> list[bool]:
        scores = iter(_log_probabilities(tuned, [c for choices, _ in questions for c in choices], self._budget))
        found = []
        for choices, right in questions:
            own = [next(scores) for _ in choices]
            found.append(own.index(max(own)) == right)
        return found

    @property
    def _budget(self) -> int:
        return self._workspace.config.gradients.batch_tokens

    def _questions(self, held: HeldOut) -> list[_Question]:
        key = (held.task.name, held.part)
        if key not in self._known:
            if self._encoder is None:
                self._encoder = project_encoder(self._workspace, self._corpus)
            found = [self._question(row, held) for row in read_again(self._workspace, held)]
            self._known[key] = [question for question in found if question is not None]
        if not self._known[key]:
            raise ConfigError(
                f"no {held.part} row of target {held.task.name!r} fits into max_length with its choices",
                hint="Raise max_length under [data].",
            )
        return self._known[key]

    def _question(self, row: Row, held: HeldOut) -> _Question | None:
        """Return the choices of a row, or None if `max_length` cuts one off."""
        assert self._encoder is not None
        place = f"{row.place}: metric 'choice'"
        if row.problem:
            raise rows_refusal([row], 1, held.task.name)
        answer = _answer(row.content)
        if answer is None:
            raise ConfigError(f"{place}: the row has no single answer in words", hint=_HINT)
        if not row.choices:
            raise ConfigError(f"{place}: the row has no choices", hint=_HINT)
        plain = [normalised(choice) for choice in row.choices]
        if normalised(answer) not in plain:
            raise ConfigError(f"{place}: the answer is not among the choices: {answer!r:.60}", hint=_HINT)
        right = plain.index(normalised(answer))
        encoded = [
            self._encoder.encode(_with_answer(row.content, _spaced(choice, answer) if n != right else answer))
            for n, choice in enumerate(row.choices)
        ]
        if any(e.truncated or not e.completion_tokens for e in encoded):
            return None
        return [_tokens(e) for e in encoded], right


def _tokens(encoded: Encoded) -> TokenizedExample:
    return TokenizedExample(encoded.input_ids, encoded.labels)


def _answer(content: Content) -> str | None:
    """Return the answer of a row: its completion, or the last turn if it is the assistant's."""
    if "messages" in content:
        last = content["messages"][-1]
        plain = last["role"] == "assistant" and "tool_calls" not in last
        return str(last["content"]) if plain else None
    return next((str(content[name]) for name in ("completion", "response") if name in content), None)


def _with_answer(content: Content, answer: str) -> Content:
    """Return a row's content with another answer."""
    if "messages" in content:
        return content | {"messages": [*content["messages"][:-1], content["messages"][-1] | {"content": answer}]}
    return content | {"completion" if "completion" in content else "response": answer}


def _spaced(choice: str, answer: str) -> str:
    """Return a choice with the white space that surrounds the row's answer."""
    start = len(answer) - len(answer.lstrip())
    return answer[:start] + choice.strip() + answer[len(answer.rstrip()) :]


def _log_probabilities(tuned: TunedModel, examples: Sequence[TokenizedExample], budget: int) -> list[float]:
    """Return the summed log-probability of the tokens that carry loss, for each example (n)."""
    tuned.model.eval()
    found = [0.0] * len(examples)
    with tuned.inference():
        for positions in by_length([e.length for e in examples], budget):
            batch = collate([examples[p] for p in positions])
            losses = example_losses(tuned.model, batch, encoder_decoder=tuned.encoder_decoder).cpu().double()
            sums = -losses * loss_tokens(batch, tuned.encoder_decoder)
            for position, score in zip(positions, sums.tolist(), strict=True):
                found[position] = score
    return found
