"""Parse the name of a metric, as `[verify] metric` and `--metric` write it."""

import shlex
from dataclasses import dataclass

KINDS = ("loss", "exact_match", "choice")
"""Metrics without an argument."""
LM_EVAL, COMMAND = "lm-eval", "command"
LOSS = "loss"


@dataclass(frozen=True, slots=True)
class MetricName:
    """Name of a metric.

    Attributes:
        kind: `loss`, `exact_match`, `choice`, `lm-eval` or `command`.
        argument: Task of `lm-eval`, or words of `command`. Empty for the other kinds.
    """

    kind: str
    argument: str = ""

    def __str__(self) -> str:
        """Return the name as the configuration writes it."""
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    @property
    def words(self) -> list[str]:
        """Return the argument split into words, as a shell splits them."""
        return shlex.split(self.argument)


def parse_metric(text: str) -> MetricName:
    """Parse the name of a metric.

    Raises:
        ValueError: The text names no metric. The message says what is allowed.
    """
    kind, colon, argument = text.partition(":")
    argument = argument.strip()
    if not colon and kind in KINDS:
        return MetricName(kind)
    if kind not in (LM_EVAL, COMMAND) or "\0" in text:
        raise ValueError(f"must be one of {', '.join(KINDS)}, lm-eval:TASK and command:WORDS, not {text[:80]!r}")
    if not argument:
        raise ValueError(f"{kind}: needs {'a task' if kind == LM_EVAL else 'a command'} after the colon")
    if kind == COMMAND:
        try:
            words = shlex.split(argument)
        except ValueError as error:
            raise ValueError(f"the words of the command cannot be split: {error}") from error
        if not words or not words[0]:
            raise ValueError("command: needs a program after the colon")
    return MetricName(kind, argument)
