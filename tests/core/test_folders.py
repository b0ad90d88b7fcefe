"""Walks of folders and globs, compared with `pathlib`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import DEEP, deep_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.folders import entries_below, matching, remove_folder

NAMES = st.sampled_from(["a", "b", "ab.jsonl", "[x]", "Ä", "c d"])
PARTS = st.one_of(NAMES, st.sampled_from(["*", "**", "a*", "?", "*.jsonl", "[ab]*", "[!a]", "[[]x]", ".."]))


@settings(max_examples=300, deadline=None)
@given(
    files=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8),
    pattern=st.lists(PARTS, min_size=1, max_size=5),
)
def test_matching_equals_pathlib(files: list[list[str]], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for parts in files:
            path = folder.joinpath(*parts)
            if not path.exists() and not any(above.is_file() for above in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        written = "/".join(pattern)
        assert matching(written, folder) == sorted(set(folder.glob(written)))
        assert matching(f"{folder}/{written}", Path("elsewhere")) == sorted(set(folder.glob(written)))


def test_matching_wildcard_matches_no_hidden_name(tmp_path: Path) -> None:
    for name in ("a.jsonl", ".a.jsonl", ".curator/b.jsonl", "c/.d.jsonl", "c/e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert matching("**/*.jsonl", tmp_path) == [tmp_path / "a.jsonl", tmp_path / "c/e.jsonl"]
    assert matching("*/*.jsonl", tmp_path) == [tmp_path / "c/e.jsonl"]
    assert matching(".*/*.jsonl", tmp_path) == [tmp_path / ".curator/b.jsonl"]
    assert matching(".curator/*.jsonl", tmp_path) == [tmp_path / ".curator/b.jsonl"]
    assert matching("**/.*.jsonl", tmp_path) == [tmp_path / ".a.jsonl", tmp_path / "c/.d.jsonl"]


def test_matching_links_are_followed_except_by_stars(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jsonl").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/loop").symlink_to("..")
    (tmp_path / "broken.jsonl").symlink_to("nowhere")
    assert matching("*/x.jsonl", tmp_path) == [tmp_path / "a/x.jsonl", tmp_path / "link/x.jsonl"]
    assert matching("**/*.jsonl", tmp_path) == [tmp_path / "a/x.jsonl", tmp_path / "broken.jsonl"]
    assert matching("broken.jsonl", tmp_path) == [tmp_path / "broken.jsonl"]
    assert {path.name for path in entries_below(tmp_path)} == {"x.jsonl", "link", "loop", "broken.jsonl"}


@pytest.mark.parametrize("pattern", ["", ".", "a**", "**.jsonl", "a\0b"])
def test_matching_invalid_pattern_raises_value_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|part of a name|null"):
        matching(pattern, tmp_path)


def test_matching_name_that_is_too_long_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        matching("9" * 300, tmp_path)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    with deep_folder(tmp_path / "deep"):
        yield tmp_path / "deep"


@pytest.mark.timeout(60)
def test_walks_deep_folder_is_walked(deep: Path) -> None:
    (file,) = entries_below(deep)
    assert len(file.relative_to(deep).parts) == DEEP + 1
    assert matching("**/*.jsonl", deep) == [file]
    # `pathlib` would visit each folder hundreds of times.
    assert matching("**/d/**/**/d/**/*.jsonl", deep) == [file]


def test_remove_folder_deep_folder_raises_nothing(deep: Path) -> None:
    """Python 3.11 cannot remove such a folder."""
    remove_folder(deep)


def test_remove_folder_removes_all(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").touch()
    remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
