"""Rows of public data sets are read in their own shape, and refused rows get the line to paste."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from reading import json_lines, read_text

from curator.data.sources import Source
from curator.data.task_rows import read_task

Q = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def _one(folder: Path, row: Any, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """Return content and unused columns of the only row of a file."""
    (read,) = read_text(folder, "t.jsonl", json_lines(row), **options)
    assert not read.problem
    return read.content, read.unused


def _problem(folder: Path, row: Any) -> tuple[str, str]:
    """Return problem and hint of the only row of a file."""
    (read,) = read_text(folder, "t.jsonl", json_lines(row))
    problem, _, hint = read.problem.partition("\n")
    return problem, hint


def test_read_task_big_bench_prefixes_and_choices_are_in_the_instruction(tmp_path: Path) -> None:
    task = {
        "name": "sums",
        "task_prefix": "Add.\n",
        "example_input_prefix": "Q: ",
        "example_output_prefix": "\nA: ",
        "examples": [
            {"input": "2+2", "target_scores": {"5": 0, "4": 1}},
            {"input": "1+1", "target": ["2", "two"]},
            {"input": "3+3", "target_scores": {"b": 1, "a": 1, "c": 0}},
        ],
    }
    rows = read_text(tmp_path, "task.json", task)
    assert [row.content for row in rows] == [
        {"instruction": "Add.\nQ: 2+2\n  choice: 4\n  choice: 5\nA:", "response": "4"},
        {"instruction": "Add.\nQ: 1+1\nA:", "response": "2"},
        {"instruction": "Add.\nQ: 3+3\n  choice: a\n  choice: b\n  choice: c\nA:", "response": "a"},
    ]
    assert [row.unused for row in rows] == [("name",), ("name", "target[1:]"), ("name", "target[1:]")]


def test_read_task_big_bench_without_appended_choices_or_with_own_prefix_follows_the_task(tmp_path: Path) -> None:
    examples = [{"input": "2+2", "target_scores": {"5": 0, "4": 1}}]
    (row,) = read_text(tmp_path, "t.json", {"append_choices_to_input": False, "examples": examples})
    assert row.content == {"instruction": "2+2", "response": "4"}
    (row,) = read_text(tmp_path, "t.json", {"choice_prefix": "\n- ", "examples": examples})
    assert row.content == {"instruction": "2+2\n- 4\n- 5", "response": "4"}


def test_read_task_big_bench_equal_scores_are_refused(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.json", {"examples": [{"input": "x", "target_scores": {"a": 1, "b": 1}}]})
    assert row.problem.startswith("all 2 choices in 'target_scores' have the same score")


def test_read_task_super_natural_instructions_gives_a_row_per_instance(tmp_path: Path) -> None:
    task = {
        "Contributors": ["me"],
        "Definition": ["Name it."],
        "Positive Examples": [{"input": "x", "output": "y"}],
        "Instances": [{"id": "1", "input": "q", "output": ["a"]}, {"id": "2", "input": "r", "output": ["b", "c"]}],
    }
    rows = read_text(tmp_path, "task1_x.json", task)
    assert [row.content for row in rows] == [
        {"instruction": "Name it.\n\nq", "response": "a"},
        {"instruction": "Name it.\n\nr", "response": "b"},
    ]
    assert rows[0].unused == ("id", "Contributors", "Positive Examples")
    assert "output[1:]" in rows[1].unused


def test_read_task_self_instruct_gives_a_row_per_instance_of_each_line(tmp_path: Path) -> None:
    seeds = [
        {
            "id": "s1",
            "instruction": "Add.",
            "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "0"}],
        },
        {"id": "s2", "instruction": "Sing.", "instances": [{"input": "", "output": "la"}]},
    ]
    rows = read_text(tmp_path, "t.jsonl", json_lines(*seeds))
    assert [(row.content["instruction"], row.content["response"]) for row in rows] == [
        ("Add.\n\n1 1", "2"),
        ("Add.", "0"),
        ("Sing.", "la"),
    ]
    assert rows[0].unused == ("id",)


def test_read_task_squad_is_read_nested_and_flat(tmp_path: Path) -> None:
    answers = [{"text": "a", "answer_start": 0}, {"text": "a", "answer_start": 0}, {"text": "b", "answer_start": 1}]
    nested = {
        "data": [{"title": "T", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": answers}]}]}]
    }
    (row,) = read_text(tmp_path, "t.json", nested)
    assert row.content == {"instruction": "q\n\nc", "response": "a"}
    assert row.unused == ("title", "answers[1:]")
    flat = {"question": "q", "context": "c", "answers": {"text": ["a", "a"], "answer_start": [0, 0]}}
    assert _one(tmp_path, flat) == ({"instruction": "q\n\nc", "response": "a"}, ())
    unanswered = {"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}
    assert _one(tmp_path, unanswered)[0]["response"] == ""


@pytest.mark.parametrize(
    ("row", "content", "unused"),
    [
        ({"question": "q", "answer": ["a", "b"]}, {"instruction": "q", "response": "a"}, ("answer[1:]",)),
        (
            {"question": "q", "answer": {"value": "a", "aliases": ["a", "b"]}},
            {"instruction": "q", "response": "a"},
            ("answer[1:]",),
        ),
        ({"question": "q", "context": "c", "answer": "a"}, {"instruction": "q\n\nc", "response": "a"}, ()),
        ({"input": "q", "target": "a"}, {"instruction": "q", "response": "a"}, ()),
        ({"input": "q", "output": "a", "id": 3}, {"instruction": "q", "response": "a"}, ("id",)),
        ({"Prompt ": "q", "COMPLETION": 5}, {"prompt": "q", "completion": "5"}, ()),
        ({"prompt": "q", "completion": ["a"]}, {"prompt": "q", "completion": "a"}, ()),
    ],
)
def test_read_task_other_answers_are_read_by_the_documented_rule(
    tmp_path: Path, row: Any, content: Any, unused: tuple[str, ...]
) -> None:
    assert _one(tmp_path, row) == (content, unused)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": json.dumps([Q, A])},
        {"messages": str([Q, A])},
        {"conversations": json.dumps([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])},
        {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
        {"conversations": ["q", "a"]},
        {"prompt": json.dumps([Q]), "completion": json.dumps([A])},
        {"messages": [Q, {"role": "Assistant", "content": "a"}]},
        {"messages": [{"role": "prompter", "content": "q"}, A]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "q"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "a"}], "loss_weight": 1.0},
            ]
        },
    ],
)
def test_read_task_turns_in_other_notations_are_read(tmp_path: Path, row: Any) -> None:
    assert _one(tmp_path, row) == ({"messages": [Q, A]}, ())


def test_read_task_configured_number_of_a_choice_is_refused(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["a", "b"], "answer": 1}
    columns = {"prompt": "question", "completion": "answer"}
    (read,) = read_text(tmp_path, "t.jsonl", json_lines(row), columns=columns)
    assert read.problem.startswith("'answer' is the number of one of the choices in 'choices', and no text")
    del row["choices"]
    assert _one(tmp_path, row, columns=columns)[0] == {"prompt": "q", "completion": "1"}


def test_read_task_ultra_chat_texts_are_turns(tmp_path: Path) -> None:
    assert _one(tmp_path, {"id": "1", "data": ["q", "a"]}) == ({"messages": [Q, A]}, ("id",))


def test_read_task_prompt_about_json_stays_text(tmp_path: Path) -> None:
    for row in (
        {"prompt": '[{"name": "x"}]', "completion": "[1]"},
        {"prompt": json.dumps([Q]), "completion": "A question."},
        {"prompt": "Write a chat.", "completion": json.dumps([Q])},
    ):
        assert _one(tmp_path, row)[0] == row


def test_read_task_key_twice_in_json_text_is_refused(tmp_path: Path) -> None:
    problem, _ = _problem(tmp_path, {"messages": '[{"role": "user", "content": "q", "content": "r"}]'})
    assert problem.startswith("'messages' must be a list of turns")


def test_read_task_llama_factory_parts_give_calls_and_name_other_keys(tmp_path: Path) -> None:
    call = {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
    turn = {"role": "assistant", "content": [{"type": "text", "value": "so", "mood": "glad"}, call], "loss_weight": 0.0}
    content, unused = _one(tmp_path, {"messages": [Q, turn, A]})
    assert content["messages"][1] == {
        "role": "assistant",
        "content": "so",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
        "train": False,
    }
    assert unused == ("messages[].content[].mood",)


def _studio(data: Any, *results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": data, "annotations": [{"result": list(results), "was_cancelled": False}], **more}


def test_read_task_label_studio_choice_and_text_are_answers(tmp_path: Path) -> None:
    rows = [
        _studio({"text": "q"}, {"type": "choices", "value": {"choices": ["good"]}}),
        _studio({"body": "r"}, {"type": "textarea", "value": {"text": ["long"]}}),
    ]
    read = read_text(tmp_path, "t.json", rows)
    assert [row.content for row in read] == [
        {"instruction": "q", "response": "good"},
        {"instruction": "r", "response": "long"},
    ]
    assert read[0].unused == ("id",)


def test_read_task_label_studio_first_annotator_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    row = _studio({"text": "q"}, {"type": "choices", "value": {"choices": ["bad"]}})
    row["annotations"][0]["was_cancelled"] = True
    row["annotations"] += [{"result": [{"type": "choices", "value": {"choices": ["good"]}}]}]
    content, unused = _one(tmp_path, row)
    assert content["response"] == "good"
    assert "annotations[1:]" in unused


def test_read_task_label_studio_without_one_answer_is_refused_with_a_fix(tmp_path: Path) -> None:
    span = {"type": "labels", "value": {"start": 0, "end": 2, "text": "qq", "labels": ["X"]}}
    problem, hint = _problem(tmp_path, _studio({"text": "q"}, span))
    assert problem == "an annotation of Label Studio that is not one text or one choice: labels"
    assert hint.startswith("Write the answer as text")
    row = _studio({"q": "x", "c": "y"}, {"type": "textarea", "value": {"text": ["a"]}})
    problem, hint = _problem(tmp_path, row)
    assert problem == "a task of Label Studio with 2 texts in 'data': 'q', 'c'"
    columns = {"instruction": "data.q", "input": "data.c", "output": "annotations.0.result.0.value.text.0"}
    listed = ", ".join(f'{name} = "{path}"' for name, path in columns.items())
    assert hint == f"Set columns = {{ {listed} }} in [[data.task]]."
    assert _one(tmp_path, row, columns=columns)[0] == {"instruction": "x\n\ny", "response": "a"}


@pytest.mark.parametrize(
    ("row", "problem", "hint"),
    [
        (
            {"id": "7", "lang": "en", "dialog": [{"who": "x", "said": "q"}]},
            "unknown row format (fields: id, lang, dialog)",
            'Set columns = { messages = "dialog", role = "who", content = "said" } in [[data.task]].',
        ),
        (
            {"id": "x7", "lang": "en", "passage": "q", "gist": "a"},
            "unknown row format",
            'Set columns = { prompt = "passage", completion = "gist" } in [[data.task]].',
        ),
        (
            {"Instruction": "q", "Output": None},
            "unknown row format (fields: Instruction; null: Output)",
            "Add the missing text, or remove the row.",
        ),
        ({"question": "q", "answer": None, "note": None}, "unknown row format (fields: question; null: answer)", "Add"),
        ({"input_ids": [1], "labels": [1]}, "the row is already tokenized: it holds 'input_ids'", "Give the text"),
        (
            {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"},
            "'answerKey' names one of the choices in 'choices'",
            "Write the question with its choices",
        ),
        (
            {"inputs": {"text": "q"}, "annotation": "a"},
            "unknown row format (fields: inputs, annotation)",
            'Set columns = { prompt = "inputs.text", completion = "annotation" } in [[data.task]].',
        ),
        (
            {"translation": {"en": "q", "de": "a"}},
            "unknown row format (fields: translation)",
            'Set columns = { prompt = "translation.en", completion = "translation.de" } in [[data.task]].',
        ),
        (
            {"Problem": "q", "Solution": "a", "level": "5"},
            "unknown row format (fields: Problem, Solution, level)",
            'Set columns = { prompt = "Problem", completion = "Solution" } in [[data.task]].',
        ),
        (
            {"x": "1", "y": "2", "z": "3"},
            "unknown row format",
            "Set columns in [[data.task]] to two of these columns, for example"
            ' columns = { prompt = "x", completion = "y" }.',
        ),
        (
            {"instruction": "q", "input": "", "output": ["a", "b"]},
            "'output' holds 2 answers instead of one text",
            'Set columns = { instruction = "instruction", input = "input", output = "output.0" } in [[data.task]]'
            " to learn that part of the answer.",
        ),
        (
            {"prompt": "q", "completion": {"final": "a"}},
            "'completion' must be text",
            'Set columns = { prompt = "prompt", completion = "completion.final" } in [[data.task]]',
        ),
        ({"prompt": "q", "completion": True}, "'completion' must be text, not True", "Write the value as text"),
        (
            {"messages": [Q, {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]},
            "unsupported part in a turn: type 'tool_use'",
            "Write the call into `tool_calls`",
        ),
        (
            {"messages": [{"role": "customer", "content": "q"}, {"role": "agent", "content": "a"}]},
            "no turn has the role 'assistant', and the role 'agent' is unknown",
            'Set roles = { "customer" = "user", "agent" = "assistant" } in [[data.task]].',
        ),
        (
            {"input": "q", "preferred_output": "a", "non_preferred_output": "b"},
            "preference data, not an example to learn: the row has 'preferred_output' and 'non_preferred_output'",
            'Set columns = { prompt = "input", completion = "preferred_output" } in [[data.task]]',
        ),
        (
            {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0},
            "preference data, not an example to learn",
            "Write the better answer into `completion`",
        ),
        (
            {"messages": [{"author": "user", "content": "q"}, {"author": "assistant", "content": "a"}]},
            "each turn needs `role` and `content`",
            'Set columns = { messages = "messages", role = "author", content = "content" } in [[data.task]].',
        ),
        (
            {"messages": [Q], "response": "a"},
            "the turns in 'messages' end with a question, and 'response' holds the answer",
            'Set columns = { prompt = "messages", completion = "response" } in [[data.task]].',
        ),
        (
            {"conversations": [Q, A, Q], "system": "s", "completion": [A]},
            "the turns in 'conversations' end with a question, and 'completion' holds the answer",
            'Set columns = { prompt = "conversations", completion = "completion", system = "system" } in',
        ),
        ({"messages": [SYSTEM, Q, A], "system_prompt": "t"}, "two system prompts", "Keep one of them."),
        ({"chosen": "a", "rejected": "b"}, "preference data", 'Set columns = { text = "chosen" } in [[data.task]]'),
        (
            {"prompt": "q", "chosen": [Q, A], "rejected": [Q, A]},
            "preference data",
            'Set columns = { messages = "chosen" } in [[data.task]]',
        ),
    ],
)
def test_read_task_unreadable_row_is_named_and_gets_the_line_to_paste(
    tmp_path: Path, row: Any, problem: str, hint: str
) -> None:
    said, advised = _problem(tmp_path, row)
    assert said.startswith(problem)
    assert advised.startswith(hint)


CHAT = {"messages": [Q, A, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]}
LEFT_OUT = [Q, A | {"train": False}, Q, A]


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"definition": "D.", "inputs": "q", "targets": "a"}, {"instruction": "D.\n\nq", "response": "a"}),
        ({"question": "q", "passage": "p", "answer": "yes"}, {"instruction": "q\n\np", "response": "yes"}),
        ({"Body": "b", "Question": "q", "Answer": 8.0}, {"instruction": "q\n\nb", "response": "8.0"}),
        (
            {"inputs": [1], "targets": [2], "inputs_pretokenized": "q", "targets_pretokenized": "a"},
            {"instruction": "q", "response": "a"},
        ),
        ({"conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}]}, CHAT),
        ({"conversation": [{"human": "q", "assistant": "a"}, {"human": "r", "assistant": "b"}]}, CHAT),
        ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, {"messages": [SYSTEM, Q, A]}),
        ({"conversations": [Q, A], "system_prompt": "s"}, {"messages": [SYSTEM, Q, A]}),
        ({"instruction": "q", "output": "a", "system_prompt": "s"}, {"messages": [SYSTEM, Q, A]}),
        ({"messages": [Q, A], "system": [{"type": "text", "text": "s"}]}, {"messages": [SYSTEM, Q, A]}),
        (
            {"messages": [Q | {"content": [{"type": "input_text", "text": "q"}]}, A]},
            {"messages": [Q, A]},
        ),
        ({"messages": [Q, A | {"loss": False}, Q, A | {"loss": True}]}, {"messages": LEFT_OUT}),
        ({"messages": [Q, A | {"trainable": False}, Q, A | {"training": True}]}, {"messages": LEFT_OUT}),
        (
            {
                "systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "q"}]},
                    {"role": "model", "parts": [{"text": "a"}]},
                ],
            },
            {"messages": [SYSTEM, Q, A]},
        ),
        (
            {
                "system_instruction": "s",
                "contents": [
                    {"role": "user", "parts": [{"text": "q"}]},
                    {"role": "model", "parts": [{"text": "a"}]},
                ],
            },
            {"messages": [SYSTEM, Q, A]},
        ),
        (
            {"messages": "[{'role': 'user', 'content': 'q'}\n {'role': 'assistant', 'content': 'a'}]"},
            {"messages": [Q, A]},
        ),
    ],
)
def test_read_task_public_row_is_read_with_its_whole_prompt(tmp_path: Path, row: Any, content: Any) -> None:
    assert _one(tmp_path, row)[0] == content


@pytest.mark.parametrize(
    ("row", "problem", "hint"),
    [
        ({"ctx": "q", "endings": ["a", "b"], "label": 1}, "'label' names one of the choices in 'endings'", "Write the"),
        (
            {"sentence": "q", "option1": "a", "option2": "b", "answer": "1"},
            "'answer' names one of the choices in 'option1', 'option2'",
            "Write the question with its choices",
        ),
        ({"goal": "q", "sol1": "a", "sol2": "b", "label": 0}, "'label' names one of the choices in 'sol1', 'sol2'", ""),
        ({"1": "q", "2": "a", "3": "b", "4": "c", "5": "d", "6": "B"}, "'6' names one of the choices in '2', '3'", ""),
        ({"question": "q", "passage": "p", "answer": True}, "'answer' must be text, not True", "Write the answer"),
        ({"input": "q", "target": False, "canary": "c"}, "'target' must be text, not False", "Write the answer"),
        ({"premise": "p", "hypothesis": "h", "label": 0}, "'label' is the number of a class", "Write the text"),
        ({"prompt": "q", "completions": ["a", "b"]}, "'completions' holds 2 answers to one prompt", "Write the best"),
        ({"prompt_ids": [1], "completion_ids": [2]}, "the row is already tokenized: it holds 'prompt_ids'", ""),
        (Q, "the row is one turn of a chat", "Write all turns of a chat into one row"),
        (
            {"prompt": [Q], "answer": "a"},
            "unknown row format",
            'columns = { prompt = "prompt", completion = "answer" }',
        ),
        ({"prompt": [Q], "reward_model": {"ground_truth": "a"}}, "unknown row format", "Write the answer to the turns"),
        ({"method": "POST", "body": {"model": "m", "messages": [Q, A]}}, "unknown", 'messages = "body.messages"'),
        ({"system": "s", "chat": "USER: q ASSISTANT: a"}, "unknown row format", "Use `messages`"),
        ({"query": "q", "answers": "[]", "tools": "[{}]"}, "unknown row format", "Use `messages`"),
    ],
)
def test_read_task_refused_row_gets_no_hint_that_learns_another_text(
    tmp_path: Path, row: Any, problem: str, hint: str
) -> None:
    said, suggested = _problem(tmp_path, row)
    assert problem in said
    assert hint in suggested


def test_read_task_number_as_answer_keeps_its_digits(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", "".join(f'{{"prompt": "q", "completion": {n}}}\n' for n in ("3.50", "1e3")))
    assert [row.content["completion"] for row in rows] == ["3.50", "1e3"]


def test_read_task_decimal_of_parquet_is_its_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"prompt": ["q"], "completion": pa.array([Decimal("1.10")])}), path)
    (row,) = read_task(Source(name="t", files=(path,)))
    assert row.content == {"prompt": "q", "completion": "1.10"}


def test_read_task_empty_history_of_csv_is_no_history(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.csv", "instruction,output,history\nq,a,[]\n")
    assert row.content == {"instruction": "q", "response": "a"}


def test_read_task_letter_of_a_choice_is_refused_unless_the_prompt_holds_the_choices(tmp_path: Path) -> None:
    rows = json_lines(
        {"question": "q", "choices": ["x", "y"], "answer": "B"},
        {"question": "q A) x B) y", "choices": ["x", "y"], "answer": "B"},
    )
    first, second = read_text(tmp_path, "t.jsonl", rows, columns={"prompt": "question", "completion": "answer"})
    assert first.problem.startswith("'answer' is the letter of one of the choices in 'choices', and no text")
    assert second.content == {"prompt": "q A) x B) y", "completion": "B"}


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"instruction": "Sum.", "input": "q", "target": "a"}, {"instruction": "Sum.\n\nq", "response": "a"}),
        ({"input": "q", "instruction": "Sum.", "target": "a"}, {"instruction": "Sum.\n\nq", "response": "a"}),
        ({"instruction": "Sum.", "input": "q", "context": "", "response": "a"}, {"instruction": "Sum.\n\nq"}),
        ({"instruction": "Sum.", "input": "", "context": "q", "response": "a"}, {"instruction": "Sum.\n\nq"}),
        ({"instruction": "Sum.", "context": "q", "output": "a"}, {"instruction": "Sum.\n\nq", "response": "a"}),
        ({"question": "q", "article": "c", "answer": "a"}, {"instruction": "q\n\nc", "response": "a"}),
        ({"query": "q", "context": "c", "response": "a"}, {"instruction": "q\n\nc", "response": "a"}),
        ({"input": "q", "document": "c", "output": "a"}, {"instruction": "q\n\nc", "response": "a"}),
        ({"instruction": "", "input": "q", "output": "a"}, {"instruction": "q", "response": "a"}),
        ({"question": "q", "answer": ["", "a"]}, {"instruction": "q", "response": "a"}),
        ({"prompt": [Q], "completion": [A], "system_prompt": "s"}, {"messages": [SYSTEM, Q, A]}),
        ({"conversations": [Q, A], "system_message": "s"}, {"messages": [SYSTEM, Q, A]}),
        ({"conversations": [Q, A], "text": "q a"}, {"messages": [Q, A]}),
        ({"conversation": [Q, A], "text": "q a"}, {"messages": [Q, A]}),
    ],
)
def test_read_task_no_column_of_the_prompt_is_lost(tmp_path: Path, row: Any, content: Any) -> None:
    found = _one(tmp_path, row)[0]
    assert {name: found[name] for name in content} == content


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"instruction": "i", "input": "n", "context": "c", "response": "a"}, "two of these columns"),
        (
            {"instruction": "i", "question": "q", "answer": "a"},
            'columns = { instruction = "instruction", input = "question", output = "answer" }',
        ),
        ({"query": "q", "instruction": "i", "response": "a"}, 'input = "query", output = "response"'),
        ({"question": "q", "answer": "a", "output": "b"}, "two of these columns"),
        ({"question": "q", "context": "c", "input": "i", "answer": "a"}, "two of these columns"),
        ({"system": "s", "system_prompt": "t", "question": "q", "response": "a"}, "columns"),
        ({"question": "q", "documents": ["x", "y"], "answer": "a"}, "columns"),
        ({"question": "q", "contexts": ["x"], "response": "a"}, "columns"),
        ({"query": "SELECT 1", "question": "How many?"}, 'prompt = "question", completion = "query"'),
    ],
)
def test_read_task_columns_that_would_replace_each_other_are_refused(tmp_path: Path, row: Any, hint: str) -> None:
    problem, advised = _problem(tmp_path, row)
    assert problem.startswith("unknown row format")
    assert hint in advised


def test_read_task_list_of_answers_next_to_the_right_one_is_refused(tmp_path: Path) -> None:
    assert _problem(tmp_path, {"question": "q", "answers": ["a", "b"], "correct": 1})[0] == (
        "'answers' holds 2 answers to one prompt"
    )


def test_read_task_empty_cells_of_another_format_do_not_hide_a_row(tmp_path: Path) -> None:
    text = "text,prompt,completion,instruction,output\n,q,a,,\n,,,q,a\nq a,,,,\n"
    rows = read_text(tmp_path, "t.csv", text)
    assert [row.content for row in rows] == [
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "response": "a"},
        {"text": "q a"},
    ]
    rows = read_text(tmp_path, "t.jsonl", json_lines({"messages": [], "question": "q", "answer": "a"}, {"text": ""}))
    assert [row.content for row in rows] == [{"instruction": "q", "response": "a"}, {"text": ""}]
    (row,) = read_text(tmp_path, "u.jsonl", json_lines({"question": "q", "response": "", "answer": "a"}))
    assert row.content == {"instruction": "q", "response": "a"}


def test_read_task_infinity_is_no_answer(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.jsonl", '{"prompt": "q", "completion": Infinity}\n')
    assert row.problem.startswith("'completion' must be text, not inf")


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            {"system": "s", "prompt": "q", "response": "a"},
            'columns = { instruction = "prompt", output = "response", system = "system" }',
        ),
        (
            {"prompt": "q", "response": "a", "history": [["b", "c"]]},
            'columns = { instruction = "prompt", output = "response", history = "history" }',
        ),
        ({"data": [{"prompt": "q", "completion": "a"}, {"prompt": "r", "completion": "b"}]}, 'rows = "data"'),
    ],
)
def test_read_task_line_to_paste_leaves_nothing_out(tmp_path: Path, row: Any, line: str) -> None:
    rows = read_text(tmp_path, "t.jsonl", json_lines(row, row))
    assert f"Set {line} in [[data.task]]" in rows[0].problem
