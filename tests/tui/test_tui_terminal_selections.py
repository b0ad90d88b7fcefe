"""Saved selections in a real terminal: rename, delete, annotate, fill up, run and export them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tui_tmux import Tmux, has, needs_tmux, sentences, tmux

import curator

__all__ = ["tmux"]
pytestmark = needs_tmux
DrawnProject = Callable[..., Path]


def test_selections_are_renamed_annotated_deleted_restored_and_exported(
    drawn_project: DrawnProject, tmux: Tmux
) -> None:
    project = drawn_project()
    opened = curator.Project.open(project)
    opened.select(name="old", k=2)
    opened.select(name="new", k=4)
    tmux.open(project, "1")
    tmux.press("o", has("saved selections", "r rename", "x delete", "n note"))
    tmux.press("r", has("rename selection", "note, measured losses and hashes stay"))
    tmux.press("C-u o l d Enter", has("another selection has this name"))
    tmux.press("C-u", lambda shown: "another selection" not in shown)
    tmux.type("first")
    tmux.press("Enter", has("▌first "))
    tmux.press("n", has("selection first"))
    tmux.type("good")
    tmux.press("Enter", has("note: good"))
    tmux.press("x", lambda shown: "deleted first. u undoes it." in shown and "note: good" not in shown)
    tmux.press("u", lambda shown: re.search(r"[▌ ]first +loss", shown) and "undone: deleted first" in shown)
    tmux.press("Escape", lambda shown: "saved selections" not in shown)
    # The same keys act on the list of Home.
    tmux.press("x", lambda shown: "deleted" in shown and "★" not in shown)
    tmux.press("u", has("★ first"))

    # The folder of an export follows its format, and an export asks before it replaces another one.
    tmux.press("2", has("vs first same"))
    tmux.press("e", has("curator export", "preview first-jsonl/"))
    tmux.press("j", has("preview first-parquet/"))
    tmux.press("k Enter", has("exported"))
    written = project / "exports" / "first-jsonl" / "curator-export.json"
    before = written.stat().st_ino
    assert json.loads(written.read_text())["format"] == "jsonl"
    tmux.press("e", has("not empty: enter asks before it replaces the files"))
    shown = tmux.press("Enter", has("replace an export"))
    words = sentences(shown)
    assert "an export of first as jsonl. The new export replaces it, and undo does not bring it back." in words
    tmux.press("Escape", lambda shown: "replace an export" not in shown and "curator export" in shown)
    assert written.stat().st_ino == before
    tmux.press("Enter", has("replace an export"))
    tmux.press("y", lambda shown: "curator export" not in shown)
    assert written.stat().st_ino != before

    # This estimator cannot drop examples. The screen says so, and offers no key that drops.
    tmux.press("o", has("saved selections"))
    tmux.press("G Enter", has("12/12 in"))
    tmux.press("g Enter", has("● in", "of its examples", "space mark"))
    shown = tmux.press("Space", has('Without 1 marked row: the estimate needs method = "trajectory"'))
    assert "drop" not in shown.splitlines()[-1]
    tmux.press("x", has('dropping examples needs method = "trajectory" under [estimate]', "4 ex · 68 tok"))
    tmux.press("Escape Escape", has("12/12 in", "if flipped"))
    tmux.quit()

    saved = {entry.name for entry in opened.saved_selections().selections if not entry.deleted}
    assert saved == {"old", "first"}


def test_selections_are_filled_weighed_and_raced_by_keys(drawn_project: DrawnProject, tmux: Tmux) -> None:
    project = drawn_project()
    tmux.open(project, "2")
    tmux.until(has("12/12 in", "vs all same"))

    # Best order: take up to the line under the cursor.
    shown = tmux.press("b", has("◀ least", "pins are kept", "enter take up to this line"))
    shown = tmux.press("j j", lambda shown: re.search(r"▌ +2 task", shown))
    loss = re.search(r"▌ +2 \S+ +\S+ (\d\.\d{4}) ", shown)
    assert loss is not None
    tmux.press("Enter", has("2/12 in", f" loss {loss[1]} ", "best order, 2 tasks"))

    # `ensemble` takes the tasks that help, within a budget.
    shown = tmux.press("f", has("ensemble", "mixture", "max tokens", "◆ 0 pinned in"))
    assert all(line.count("│") in (0, 2) for line in shown.splitlines()[5:17])
    tmux.press("j j j Tab 3 Enter", has("3/12 in", "filled by ensemble"))
    tmux.press("f", has("ensemble"))
    # Each task has 68 tokens.
    tmux.press("j j j Tab Tab 1 5 0 Enter", has("2/12 in", "136 tokens", "filled by ensemble"))
    inside = re.findall(r"● (task\d+) +\d+ +\+", tmux.pane())
    assert len(inside) == 2, "tasks that help"

    # `mixture` needs weights, so a job computes it.
    tmux.press("f", has("mixture"))
    tmux.press("G", has("▌mixture"))
    tmux.press("Tab Tab 3 0 0 Enter", has("[4 Jobs]", "✓ select: done"))
    # `select --runs` trains on subsets, and Jobs shows it live.
    tmux.press("R", has("run a stage", "max tokens   no limit", "method       ◂ as configured ▸"))
    tmux.press("Tab Right Right", lambda shown: "--method backward" in sentences(shown))
    tmux.press("BTab", lambda shown: "select --method backward" in sentences(shown))
    tmux.press("j j", has("▌select by runs", "runs         24", "at most 24 fine-tuning runs, "))
    tmux.press("Tab C-u 2", has("select --runs 2 --name race", "at most 2 fine-tuning runs, at most about"))
    tmux.press("Enter", has("▶ running", "select --runs 2"))
    tmux.press("1", lambda shown: re.search(r"race +\d+ in .*◎ \d\.\d{4}", shown) and "mixture " in shown)
    tmux.quit()

    kept = {entry.name: entry for entry in curator.Project.open(project).saved_selections().selections}
    assert {"mixture", "race"} <= set(kept)
    assert kept["mixture"].method == "mixture"
