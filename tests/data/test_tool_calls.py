"""Test the loss of chats with tool calls for many templates. The reference renders the chat turn by turn."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows
from hypothesis import given
from hypothesis import strategies as st
from reading import json_lines, read_text

from curator.core.errors import DataError
from curator.data.formats import recognise
from curator.data.rows import content_hash, is_empty
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import IGNORED, Encoded, Encoder
from curator.project.project import Project

# Like Hermes and Qwen: ChatML with marked calls, and several tool responses in one user turn.
HERMES = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}You may call:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}<|im_start|>assistant
{% if m.content %}{{ m.content | trim }}{% endif %}
{%- for call in m.tool_calls %}{% if m.content or not loop.first %}
{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif m.role == 'tool' %}{% if loop.previtem.role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ m.content }}
</tool_response>{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>
{% endif %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Like Llama 3: one call as plain JSON, without other content.
LLAMA = """\
{%- if tools %}<|start|>system<|head|>

Tools: {{ tools | tojson }}<|eot|>{% endif %}
{%- for m in messages %}
{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set call = m.tool_calls[0].function %}<|start|>assistant<|head|>

{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot|>
{%- elif m.role == 'tool' %}<|start|>ipython<|head|>

{{ m.content | tojson }}<|eot|>
{%- else %}<|start|>{{ m.role }}<|head|>

{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant<|head|>

{% endif %}"""

# Like Mistral: no generation prompt, ids in the call, and tool responses only after a call.
MISTRAL = """\
{%- if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}
{%- set called = namespace(it=false) %}
{%- for m in messages %}
{%- if m.role == 'user' %}[INST] {{ m.content }} [/INST]
{%- elif m.tool_calls %}[CALLS] [{% for call in m.tool_calls %}{{ ', ' if not loop.first }}
{{- {"name": call.function.name, "arguments": call.function.arguments, "id": call.id} | tojson }}{% endfor %}]</s>
{%- set called.it = true %}
{%- elif m.role == 'tool' %}
{%- if not called.it %}{{ raise_exception('an answer to no call') }}{% endif -%}
[RESULT] {{ m.tool_call_id }}: {{ m.content }} [/RESULT]
{%- else %} {{ m.content }}</s>{% set called.it = false %}{% endif %}{% endfor %}"""

# Like DeepSeek: arguments are text.
DEEPSEEK = """\
{%- for tool in tools or [] %}{{ tool.function.name }}
{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|User|>{{ m.content }}
{%- elif m.role == 'tool' %}<|Out|>{{ m.content }}
{%- else %}<|Assistant|>{{ m.content }}
{%- for call in m.tool_calls %}
{{- '<|call|>' + call.function.name + '\n' + call.function.arguments + '<|end|>' }}{% endfor %}</s>
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}<|Assistant|>{% endif %}"""
# The same, but the template prints an object in Python notation instead of raising an error.
PRINTED = DEEPSEEK.replace("'\\n' + call.function.arguments + '<|end|>'", "'\\n' ~ call.function.arguments ~ '<|end|>'")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


def call(name: str = "weather", **arguments: Any) -> dict[str, Any]:
    return {"id": "abc123def", "type": "function", "function": {"name": name, "arguments": arguments}}


def asks(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": "abc123def", "name": "weather"}


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CHATS = {
    "one call": [user("Paris?"), asks(call(city="Paris")), answer("12"), says("12 degrees.")],
    "the call is last": [user("Paris?"), asks(call(city="Paris", days=3))],
    "null and empty": [user("Paris?"), asks(call(city="", days=None), content=""), answer(""), says("?")],
    "no arguments": [user("now?"), asks(call("clock")), answer("noon"), says("noon")],
    "deep": [user("x"), asks(call(place={"name": "Paris", "at": [1.5, True, "N"]}, days=2)), answer("y"), says("z")],
    "many turns": [
        user("weather"),
        asks(call(city="weather")),
        answer("weather"),
        says("weather"),
        user("weather"),
        asks(call(city="weather")),
        answer("weather"),
        says("weather"),
    ],
    "calls after calls": [user("a"), asks(call(city="a")), answer("1"), asks(call(city="b")), answer("2"), says("3")],
    "other letters": [user("東京?"), asks(call(city='東京 "x" \\ <&>')), answer("晴れ"), says("晴れ 😀")],
}
SEVERAL = [
    user("both?"),
    asks(call(city="a"), call(city="b"), content=" Let me see. "),
    answer("1"),
    answer("2"),
    says("3"),
]


@cache
def tokenizer_with(template: str) -> Any:
    return make_tokenizer(chat_template=template)


def encoder(template: str) -> Encoder:
    return Encoder(tokenizer_with(template), max_length=10_000, encoder_decoder=False)


def learned_spans(encoded: Encoded) -> list[str]:
    return [encoded.text[a:b] for a, b in zip(encoded.spans[::2], encoded.spans[1::2], strict=True)]


def by_prefixes(template: str, messages: list[dict[str, Any]], tools: list[Any] | None) -> list[str]:
    """Return the text that each assistant turn adds to its generation prompt, without the final line break."""
    tokenizer = tokenizer_with(template)

    def text(turns: list[dict[str, Any]], **options: Any) -> str:
        return str(tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, **options))

    added = []
    for number, turn in enumerate(messages):
        if turn["role"] == "assistant":
            before = text(messages[:number], add_generation_prompt=True)
            until = text(messages[: number + 1])
            assert until.startswith(before)
            turn_text = until[len(before) :].rstrip("\n")
            # Without a generation prompt, the template writes the blank before the content.
            added.append(turn_text.removeprefix(" ") if template == MISTRAL else turn_text)
    return added


def as_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with arguments as JSON text, as OpenAI writes them."""
    copy = json.loads(json.dumps(messages))
    for turn in copy:
        for one in turn.get("tool_calls", ()):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"], ensure_ascii=False)
    return list(copy)


def plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [turn | {"content": turn["content"] or ""} for turn in messages]


@pytest.mark.parametrize("tools", [[WEATHER], None], ids=["tools", "no tools"])
@pytest.mark.parametrize("template", [HERMES, LLAMA, MISTRAL, DEEPSEEK, PRINTED], ids="HLMDP")
@pytest.mark.parametrize("chat", [*CHATS, "several"])
def test_encode_tool_calls_puts_loss_on_all_assistant_output(chat: str, template: str, tools: list[Any] | None) -> None:
    if chat == "several" and template == LLAMA:
        chat = "one call"
    messages = CHATS.get(chat, SEVERAL)
    if template == MISTRAL:
        # This template writes no text next to a call.
        messages = [turn | {"content": None} if "tool_calls" in turn else turn for turn in messages]
    _, content = recognise({"messages": as_text(messages), "tools": tools}, "here")
    encoded = encoder(template).encode(content)
    wanted = as_text(messages) if template in (DEEPSEEK, PRINTED) else messages
    assert learned_spans(encoded) == by_prefixes(template, plain(wanted), tools)
    decoded = tokenizer_with(template).decode([label for label in encoded.labels if label != IGNORED])
    blanks = str.maketrans("", "", " \n")
    assert decoded.translate(blanks) == "".join(learned_spans(encoded)).translate(blanks)


def test_encode_text_next_to_a_call_that_the_template_leaves_out_is_refused() -> None:
    _, content = recognise({"messages": as_text(SEVERAL), "tools": [WEATHER]}, "here")
    with pytest.raises(DataError, match="leaves out part of turn 2, of the role 'assistant'"):
        encoder(MISTRAL).encode(content)


words = st.text(st.sampled_from('ab {}":,\\n<tool_call>é'), max_size=12)
arguments = st.dictionaries(
    words.filter(bool), st.none() | st.booleans() | st.integers() | words | st.lists(words), max_size=3
)


@given(words, arguments, words, words, st.sampled_from([HERMES, LLAMA, MISTRAL]))
def test_encode_any_tool_call_matches_prefix_rendering(
    question: str, given_to: dict[str, Any], result: str, end: str, template: str
) -> None:
    made = {"id": "abc123def", "type": "function", "function": {"name": "f", "arguments": given_to}}
    messages = [user(question), asks(made), answer(result), says(end)]
    encoded = encoder(template).encode(recognise({"messages": messages}, "here")[1])
    assert learned_spans(encoded) == [s for s in by_prefixes(template, plain(messages), None) if s]


def test_encode_turns_with_weight_zero_carry_no_loss() -> None:
    messages = [user("q"), says("a", weight=0), user("r"), says("b", weight=1), user("s"), says("c", train=False)]
    _, content = recognise({"messages": messages}, "here")
    assert learned_spans(encoder(CHAT_TEMPLATE).encode(content)) == ["b</s>"]
    assert content_hash(content) == content_hash(
        recognise({"messages": [user("q"), says("a"), user("r"), says("b"), user("s"), says("c")]}, "")[1]
    )
    assert is_empty(recognise({"messages": [user("q"), says("a", weight=0)]}, "here")[1])


def test_encode_tools_unsupported_by_template_raises_data_error() -> None:
    offered = {"messages": [user("q"), says("a")], "tools": [WEATHER]}
    with pytest.raises(DataError, match=r"lists tools, but .* omits them"):
        encoder(CHAT_TEMPLATE).encode(offered)
    called = recognise({"messages": CHATS["one call"]}, "here")[1]
    with pytest.raises(DataError, match="omits the calls"):
        encoder(CHAT_TEMPLATE).encode(called)
    answered = {"messages": [user("q"), says("a"), {"role": "tool", "content": "12"}, says("b")]}
    omits_tools = "{% for m in messages if m.role != 'tool' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(DataError, match="has a tool response, but the model's chat template omits it"):
        encoder(omits_tools).encode(answered)
    with pytest.raises(DataError, match="rejects the turns: one call at a time"):
        encoder(LLAMA).encode(recognise({"messages": SEVERAL}, "here")[1])


def test_content_hash_includes_call_but_not_its_id() -> None:
    def hashed(**changed: Any) -> str:
        made = call(city="Paris") | {key: value for key, value in changed.items() if key == "id"}
        made["function"] = made["function"] | {key: value for key, value in changed.items() if key != "id"}
        return content_hash(recognise({"messages": [user("q"), asks(made)], "tools": changed.get("tools")}, "")[1])

    assert hashed(id="another") == hashed()
    assert hashed(arguments='{"city": "Paris"}') == hashed()
    assert len({hashed(), hashed(name="other"), hashed(arguments={"city": "Rome"}), hashed(tools=[WEATHER])}) == 4
    assert hashed(tools=[WEATHER["function"]]) == hashed(tools=json.dumps([WEATHER]))


def test_check_tools_unsupported_by_template_names_file_and_line(make_project: MakeProject, tmp_path: Path) -> None:
    folder = make_project(
        tasks={"target": pair_rows("target", 4), "alpha": [*pair_rows("alpha", 1), {"messages": CHATS["one call"]}]}
    )
    tokenizer = make_tokenizer(chat_template=CHAT_TEMPLATE)
    tokenizer.save_pretrained(folder / "model")
    with pytest.raises(DataError, match=r"alpha\.jsonl:2: the row calls tools, but the model's chat template"):
        Project.open(folder).check()


def test_read_task_null_arguments_of_parquet_are_dropped(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"messages": [user("q"), {"role": "assistant", "content": None, "tool_calls": [call(city="Paris")]}]},
        {"messages": [user("q"), {"role": "assistant", "content": None, "tool_calls": [call(days=3)]}]},
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    found = [row.content for row in read_task(Source(name="t", files=(tmp_path / "t.parquet",)))]
    assert [c["messages"][1]["tool_calls"][0]["function"]["arguments"] for c in found] == [
        {"city": "Paris"},
        {"days": 3},
    ]


def test_read_task_tool_calls_of_swift_are_one_learned_turn(tmp_path: Path) -> None:
    calls = [{"role": "tool_call", "content": json.dumps({"name": "f", "arguments": {"n": n}})} for n in (1, 2)]
    turns = [{"role": "user", "content": "q"}, *calls, {"role": "tool_response", "content": "3"}]
    (row,) = read_text(tmp_path, "t.jsonl", json_lines({"messages": [*turns, {"role": "assistant", "content": "a"}]}))
    assert [turn["role"] for turn in row.content["messages"]] == ["user", "assistant", "tool", "assistant"]
    made = row.content["messages"][1]
    assert [call["function"] for call in made["tool_calls"]] == [
        {"name": "f", "arguments": {"n": 1}},
        {"name": "f", "arguments": {"n": 2}},
    ]
    assert made.get("train", True)


def test_read_task_tools_of_anthropic_get_the_name_that_templates_read(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"messages": turns, "tools": [{"name": "f", "input_schema": schema}]}
    (read,) = read_text(tmp_path, "t.jsonl", json_lines(row))
    assert read.content["tools"] == [{"type": "function", "function": {"name": "f", "parameters": schema}}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('"{\\"n\\": 1, \\"n\\": 2}"', "not valid JSON in the arguments of 'f'"),
        ('{"n": NaN}', "a tool call cannot be written as JSON"),
    ],
)
def test_read_task_tool_call_that_is_no_json_is_refused(tmp_path: Path, arguments: str, words: str) -> None:
    call = f'{{"role": "assistant", "tool_calls": [{{"function": {{"name": "f", "arguments": {arguments}}}}}]}}'
    text = f'{{"messages": [{{"role": "user", "content": "q"}}, {call}]}}\n'
    (row,) = read_text(tmp_path, "t.jsonl", text)
    assert words in row.problem
