"""Plain English, as far as a machine can check it: words, lengths, and how help, hints and errors begin."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from curator.cli.app import app

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "curator").rglob("*.py"), *(ROOT / "tui").rglob("*.py")])
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "sample_data" / "README.md"])
GENERATED = {ROOT / "docs" / "reference" / name for name in ("commands.md", "configuration.md", "python.md")}

BANNED = re.compile(
    r"\b(comes? to|came to|gone on|goes on|go on from|is told|are told|tells? of|mend(?:s|ed|ing)?|in place of|are none"
    r"|is none|to be had|turn(?:s|ed)? round|anew|whoever|nobody|really|by itself|by themselves|beside)\b",
    re.IGNORECASE,
)
MOST_WORDS = 20
MOST_COLUMNS = 120
_VERBS = """
accept add allow always answer apply ask call change check choose clear close compare compute continue convert copy
correct create cut decode define delete describe do download draw drop edit enable ensure estimate examine export
filter find fine-tune fix follow free give group hide import include increase install keep leave limit list look lower
make mark measure merge meta-train move name never omit open pass paste pause pick pin place pop print put query quit
raise read recompute redo reduce remove rename replace report resize restart restore resume return run save search
select send serve set share shorten show skip sort split start step stop switch test toggle train try turn type undo
unpack unpin update upgrade use verify view wait write
"""
VERBS = set(_VERBS.split())


def _sentences(text: str) -> Iterator[str]:
    """Yield sentences of prose, without code, links, tables, headings and lists of names."""
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"^(?: {4,}|\t|\||#|<!--|---|>>>).*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "X", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = text.replace("**", "")
    for block in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(block.split()))


def _long(text: str) -> list[str]:
    return [sentence for sentence in _sentences(text) if len(re.findall(r"\w[\w'’,.–-]*", sentence)) > MOST_WORDS]


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield every string, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_prose_has_no_banned_word_and_short_sentences(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [found[0] for found in BANNED.finditer(text)] == []
    if path not in GENERATED:
        assert _long(text) == []
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
        assert [line for line in prose if len(line) > MOST_COLUMNS and not line.startswith(("|", "!", "["))] == []


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_source_text_has_no_banned_word(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    texts = [*_strings(ast.parse(source)), *_comments(source)]
    assert [f"{line}: {found[0]}" for line, text in texts for found in BANNED.finditer(text)] == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstring_sentences_are_short(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"{line}: {sentence}" for line, text in _docstrings(tree) for sentence in _long(text)] == []


def _helps() -> Iterator[tuple[str, str]]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        yield name, command.help
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield f"{name} {parameter.opts[-1]}", parameter.help


@pytest.mark.parametrize(("place", "text"), list(_helps()), ids=lambda value: value if " " not in value else "")
def test_help_starts_with_a_verb(place: str, text: str) -> None:
    assert _first_word(text) in VERBS, f"{place}: {text}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_hints_are_imperatives_and_errors_are_no_questions(path: Path) -> None:
    bad = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            for line, text in _beginnings(node.value):
                if text and _first_word(text) not in VERBS:
                    bad.append(f"{line}: {text}")
        if isinstance(node, ast.Raise) and node.exc is not None:
            bad += [f"{line}: {text}" for line, text in _strings(ast.Module([node], [])) if text.rstrip().endswith("?")]
    assert bad == []


def _beginnings(node: ast.expr) -> Iterator[tuple[int, str]]:
    """Yield how a string expression may begin; a value that is only known at run time yields nothing."""
    if isinstance(node, ast.IfExp):
        yield from _beginnings(node.body)
        yield from _beginnings(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield from _beginnings(node.left)
    elif isinstance(node, ast.JoinedStr) and node.values:
        yield from _beginnings(node.values[0])
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value


def _first_word(text: str) -> str:
    return re.split(r"[\s,.:;(]", text.strip(), maxsplit=1)[0].lower()


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_tests_give_unit_condition_and_result(path: Path) -> None:
    names = [node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _is_test(node)]
    assert [name for name in names if name.count("_") < 3 or len(name) > 100] == []
    assert [name for name in names if BANNED.search(name.replace("_", " "))] == []


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")


def test_language_check_bad_text_is_found() -> None:
    assert BANNED.search("A run that is gone on with")
    assert _long("One " + "word " * 20 + "here.")
    assert not _long("One word. " * 30)
    assert list(_beginnings(ast.parse("f'Is it {x}?'", mode="eval").body)) == [(1, "Is it ")]
