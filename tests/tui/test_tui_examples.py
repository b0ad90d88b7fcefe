"""Examples of a task: reading, order, search, influence, layout of texts, and tokens."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from curator.core.text import clean
from curator.data.corpus import Task, TaskVersion
from curator.data.left_out import EMPTY, LEAKED, VALIDATION
from curator.data.splits import TaskSplit
from curator.data.tokens import IGNORED
from curator.workspace.store.records import ExampleIndex, StoredExample, StoredTask
from curator.workspace.store.tables import Store
from tui.state.examples import Examples, read_examples
from tui.state.influence import histogram, summarise, unit_for
from tui.widgets.lines import Line, Part
from tui.widgets.reading import LONGEST, control_characters, lay_out, marked, pieces, preview
from tui.widgets.tokens import Vocabulary, token_parts, vocabulary_of

HOSTILE = [
    "\x1b[31mred\x1b]52;c;aGk=\x07",
    "a\u202eb\u2066c",
    "[bold]x[/foo] [@click=app.quit]y",
    "nul\x00 tab\there",
    "one\r\ntwo\rthree\n",
    "汉字" * 50,
    "👩‍👩‍👧 ❤️ é",
    "w" * 10_000,
    "",
    " ",
    "\n\n",
]


def _task(
    store: Store,
    texts: list[str],
    *,
    spans: list[tuple[int, ...]] | None = None,
    left_out: dict[str, tuple[int, ...]] | None = None,
) -> Task:
    out = {number for numbers in (left_out or {}).values() for number in numbers}
    rows = [
        StoredExample(
            number=number,
            file="rows.jsonl",
            line=number + 1,
            hash=f"h{number}",
            token_hash=f"t{number}",
            text=text,
            spans=spans[number] if spans else (0, len(text)),
            input_ids=(5,) * (number % 7 + 1),
            labels=(IGNORED,) + (5,) * (number % 7),
            completion_tokens=number % 7,
            truncated=number == 1,
            left_out=None,
        )
        for number, text in enumerate(texts)
    ]
    store.put_tasks([StoredTask(key="k", name="t", examples=rows, inputs={}, outputs={"rows": [len(rows)]})])
    index = ExampleIndex(
        hashes=[row.hash for row in rows],
        token_hashes=[row.token_hash for row in rows],
        lengths=[len(row.input_ids) for row in rows],
        completion_tokens=[row.completion_tokens for row in rows],
        truncated=[row.truncated for row in rows],
        left_out=[None for _ in rows],
    )
    train = tuple(number for number in range(len(rows)) if number not in out)
    return Task(
        name="t",
        tags=(),
        version=TaskVersion(key="k", files=(), source={}, index=index),
        validation_version=None,
        split=TaskSplit(name="t", train=train, validation=(), left_out=left_out or {}),
    )


def _words(lines: list[Line], style: str | None = None) -> str:
    return "".join(
        part if isinstance(part, str) else part[0]
        for line in lines
        for part in line
        if style is None or (not isinstance(part, str) and part[1] == style)
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def test_read_examples_returns_rows_in_order_with_reasons(tmp_path: Path) -> None:
    task = _task(Store(tmp_path / "s.duckdb"), ["a", "b", "c", "d"], left_out={VALIDATION: (2,), LEAKED: (0,)})
    found = read_examples(Store(tmp_path / "s.duckdb"), task)
    assert [found.text(n) for n in range(len(found))] == ["a", "b", "c", "d"]
    assert found.reasons == {2: VALIDATION, 0: LEAKED}
    assert found.trained.tolist() == [1, 3]
    assert found.place(3) == "rows.jsonl:4"
    spread = found.by_row(np.array([0.5, -1.0]))
    assert np.isnan(spread[[0, 2]]).all()
    assert spread[[1, 3]].tolist() == [0.5, -1.0]


def test_read_examples_removed_task_is_empty(tmp_path: Path) -> None:
    task = _task(Store(tmp_path / "s.duckdb"), ["a", "b"])
    found = read_examples(Store(tmp_path / "none.duckdb"), task)
    assert len(found) == 0
    assert found.arranged("influence", descending=True, influence=None, shown=found.search("a")).size == 0


def test_read_examples_all_rows_left_out_has_no_influence(tmp_path: Path) -> None:
    task = _task(Store(tmp_path / "s.duckdb"), ["a", "b"], left_out={EMPTY: (0, 1)})
    found = read_examples(Store(tmp_path / "s.duckdb"), task)
    influence = found.by_row(np.zeros(0))
    assert found.arranged("influence", descending=True, influence=influence, shown=found.search("")).tolist() == [0, 1]
    assert summarise(np.zeros(0), np.zeros(0, dtype=np.int64)) is None


@given(st.lists(st.one_of(st.floats(-1, 1), st.just(float("nan"))), min_size=1, max_size=20))
def test_examples_arranged_by_influence_sorts_both_directions(values: list[float]) -> None:
    influence = np.array(values)
    count = len(values)
    found = Examples(
        key="",
        texts=None,
        spans=None,
        files=None,
        lines=np.zeros(count, dtype=np.int64),
        lengths=np.arange(count, dtype=np.int64) % 3,
        completion_tokens=np.zeros(count, dtype=np.int64),
        truncated=np.zeros(count, dtype=bool),
        split=TaskSplit(name="", train=(), validation=(), left_out={}),
        trained=np.zeros(0, dtype=np.intp),
        reasons={},
    )
    every = np.ones(count, dtype=bool)
    for descending in (True, False):
        order = found.arranged("influence", descending=descending, influence=influence, shown=every)
        assert sorted(order.tolist()) == list(range(count))
        known = influence[order][: count - int(np.isnan(influence).sum())]
        assert not np.isnan(known).any()
        steps = np.diff(known)
        assert (steps <= 0).all() if descending else (steps >= 0).all()
    assert found.arranged("influence", descending=True, influence=None, shown=every).tolist() == list(range(count))
    assert found.arranged("file", descending=True, influence=None, shown=every).tolist() == list(range(count))[::-1]
    by_length = found.arranged("length", descending=True, influence=None, shown=every)
    assert (np.diff(found.lengths[by_length]) <= 0).all()


def test_examples_search_is_literal_and_ignores_case(tmp_path: Path) -> None:
    texts = ["a.b[c]", "A.B[C] %_\\", "axb", "Ünïcode", "", *HOSTILE]
    found = read_examples(Store(tmp_path / "s.duckdb"), _task(Store(tmp_path / "s.duckdb"), texts))
    for words in ("a.b[", "%_\\", "ünÏ", "[/foo]", "汉", "(", "*", "nothing of the kind"):
        expected = [words.casefold() in text.casefold() for text in texts]
        assert found.search(words).tolist() == expected, words
    assert found.search("").all()


# -- influence --------------------------------------------------------------------------------------------------------


def test_unit_for_any_size_gives_three_digits() -> None:
    assert unit_for(2.0)(-1.5) == "−1.50"
    unit = unit_for(0.0123)
    assert (unit.name, unit(0.0123), unit(-0.0001)) == ("×0.001", "+12.3", "−0.1")
    assert unit_for(3e-6).name == "×10⁻⁶"
    assert unit_for(0.0).name == "×10⁻⁹"
    assert unit_for(float("nan")).name == "nats"
    assert unit(float("nan")) == ""


def test_summarise_known_gains_gives_expected_figures() -> None:
    gains, lengths = np.array([3.0, -1.0, 2.0, 1.0, 0.0, 4.0]), np.array([1, 2, 3, 4, 5, 6])
    found = summarise(gains, lengths)
    assert found is not None
    assert (found.low, found.high, found.total, found.half) == (-1.0, 4.0, 9.0, 2)
    assert (found.helping, found.count) == (4, 6)
    assert found.thirds == (1.0, 1.5, 2.0)
    assert sum(histogram(gains, 5)) == 6
    assert histogram(np.zeros(0), 5) == []


# -- laying out -------------------------------------------------------------------------------------------------------

texts = st.text(alphabet=st.sampled_from("ab cd\n\r\t汉👍é️\u200d\x1b\x00[/]"), max_size=60)


@given(texts, st.lists(st.integers(0, 60), max_size=6))
def test_pieces_any_spans_add_up_to_the_text(text: str, places: list[int]) -> None:
    spans = sorted(min(place, len(text)) for place in places)[: len(places) // 2 * 2]
    found = list(pieces(text, spans))
    assert "".join(piece for piece, _ in found) == text
    completion = "".join(text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True))
    assert "".join(piece for piece, carries in found if carries) == completion


@given(texts, st.integers(2, 30), st.lists(st.integers(0, 60), max_size=4))
def test_lay_out_any_text_fits_and_loses_nothing(text: str, width: int, places: list[int]) -> None:
    spans = sorted(min(place, len(text)) for place in places)[: len(places) // 2 * 2]
    lines = lay_out(marked(text, spans), width)
    for line in lines:
        shown = _words([line])
        assert cell_len(shown.removesuffix(" ")) <= width
        assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and clean(c) != c]
    plain = lay_out([text], 10**6)
    breaks = text.replace("\r\n", "\n").count("\n")
    assert len(plain) == breaks + 1
    squeezed = _words(lines).replace("▸", "").replace(" ", "")
    assert squeezed == _words(plain).replace(" ", "")


def test_marked_parts_with_loss_are_marked_exactly() -> None:
    text = "user: what is 2 + 2?\nassistant: four, of course\nuser: and 汉?\nassistant: 字\n"
    spans = []
    for completion in (" four, of course\n", " 字\n"):
        spans += [text.index(completion), text.index(completion) + len(completion)]
    for width in (7, 20, 200):
        lines = lay_out(marked(text, spans), width)
        assert _words(lines, "loss") == " four, of course 字"
        assert _words(lines).count("▸") == 2
        assert _words(lines).replace("▸", "") == text.replace("\n", "")


def test_marked_line_break_across_boundary_counts_once() -> None:
    lines = lay_out(marked("a\r\nb", (2, 4)), 20)
    assert [_words([line]) for line in lines] == ["a▸", "b"]


def test_lay_out_tabs_and_blanks_break_lines() -> None:
    assert [_words([line]) for line in lay_out(["a\tb\n\tc"], 20)] == ["a   b", "    c"]
    assert [_words([line]) for line in lay_out(["one two three"], 8)] == ["one two ", "three"]
    assert [_words([line]) for line in lay_out(["x" * 10], 4)] == ["xxxx", "xxxx", "xx"]
    assert [_words([line]) for line in lay_out(["汉字汉"], 4)] == ["汉字", "汉"]


def test_marked_long_text_is_cut_with_a_note() -> None:
    parts: list[Part] = marked("x" * (LONGEST + 10), (LONGEST - 1, LONGEST + 10))
    assert "10 more characters" in str(parts[-1])
    assert sum(len(part if isinstance(part, str) else part[0]) for part in parts) < LONGEST + 50


@pytest.mark.parametrize(
    ("text", "count"),
    [("plain\r\n\ttext", 0), ("\x1b[31m\x1b", 2), ("a\u202eb", 1), ("x\ry", 1), ("nbsp\xa0", 0), ("汉字", 0)],
)
def test_control_characters_are_counted_without_breaks(text: str, count: int) -> None:
    assert control_characters(text) == count


def test_preview_searched_words_are_visible() -> None:
    text = "beginning\n  " + "filler " * 40 + "needle end"
    assert preview(text, 30).startswith("beginning ↵ filler")
    assert "needle" in preview(text, 30, "NEEDLE")[:30]


def test_preview_line_breaks_and_tabs_are_signs() -> None:
    assert preview("one\r\ntwo\tthree\n\nfour\n", 40) == "one ↵ two ⇥ three ↵ ↵ four"


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n",
        "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>",
        "<start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>assistant\nYes<end_of_turn>\n",
        "<|user|>\nHi there<|end|>\n<|assistant|>\nYes<|end|>",
    ],
    ids=["chatml", "llama", "gemma", "phi"],
)  # fmt: skip
def test_preview_chat_shows_names_of_roles(text: str) -> None:
    assert preview(text, 60).strip() == "user: Hi there assistant: Yes"


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return Vocabulary(folder)


def test_vocabulary_words_add_up_to_the_text(vocabulary: Vocabulary) -> None:
    ids = make_tokenizer()("the word is red\none", add_special_tokens=False)["input_ids"]
    assert "".join(vocabulary.words(ids)) == "the word is red\none"
    assert vocabulary.words([10**9]) == [str(10**9)]


def test_token_parts_with_loss_are_marked(vocabulary: Vocabulary) -> None:
    ids = make_tokenizer()("the word is red", add_special_tokens=False)["input_ids"]
    labels = [IGNORED] * 2 + ids[2:]
    parts = token_parts(ids, labels, vocabulary)
    assert "".join(p[0] for p in parts if not isinstance(p, str) and p[1] == "loss token") == "".join(
        vocabulary.words(ids)[2:]
    )
    assert [p for p in parts if p == ("▸", "accent")] == [("▸", "accent")]


def test_token_parts_without_tokenizer_are_numbers(tmp_path: Path) -> None:
    parts = token_parts([7, 8], [IGNORED, 8], Vocabulary(tmp_path))
    assert _words([parts]) == "│7▸8"
    (tmp_path / "tokenizer.json").write_text("{broken")
    assert Vocabulary(tmp_path).words([7]) == ["7"]


def test_vocabulary_of_changed_tokenizer_is_read_again(tmp_path: Path) -> None:
    before = vocabulary_of(tmp_path)
    assert vocabulary_of(tmp_path) is before
    make_tokenizer().save_pretrained(tmp_path)
    after = vocabulary_of(tmp_path)
    assert after is not before
    assert after.words([1]) == ["<s>"]


def test_token_parts_decoder_tokens_follow_encoder_tokens(tmp_path: Path) -> None:
    parts = token_parts([7, 8, 9], [3, 4], Vocabulary(tmp_path))
    assert _words([parts]) == "│7│8│9\n▸3│4"
