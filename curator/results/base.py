"""What the verbs of a `Project` return: frozen values, each with the JSON document that `--json` prints."""

# Digits after the point of every loss and affinity that leaves the program: far below the noise, and far above what
# the order of a sum changes, so that the same inputs print the same.
_DIGITS = 6


def rounded(value: float) -> float:
    """A loss or an affinity as it leaves the program."""
    return round(float(value), _DIGITS)


def rounded_if_known(value: float | None) -> float | None:
    """The same of one that may not be known."""
    return None if value is None else rounded(value)


SCHEMA_VERSION = 1


def one_or_list(names: tuple[str, ...]) -> str | list[str]:
    """One name as itself, several as a list."""
    return names[0] if len(names) == 1 else list(names)
