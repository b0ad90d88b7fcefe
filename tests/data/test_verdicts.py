"""Labels and splits of rows are understood in view of the other rows of their task."""

import json
from pathlib import Path
from typing import Any

import pytest
from reading import json_lines, read_text


def _problems(folder: Path, *rows: dict[str, Any], **options: Any) -> list[str]:
    return [row.problem.partition("\n")[0] for row in read_text(folder, "t.jsonl", json_lines(*rows), **options)]


def _pair(prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


@pytest.mark.parametrize(("good", "bad"), [(1, 0), ("1", "0"), (1.0, 0.0), (1, -1)])
def test_read_task_answer_with_the_label_zero_is_not_learned(tmp_path: Path, good: Any, bad: Any) -> None:
    rows = [_pair("q", "a", label=good), _pair("q", "b", label=bad), _pair("r", "c", label=good)]
    words = f"preference data, not an example to learn: 'label' is {bad}, so the answer is not wanted"
    assert _problems(tmp_path, *rows) == ["", words, ""]
    assert not any(_problems(tmp_path, *rows, columns={"prompt": "prompt", "completion": "completion"}))
    chats = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 2
    labelled = [chats[0] | {"Label": good}, chats[1] | {"Label": bad}]
    assert [bool(problem) for problem in _problems(tmp_path, *labelled)] == [False, True]


@pytest.mark.parametrize(
    "rows",
    [
        [_pair("q", "yes", label=1), _pair("r", "no", label=0), _pair("s", "Yes", label=1)],
        [_pair("q", "a", label=1), _pair("r", "b", label=0), _pair("s", "c", label=2)],
        [_pair("q", answer, label=int(answer != "no")) for answer in ("yes", "no", "yes.") * 3],
        [_pair("q", "a", label=0), _pair("r", "b", label=0)],
        [{"text": "q", "label": 0}, {"text": "r", "label": 1}],
        [_pair("q", "a", label=""), _pair("r", "b", label=0)],
    ],
)
def test_read_task_label_that_is_a_class_refuses_no_row(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert not any(_problems(tmp_path, *rows))


@pytest.mark.parametrize("name", ["split", "Split", "data_split"])
def test_read_task_row_of_a_test_split_is_refused_with_the_filter_to_set(tmp_path: Path, name: str) -> None:
    rows = [_pair("q", "a", **{name: "train"}), _pair("r", "b", **{name: "test"}), _pair("s", "c", **{name: "dev"})]
    read = read_text(tmp_path, "t.jsonl", json_lines(*rows))
    assert [row.problem.partition("\n")[0] for row in read] == [
        "",
        f"the row belongs to the split 'test', by its column {name!r}",
        f"the row belongs to the split 'dev', by its column {name!r}",
    ]
    assert f'Set column = "{name}" and value = "train" in [[data.task]]' in read[1].problem
    for value, completion in (("train", "a"), ("test", "b")):
        (row,) = read_text(tmp_path, "t.jsonl", json_lines(*rows), column=name, value=value)
        assert row.content["completion"] == completion


def test_read_task_split_that_names_no_training_rows_refuses_no_row(tmp_path: Path) -> None:
    assert not any(_problems(tmp_path, _pair("q", "a", split="test"), _pair("r", "b", split="validation")))
    assert not any(_problems(tmp_path, _pair("q", "a", split="train"), _pair("r", "b", split="en")))


def test_read_task_wrong_answers_of_a_csv_file_are_named_with_their_lines(tmp_path: Path) -> None:
    read = read_text(tmp_path, "t.csv", "question,answer,label\nq,a,1\nq,b,0\n")
    assert [(row.line, bool(row.problem)) for row in read] == [(2, False), (3, True)]
    (row,) = read_text(tmp_path, "t.json", json.dumps([_pair("q", "a", label=0)]))
    assert not row.problem
