"""Trees of messages become conversations, and each message is read, named or refused."""

from pathlib import Path
from typing import Any

from reading import json_lines, read_text


def _message(name: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    role = "prompter" if parent is None or more.pop("asks", False) else "assistant"
    return {"message_id": name, "parent_id": parent, "role": role, "text": text, **more}


FLAT = [
    _message("c", "a", "best", rank=0),
    _message("a", None, "hi"),
    _message("b", "a", "worse", rank=1),
    _message("d", "c", "and?", asks=True),
    _message("e", "d", "one"),
    _message("f", "d", "two"),
    _message("g", "c", "bye", asks=True),
]
TURNS = [
    [("user", "hi", True), ("assistant", "best", True), ("user", "and?", True), ("assistant", "one", True)],
    [("user", "hi", True), ("assistant", "best", False), ("user", "and?", True), ("assistant", "two", True)],
]
NOTES = {
    "answers that people ranked below another answer are left out",
    "messages of users without an answer are left out",
}


def _turns(rows: list[Any]) -> list[list[tuple[str, str, bool]]]:
    return [[(t["role"], t["content"], t.get("train", True)) for t in row.content["messages"]] for row in rows]


def test_read_task_flat_messages_give_one_row_per_path_and_learn_each_answer_once(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", json_lines(*FLAT))
    assert _turns(rows) == TURNS
    assert set(rows[0].notes) == NOTES
    assert "messages[].message_id" in rows[0].unused


def test_read_task_trees_give_the_same_rows_as_their_messages(tmp_path: Path) -> None:
    nodes = {message["message_id"]: message | {"replies": []} for message in FLAT}
    for node in nodes.values():
        if node["parent_id"]:
            nodes[node["parent_id"]]["replies"].append(node)
    tree = {"message_tree_id": "a", "tree_state": "ready", "prompt": nodes["a"]}
    rows = read_text(tmp_path, "t.jsonl", json_lines(tree, tree))
    assert _turns(rows) == TURNS * 2
    assert set(rows[0].notes) == NOTES


def test_read_task_removed_messages_are_left_out_and_named(tmp_path: Path) -> None:
    rows = read_text(
        tmp_path,
        "t.jsonl",
        json_lines(_message("a", None, "hi"), _message("b", "a", "no", deleted=True), _message("c", "a", "yes")),
    )
    assert _turns(rows) == [[("user", "hi", True), ("assistant", "yes", True)]]
    assert rows[0].notes == (
        "messages that are deleted or that a review refused are left out, with the replies to them",
    )


def test_read_task_messages_outside_of_conversations_are_refused_by_line(tmp_path: Path) -> None:
    rows = read_text(
        tmp_path,
        "t.jsonl",
        json_lines(
            _message("a", None, "hi"),
            _message("b", "a", "yes"),
            _message("x", "gone", "lost"),
            _message("y", "z", "round", asks=True),
            _message("z", "y", "and round"),
            _message("a", None, "again"),
        ),
    )
    assert {row.line: row.problem.partition("\n")[0] for row in rows if row.problem} == {
        3: "the message belongs to no conversation: no first message leads to it",
        4: "the message belongs to no conversation: no first message leads to it",
        5: "the message belongs to no conversation: no first message leads to it",
        6: "two messages have the same id: 'a'",
    }
    assert _turns([row for row in rows if not row.problem]) == [[("user", "hi", True), ("assistant", "yes", True)]]
