"""Test which tokens carry loss, by decoding them."""

from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, WORDS, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DataError
from curator.data.tokens import IGNORED, Encoded, Encoder


def encoder(max_length: int = 1000, encoder_decoder: bool = False, **tokenizer: Any) -> Encoder:
    return Encoder(make_tokenizer(**tokenizer), max_length=max_length, encoder_decoder=encoder_decoder)


TOKENIZER = make_tokenizer()


def learned(encoded: Encoded) -> str:
    return str(TOKENIZER.decode([label for label in encoded.labels if label != IGNORED]))


def seen(encoded: Encoded) -> str:
    return str(TOKENIZER.decode(encoded.input_ids))


PLAIN = encoder()
MANY_TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n<|"), max_size=15)


@given(MANY_TEXTS, MANY_TEXTS)
def test_encode_prompt_completion_puts_loss_on_completion(prompt: str, completion: str) -> None:
    encoded = PLAIN.encode({"prompt": prompt, "completion": completion})
    assert seen(encoded) == prompt + completion + "</s>"
    assert len(encoded.labels) == len(encoded.input_ids)
    assert all(label in (IGNORED, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))
    # A token across the boundary carries loss. No other token of the prompt does.
    decoded = learned(encoded)
    first = next(n for n, label in enumerate(encoded.labels) if label != IGNORED)
    assert IGNORED not in encoded.labels[first:]
    assert decoded.endswith("</s>")
    spare = len(PLAIN._tokenizer.decode(encoded.labels[first : first + 1]))
    if "\ufffd" not in decoded:
        assert decoded.endswith(completion + "</s>")
        assert len(decoded) < len(completion + "</s>") + spare or decoded == completion + "</s>"


def test_encode_prompt_ending_in_blank_puts_shared_token_in_loss() -> None:
    word = WORDS[0]
    joined = PLAIN.encode({"prompt": f"{word} ", "completion": word})
    assert learned(joined) == f" {word}</s>", "the token across the boundary carries no loss"
    assert learned(PLAIN.encode({"prompt": word, "completion": f" {word}"})) == f" {word}</s>"


def test_encode_trimmed_offsets_keeps_blanks() -> None:
    """Llama 3's tokenizer leaves blanks out of the reported offsets."""
    from tokenizers import processors

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trimming = Encoder(tokenizer, max_length=1000, encoder_decoder=False)
    for prompt, completion in (("q:", " a "), ("q: ", "  a"), ("q", "  "), ("q:\n", "a\n\n")):
        content = {"prompt": prompt, "completion": completion}
        assert trimming.encode(content) == PLAIN.encode(content)


def test_encode_special_tokens_are_added_once() -> None:
    for options in ({"bos": True}, {"bos": True, "eos": True}, {"eos": True}, {}):
        encoded = encoder(**options).encode({"prompt": "q", "completion": " a"})
        assert seen(encoded) == ("<s>" if options.get("bos") else "") + "q a</s>"
        assert learned(encoded) == " a</s>"
        written = encoder(**options).encode({"prompt": "q", "completion": " a</s>"})
        assert written.input_ids == encoded.input_ids


def test_encode_without_eos_adds_no_end() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    encoded = Encoder(tokenizer, max_length=10, encoder_decoder=False).encode({"prompt": "q", "completion": "a"})
    assert learned(encoded) == "a"


def test_encode_text_puts_loss_on_all_but_first_token() -> None:
    encoded = encoder(bos=True).encode({"text": "q a"})
    assert learned(encoded) == "q a</s>"
    assert encoded.completion_tokens == len(encoded.input_ids) - 1
    bare = PLAIN.encode({"text": "q a"})
    assert bare.completion_tokens == len(bare.input_ids) - 1, "the first token counts"


def test_encode_instruction_uses_chat_template_if_present() -> None:
    content = {"instruction": "q", "response": "a"}
    assert seen(PLAIN.encode(content)) == "q\na</s>"
    assert learned(PLAIN.encode(content)) == "a</s>"
    chat = encoder(chat_template=CHAT_TEMPLATE).encode(content)
    assert seen(chat) == "<|user|>q</s>\n<|assistant|>a</s>\n"
    assert learned(chat) == "a</s>"


# -- chats --------------------------------------------------------------------------------------------------------


