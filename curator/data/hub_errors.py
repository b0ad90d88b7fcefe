"""Word the error of a hub that cannot be reached."""

import os

from curator.core.errors import DataError


def unreachable(kind: str, name: str, error: BaseException) -> DataError:
    """Return the error for a missing model or data set while the hub cannot be reached.

    Args:
        kind: "model" or "data set".
        name: Hub id.
        error: Error of the library.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    while error.__cause__ is not None:
        error = error.__cause__
    reason = "HF_HUB_OFFLINE is set" if offline else (str(error).splitlines() or [type(error).__name__])[0]
    option, setting = ("", "`name_or_path`") if kind == "model" else ("--repo-type dataset ", "`path`")
    return DataError(
        f"{kind} {name!r} is not a local folder and not in the cache, and the hub cannot be reached: {reason}",
        hint=f"Run `hf download {option}{name}` where the hub can be reached, and set {setting} to the folder."
        " Or correct the name.",
    )
