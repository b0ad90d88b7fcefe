"""A task without a usable example says why, with the number of each reason."""

import json

import pytest
from conftest import MakeProject, write_rows
from hostile import run_cli

from curator.data.left_out import BAD, CUT_OFF, EMPTY, NO_ANSWER, explain, why_empty


@pytest.mark.parametrize(
    ("reasons", "problems", "words", "hint"),
    [
        ([EMPTY, EMPTY, CUT_OFF], {}, "2 empty, 1 completion cut off by max_length", "Add a completion"),
        ([CUT_OFF, None], {}, "1 completion cut off by max_length", "Raise max_length under [data]"),
        ([BAD] * 3, {"x": 2, "y": 1}, "3 cannot be used: 2 × x; 1 × y", "Correct these rows"),
        ([BAD] * 4, dict.fromkeys("abcd", 1), "4 cannot be used: 1 × a; 1 × b; 1 × c; 1 more", "Correct these rows"),
        ([], {}, "", "Add examples"),
    ],
)
def test_explain_reasons_lists_counts_and_the_next_action(
    reasons: list[str | None], problems: dict[str, int], words: str, hint: str
) -> None:
    assert explain(reasons, problems)[0] == words
    assert explain(reasons, problems)[1].startswith(hint)


@pytest.mark.parametrize("task", ["alpha", "target"])
def test_check_task_without_usable_examples_names_the_reasons(make_project: MakeProject, task: str) -> None:
    folder = make_project()
    preferences = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(3)]
    long = [{"prompt": f"q{n} " + "word " * 3000, "completion": "a"} for n in range(2)]
    write_rows(folder / "tasks" / f"{task}.jsonl", [*preferences, *long, {"prompt": "q", "completion": ""}])
    done = run_cli("check", "-p", folder, "--skip-bad-rows", "--json").check(3 if task == "target" else 0)
    (row,) = [row for row in json.loads(done.out)["tasks"] if row["name"] == task]
    for words in (row["problem"], done.err if task == "target" else row["problem"]):
        assert "3 cannot be used: 3 × preference data, not an example to learn" in words
        assert f"2 {CUT_OFF}" in words
        assert f"1 {EMPTY}" in words


def test_why_empty_chat_without_an_assistant_is_not_called_empty() -> None:
    assert why_empty({"messages": [{"role": "user", "content": "q"}]}) == NO_ANSWER
    assert why_empty({"messages": [{"role": "assistant", "content": " "}]}) == EMPTY
    assert why_empty({"prompt": "q", "completion": ""}) == EMPTY
    assert why_empty({"prompt": "q", "completion": "a"}) is None
