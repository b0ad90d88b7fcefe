"""Test that batches and threads change nothing in the encoded examples, and that an interrupt keeps what was stored."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DataError
from curator.core.events import Reporter
from curator.data import corpus, encoding
from curator.data.chat import Chat, shared
from curator.data.encoding import BAD, CUT_OFF, EMPTY, encode_tasks
from curator.data.outlines import Outlines
from curator.data.rows import Row
from curator.data.token_ranges import carries_loss, compared
from curator.data.tokens import Encoder
from curator.project.project import Project
from curator.workspace.store.records import StoredExample

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n<|é"), max_size=12)
TRIMS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
THINKS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>{% endif %}"
    "{{ m.content.split('</think>')[-1] }}[end]\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def _rows() -> list[tuple[int, list[Row]]]:
    contents: list[dict[str, Any]] = []
    for number in range(40):
        contents += [
            {"prompt": f"one {number} plus", "completion": f" two {number}"},
            {"instruction": f"sum {number}", "response": "word " * (number % 9)},
            {"text": f"digit {number} " * (number % 5)},
            {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a é"}]},
        ]
    tasks: list[list[Row]] = []
    for start, stop in ((0, 1), (1, 90), (90, 91), (91, 160)):
        part = contents[start:stop]
        tasks.append([Row(number=n, file="f.jsonl", line=n + 1, content=content) for n, content in enumerate(part)])
    tasks[1][3] = Row(number=3, file="f.jsonl", line=4, content={"text": ""}, problem="bad\nhint")
    return list(enumerate(tasks))


def _plain(example: StoredExample) -> tuple[Any, ...]:
    values = (getattr(example, field) for field in example.__slots__)
    return tuple(value.tolist() if isinstance(value, np.ndarray) else value for value in values)


def test_encode_tasks_any_threads_and_batches_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(make_tokenizer(bos=True, chat_template=CHAT_TEMPLATE), max_length=24, encoder_decoder=False)
    expected = []
    for number, rows in _rows():
        for row in rows:
            alone = Encoder(make_tokenizer(bos=True, chat_template=CHAT_TEMPLATE), max_length=24, encoder_decoder=False)
            slow = alone.encode({"text": ""} if row.problem else row.content)
            expected.append((number, row.number, () if row.problem else slow.input_ids, row.hash))
    found: list[list[tuple[Any, ...]]] = []
    for threads, characters in ((1, 1), (1, 10**9), (3, 50), (8, 400)):
        monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", characters)
        tasks = list(encode_tasks(_rows(), encoder, threads=threads))
        assert [task.number for task in tasks] == [0, 1, 2, 3]
        got = [(t.number, e.number, tuple(np.asarray(e.input_ids).tolist()), e.hash) for t in tasks for e in t.examples]
        assert got == expected
        found.append([_plain(example) for task in tasks for example in task.examples])
    assert all(other == found[0] for other in found)
    reasons = {example[-1] for example in found[0]}
    assert reasons == {None, BAD, EMPTY, CUT_OFF}


def test_encode_tasks_error_of_reader_reaches_caller_and_ends_threads() -> None:
    def read() -> Iterator[tuple[int, list[Row]]]:
        yield from _rows()[:2]
        raise DataError("no such file", hint="Correct the path.")

    encoder = Encoder(make_tokenizer(chat_template=CHAT_TEMPLATE), max_length=24, encoder_decoder=False)
    with pytest.raises(DataError, match="no such file"):
        list(encode_tasks(read(), encoder))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tokenizer")]


def test_read_corpus_interrupted_between_commits_reads_only_the_rest(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = make_project(tasks={name: pair_rows(name, 6) for name in ("target", "a", "b", "c")})
    project = Project.open(folder)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_COMMIT_SECONDS", -1.0)
        patch.setattr(corpus, "_COMMIT_SHARE", 0.0)
        patch.setattr(encoding, "_BATCH_CHARACTERS", 1)
        kept = type(project.store).put_tasks
        stored: list[str] = []

        def put(self: Any, tasks: Any) -> None:
            if len(stored) == 2:
                raise KeyboardInterrupt
            stored.extend(task.name for task in tasks)
            kept(self, tasks)

        patch.setattr(type(project.store), "put_tasks", put)
        with pytest.raises(KeyboardInterrupt):
            corpus.read_corpus(project.workspace, ("target",))
    assert stored == ["a", "b"]
    read: list[str] = []
    monkeypatch.setattr(
        corpus, "read_tasks", lambda sources, hashes: read.extend(s.name for s in sources) or _read_tasks(sources)
    )
    found = corpus.read_corpus(project.workspace.reporting_to(Reporter()), ("target",))
    assert read == ["c", "target"]
    other = make_project("other", tasks={name: pair_rows(name, 6) for name in ("target", "a", "b", "c")})
    whole = corpus.read_corpus(Project.open(other).workspace, ("target",))
    assert found is not None
    assert whole is not None
    assert [task.train_hashes for task in found.tasks] == [task.train_hashes for task in whole.tasks]


_read_tasks = corpus.read_tasks


# -- the quick forms equal the slow forms -------------------------------------------------------------------------


@pytest.mark.parametrize("trims", [False, True])
def test_carries_loss_asked_edges_equal_compared_places(trims: bool) -> None:
    from tokenizers import processors

    tokenizer = make_tokenizer()
    if trims:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)

    @given(TEXTS, TEXTS, TEXTS)
    def check(before: str, inside: str, after: str) -> None:
        text = before + inside + after
        spans = [(len(before), len(before) + len(inside))] if inside else []
        (places,) = tokenizer([text], add_special_tokens=False).encodings
        found = carries_loss(places, spans, len(text))
        assert found.tolist() == compared(places, spans).tolist()

    check()


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, TRIMS, THINKS, "<s>" + CHAT_TEMPLATE])
def test_outlines_render_equals_chat_of_every_turn(template: str) -> None:
    tokenizer = make_tokenizer(chat_template=template)
    outlines = Outlines(tokenizer)
    known = 0

    @given(st.lists(TEXTS, min_size=2, max_size=5), st.booleans())
    def check(texts: list[str], trained: bool) -> None:
        nonlocal known
        turns: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)
        ]
        if not trained:
            turns[1]["train"] = False
        found = outlines.render(turns)
        if found is None:
            return
        known += 1
        chat = Chat(tokenizer, turns)
        assert found == (chat.text, chat.spans())

    check()
    assert known > 5


def test_outlines_rewritten_turn_is_left_to_chat() -> None:
    outlines = Outlines(make_tokenizer(chat_template=THINKS))
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert outlines.render(turns) is None, "the first chat of a shape gets no outline"
    assert outlines.render(turns) is not None
    assert outlines.render([turns[0], {"role": "assistant", "content": "<think>x</think>a"}]) is None
    assert outlines.render([turns[0], turns[1] | {"tool_calls": []}]) is None
    assert outlines.render([turns[0], {"role": "assistant", "content": " "}]) is None


@given(st.text("ab", max_size=20), st.text("ab", max_size=20))
def test_shared_prefix_equals_count_of_equal_characters(left: str, right: str) -> None:
    expected = next(
        (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    assert shared(left, right) == expected
    assert shared(list(left), list(right)) == expected
