"""Recognise that the memory is used up, and refuse a limit of memory below what every command needs."""

import resource

from curator.core.errors import DataError

# Virtual memory of `curator check` on a small project. Imports of libraries take nearly all of it.
_NEEDED = 1_750_000_000
_WORDS = (
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "failed to allocate",
    "failed to map segment",
    "insufficient memory",
    "out of memory",
    "std::bad_alloc",
    "unable to allocate",
)


def refuse_small_memory() -> None:
    """Raise an error if the system limits virtual memory to less than every command needs.

    Libraries crash without a message if the memory is used up while they are imported.

    Raises:
        DataError: The limit is too small.
    """
    limit = _limit()
    if limit is not None and limit < _NEEDED:
        raise DataError(
            f"the limit of virtual memory is {limit / 1e6:,.0f} MB, but curator needs {_NEEDED / 1e6:,.0f} MB",
            hint="Raise the limit with `ulimit -v`.",
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or the error that caused it, means that no memory is left."""
    while error is not None:
        words = str(error).lower()
        if isinstance(error, MemoryError) or any(known in words for known in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_memory(error: BaseException) -> tuple[str, str]:
    """Return message and hint for an error that means that no memory is left."""
    limit = _limit()
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if limit is not None:
        return (
            f"error: out of memory: the limit of virtual memory is {limit / 1e6:,.0f} MB: {reason}",
            "Raise the limit with `ulimit -v`.",
        )
    return f"error: out of memory: {reason}", "Lower the values under [gradients] or [lora]."


def _limit() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
