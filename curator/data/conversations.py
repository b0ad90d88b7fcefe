"""Turn trees of messages, as of Open Assistant, into conversations.

Each path from the first message to a last answer is one conversation. An answer that several conversations share
carries loss in the first of them only. Where people ranked the answers to a message, only the best one is read.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from curator.core.errors import DataError
from curator.data.raw import Note, RawRow

Message = dict[str, Any]

_RANKED = Note("answers that people ranked below another answer are left out")
_REMOVED = Note("messages that are deleted or that a review refused are left out, with the replies to them")
_UNANSWERED = Note("messages of users without an answer are left out")
_OWN = ("text", "content", "role", "replies")
# Fields of the first message that a filter may select tasks by.
_OF_TREE = ("message_tree_id", "lang")


def is_tree(row: Message) -> bool:
    """Return whether a row is a tree: a `prompt` that holds its `replies`."""
    prompt = row.get("prompt")
    return isinstance(prompt, dict) and prompt.keys() >= {"text", "role", "replies"}


def is_message(row: Message) -> bool:
    """Return whether a row is one message of a tree, which names its parent."""
    return row.keys() >= {"parent_id", "role"} and bool({"message_id", "id"} & row.keys()) and _text(row) is not None


def conversations_of_tree(row: Message) -> Iterator[Message | DataError | Note]:
    """Yield the conversations of a tree as rows of the format `messages`.

    Args:
        row: A row for which `is_tree` holds.
    """
    outside = {name: value for name, value in row.items() if name != "prompt"}
    for conversation in _conversations(row["prompt"]):
        yield conversation if isinstance(conversation, Note) else outside | conversation


def read_messages(raw: Iterable[RawRow]) -> Iterator[RawRow]:
    """Yield the conversations of messages that name their parents. Messages may stand in any order.

    Args:
        raw: Lines and messages.

    Yields:
        0 and the fields of each conversation, the errors and notes of `raw`, and an error for each message that belongs
        to no conversation.
    """
    nodes: dict[str, tuple[int, Message]] = {}
    for line, row in raw:
        if not isinstance(row, dict):
            yield line, row
            continue
        name = str(row.get("message_id", row.get("id")))
        if name in nodes:
            hint = "Give each message an id of its own."
            yield line, DataError(f"two messages have the same id: {name!r:.60}", hint=hint)
        else:
            nodes[name] = line, {**row, "replies": []}
    roots = [node for _, node in nodes.values() if _is_first(node)]
    for _, node in nodes.values():
        if not _is_first(node) and str(node["parent_id"]) in nodes:
            nodes[str(node["parent_id"])][1]["replies"].append(node)
    reached, waiting = {id(root) for root in roots}, list(roots)
    while waiting:
        replies = waiting.pop()["replies"]
        reached.update(map(id, replies))
        waiting += replies
    for line, node in nodes.values():
        if id(node) not in reached:
            yield (
                line,
                DataError(
                    "the message belongs to no conversation: no first message leads to it",
                    hint="Add the messages before it, or remove it.",
                ),
            )
    for root in roots:
        for conversation in _conversations(root):
            yield 0, conversation


def _is_first(message: Message) -> bool:
    parent = message.get("parent_id")
    # pandas writes NaN for an empty cell.
    return parent is None or parent == "" or parent != parent


def _conversations(root: Message) -> Iterator[Message | Note]:
    shared = {name: root[name] for name in _OF_TREE if root.get(name) is not None}
    seen: Counter[int] = Counter()
    notes: dict[Note, None] = {}
    paths = [[root]] if not _is_removed(root) else []
    if not paths:
        notes[_REMOVED] = None
    while paths:
        path = paths.pop()
        replies = _kept(path[-1].get("replies"), notes)
        if replies:
            paths += [[*path, reply] for reply in reversed(replies)]
            continue
        answers = [number for number, message in enumerate(path) if message.get("role") == "assistant"]
        if not answers or answers[-1] + 1 < len(path):
            notes[_UNANSWERED] = None
        path = path[: answers[-1] + 1] if answers else []
        # Without its last question, a path may equal one that was read before.
        if path and not seen[id(path[-1])]:
            yield shared | {"messages": [_turn(message, learned=not seen[id(message)]) for message in path]}
            seen.update(map(id, path))
    yield from notes


def _kept(found: Any, notes: dict[Note, None]) -> list[Message]:
    """Return the replies that are read, and add why the others are not."""
    replies = [reply for reply in found if isinstance(reply, dict)] if isinstance(found, list) else []
    kept = [reply for reply in replies if not _is_removed(reply)]
    if len(kept) < len(replies):
        notes[_REMOVED] = None
    answers = [reply for reply in kept if reply.get("role") == "assistant"]
    ranked = [reply for reply in answers if isinstance(reply.get("rank"), int | float)]
    if not ranked or len(answers) == 1:
        return kept
    notes[_RANKED] = None
    best = min(ranked, key=lambda reply: reply["rank"])
    return [reply for reply in kept if reply is best or reply.get("role") != "assistant"]


def _is_removed(message: Message) -> bool:
    return message.get("deleted") is True or message.get("review_result") is False


def _turn(message: Message, *, learned: bool) -> Message:
    """Return a turn. It keeps the other fields of its message, so that they are reported as unused."""
    turn = {name: value for name, value in message.items() if name not in _OWN}
    turn |= {"role": message.get("role"), "content": _text(message)}
    return turn if learned or message.get("role") != "assistant" else turn | {"train": False}


def _text(message: Message) -> Any:
    return message.get("text") if message.get("text") is not None else message.get("content")
