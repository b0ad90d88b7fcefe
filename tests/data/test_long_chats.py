"""Long chats: the time grows with the length, and the parts that carry loss are those of the exact search."""

import time
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.data import chat
from curator.data.chat import Chat

TRIMS = CHAT_TEMPLATE.replace("m.content", "m.content | trim")
THINKS = CHAT_TEMPLATE.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>{% endif %}"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}",
)
CALLS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}</call>{% endfor %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TURNS = st.lists(
    st.sampled_from(["a", " b ", "x\n", "<call>", "one two", "</s>\n<|user|>", "</think>c", "0"]), min_size=8
)


def turns_of(texts: list[str], *, calls: bool) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        turns.append({"role": "user", "content": text})
        if calls and number % 2:
            function = {"name": "f", "arguments": {"a": text, "n": number}}
            turns.append(
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
            )
            turns.append({"role": "tool", "content": text, "name": "f", "tool_call_id": "x"})
        turns.append({"role": "assistant", "content": text, **({"train": False} if number % 5 == 3 else {})})
    return turns


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, TRIMS, THINKS, CALLS], ids=["plain", "trims", "thinks", "calls"])
def test_chat_spans_of_long_chat_equal_the_exact_search(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer(chat_template=template)
    quick = 0

    @settings(max_examples=25)
    @given(TURNS)
    def check(texts: list[str]) -> None:
        nonlocal quick
        found = Chat(tokenizer, turns_of(texts, calls=template is CALLS))
        monkeypatch.setattr(chat, "_MANY", 10**9)
        exact = found.spans()
        monkeypatch.setattr(chat, "_MANY", 3)
        assert found.spans() == exact
        numbers = [
            n for n, turn in enumerate(found._messages) if turn["role"] == "assistant" and turn.get("train", True)
        ]
        quick += found._find_many(numbers) is not None

    check()
    assert quick > 5


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CALLS], ids=["plain", "calls"])
def test_chat_of_thousands_of_turns_takes_linear_time(template: str) -> None:
    """The old code rendered the chat five times for each turn: two minutes for this one."""
    tokenizer = make_tokenizer(chat_template=template)
    turns = turns_of([f"words {number}" for number in range(1000)], calls=template is CALLS)
    began = time.process_time()
    spans = Chat(tokenizer, turns).spans()
    assert time.process_time() - began < 10
    assert len(spans) == 2 * sum(turn["role"] == "assistant" and turn.get("train", True) for turn in turns)
