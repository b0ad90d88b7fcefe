"""Tell ids of the hub from paths."""

import re

# The hub's own rule: an owner and a name of letters, digits and `-_.`. Neither begins or ends with `-` or `.`.
_ID = re.compile(r"[A-Za-z0-9_](?:[\w.-]*\w)?/[A-Za-z0-9_](?:[\w.-]*\w)?", re.ASCII)
_LONGEST = 200


def is_hub_id(text: str) -> bool:
    """Return whether a text is the id of a model or data set on the hub: `owner/name`."""
    return len(text) <= _LONGEST and _ID.fullmatch(text) is not None and ".." not in text


def checked_hub_id(text: str) -> str:
    """Return the id of a data set, or an empty text.

    Raises:
        ValueError: The text is neither empty nor a hub id.
    """
    if text and not is_hub_id(text):
        raise ValueError(f"not a hub id: {text!r:.200} (write `owner/name`, or name a local place in `path`)")
    return text