def chat(*turns: str) -> dict[str, Any]:
    """Make turns from texts with the prefix `u:` (user), `a:` (assistant) or `s:` (system)."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]}


THINKING = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>{% endif %}"
    "{{ m.content | trim }}[end]\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
OPENS_THOUGHT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
STRICT = (
    "{% if messages[0].role != 'user' %}{{ raise_exception('must begin with the user') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must take turns') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
FORGETS = "{% for m in messages[-2:] %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "content", "expected"),
    [
        (CHAT_TEMPLATE, chat("u:q", "a:a"), ["a</s>"]),
        (CHAT_TEMPLATE, chat("s:x", "u:q", "a:a", "u:r", "a:bb"), ["a</s>", "bb</s>"]),
        (CHAT_TEMPLATE, chat("u:q", "a:a", "u:r"), ["a</s>"]),
        (CHAT_TEMPLATE, chat("a:hello", "u:q", "a:a"), ["hello</s>", "a</s>"]),
        (CHAT_TEMPLATE, chat("u:say yes", "a:yes"), ["yes</s>"]),
        (CHAT_TEMPLATE, chat("u:q", "a:<|user|>q"), ["<|user|>q</s>"]),
        (CHAT_TEMPLATE, chat("u:q", "a: a \n"), [" a \n</s>"]),
        (THINKING, chat("u:q", "a: a ", "u:r", "a:b"), ["a[end]", "<think>\n\n</think>b[end]"]),
        (OPENS_THOUGHT, chat("u:yes", "a:yes", "u:no", "a:<think></think>no"), ["yes[end]", "no[end]"]),
        (NO_GENERATION_PROMPT, chat("u:assistant: a", "a:a", "u:a", "a:a"), ["a", "a"]),
        (STRICT, chat("u:a", "a:a", "u:b", "a:b"), ["a</s>", "b</s>"]),
    ],
)
def test_encode_chat_puts_loss_on_assistant_turns(template: str, content: dict[str, Any], expected: list[str]) -> None:
    encoded = encoder(chat_template=template).encode(content)
    spans = [encoded.text[a:b] for a, b in zip(encoded.spans[::2], encoded.spans[1::2], strict=True)]
    assert spans == expected
    # Ignore the blank of a token across the boundary.
    assert learned(encoded).replace(" ", "") == "".join(expected).replace(" ", "")
    assert seen(encoded) == encoded.text


def test_encode_chat_leaves_special_tokens_to_template() -> None:
    encoded = encoder(bos=True, eos=True, chat_template="<s>" + CHAT_TEMPLATE).encode(chat("u:q", "a:a"))
    assert seen(encoded) == "<s><|user|>q</s>\n<|assistant|>a</s>\n"


def test_encode_chat_without_fitting_template_raises_data_error() -> None:
    with pytest.raises(DataError, match="has no chat template"):
        PLAIN.encode(chat("u:q", "a:a"))
    with pytest.raises(DataError, match="rejects the turns: must begin with the user"):
        encoder(chat_template=STRICT).encode(chat("s:x", "u:q", "a:a"))
    with pytest.raises(DataError, match="leaves out turn 1, of the role 'user'"):
        encoder(chat_template=FORGETS).encode(chat("u:q", "a:lost", "u:r", "a:kept"))


# -- length -------------------------------------------------------------------------------------------------------


def test_encode_too_long_example_is_truncated_at_end() -> None:
    whole = PLAIN.encode({"prompt": "qqq", "completion": "xyz"})
    length = len(whole.input_ids)
    assert not encoder(length).encode({"prompt": "qqq", "completion": "xyz"}).truncated
    cut = encoder(length - 1).encode({"prompt": "qqq", "completion": "xyz"})
    assert cut.truncated
    assert cut.input_ids == whole.input_ids[:-1]
    assert learned(cut) == "xyz"
    assert cut.completion_tokens == 3


def test_encode_completion_cut_off_counts_no_tokens() -> None:
    cut = encoder(3).encode({"prompt": "qqq", "completion": "xyz"})
    assert cut.truncated
    assert cut.completion_tokens == 0
    assert len(cut.input_ids) == len(cut.labels) == 3


def test_encode_encoder_decoder_splits_prompt_and_completion() -> None:
    t5 = encoder(encoder_decoder=True, eos=True)
    encoded = t5.encode({"prompt": "q", "completion": "a"})
    assert (seen(encoded), learned(encoded)) == ("q</s>", "a</s>")
    assert encoded.completion_tokens == 2
    assert learned(t5.encode({"prompt": "q", "completion": "a</s>"})) == "a</s>"
    long = encoder(3, encoder_decoder=True, eos=True).encode({"prompt": "qqqq", "completion": "a"})
    assert long.truncated
    assert (len(long.input_ids), learned(long)) == (3, "a</s>")
    with pytest.raises(DataError, match="has no prompt"):
        t5.encode({"text": "x"})
    turns = encoder(encoder_decoder=True, eos=True, chat_template=CHAT_TEMPLATE).encode(
        chat("u:q", "a:a", "u:r", "a:b")
    )
    assert learned(turns) == "b</s>"
    assert seen(turns).startswith("<|user|>q</s>\n<|assistant|>a</s>\n<|user|>r</s>\n<|assistant|>")


def test_token_hash_distinguishes_ids_and_labels() -> None:
    same = PLAIN.encode({"prompt": "q", "completion": "a"})
    assert same.token_hash == PLAIN.encode({"prompt": "q", "completion": "a"}).token_hash
    assert same.token_hash != PLAIN.encode({"prompt": "", "completion": "qa"}).token_hash


_TRIMMED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}"
_SHORTENED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content[:9] }}\n{% endfor %}"
_WITHOUT_THOUGHTS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
_ESCAPED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | e }}\n{% endfor %}"
_AS_JSON = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | tojson }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "answer", "turn"),
    [
        (_SHORTENED, "a long answer", 2),
        (_WITHOUT_THOUGHTS, "<think>\nbecause\n</think>\n\nblue", 2),
        (_WITHOUT_THOUGHTS, "<think>\n\n</think>\n\nblue", None),
        (_TRIMMED, "  blue\n  sky\n", None),
        (_ESCAPED, 'it\'s <blue> & "grey"', None),
        (_AS_JSON, 'blue\n"é"', None),
    ],
    ids=["shortened", "thought", "empty thought", "trimmed", "escaped", "JSON"],
)
def test_encode_template_that_leaves_out_part_of_a_turn_is_refused(
    template: str, answer: str, turn: int | None
) -> None:
    """Templates of reasoning models drop the reasoning, and a row would be learned without it."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    encoder = Encoder(tokenizer, max_length=200, encoder_decoder=False)
    turns = [{"role": "user", "content": "which?"}, {"role": "assistant", "content": answer}]
    # The third chat of a shape takes a shorter way.
    for _ in range(3):
        if turn is None:
            assert encoder.encode({"messages": turns}).completion_tokens > 0
        else:
            with pytest.raises(DataError, match=f"leaves out part of turn {turn}, of the role 'assistant'"):
                encoder.encode({"messages": turns})
