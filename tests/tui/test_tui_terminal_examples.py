"""Examples in a real terminal: mark, drop, undo and annotate them, and read what that changes."""

import re
import shutil
from pathlib import Path

from tui_tmux import Tmux, needs_tmux, sentences, tmux

from curator.project.project import Project
from curator.select.manifest import Manifest

__all__ = ["tmux"]
pytestmark = needs_tmux

_EFFECT = re.compile(
    r"Without (\d+) (marked|dropped) rows?: (\d\.\d{4}) → (\d\.\d{4}) ±(\d\.\d{4})"
    r"  ([+−]\d\.\d{4}) ±(\d\.\d{4}), (not noise|within noise)"
)


def _effect(shown: str, count: int, kind: str) -> "re.Match[str] | None":
    """Return the header's answer about some rows; None until it is shown."""
    found = _EFFECT.search(shown)
    return found if found is not None and (found[1], found[2]) == (str(count), kind) else None


def _listed(shown: str) -> int:
    """Return how many examples the list holds, by its title."""
    found = re.search(r"─ examples .*?(?:\d+ of|none of) (\d+) ─", shown)
    return int(found[1]) if found else -1


def test_examples_are_marked_dropped_undone_and_annotated_by_keys(
    computed_sample: Path, tmux: Tmux, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(computed_sample, tmp_path / "sample", symlinks=True))
    tmux.open(project, "2")
    tasks = tmux.press("g", lambda shown: re.search(r"▌ ● (\S+)", shown) and "≈" not in shown and "…" not in shown)
    task = re.search(r"▌ ● (\S+)", tasks)[1]  # type: ignore[index]
    loss = re.search(r" loss (\d\.\d{4}) ", tasks)[1]  # type: ignore[index]
    tmux.press("Enter", lambda shown: "of 20 examples help." in shown and "×0.001" in shown)

    # `space` marks, and the header answers before anything is dropped: estimate, interval, and noise.
    shown = tmux.press("g Space Space", lambda shown: _effect(shown, 2, "marked"))
    assert "2 marked" in shown
    effect = _effect(shown, 2, "marked")
    assert effect is not None
    before, after, change, noise = (float(effect[n].replace("−", "-")) for n in (3, 4, 6, 7))
    assert effect[3] == loss, "the estimate of the headline"
    assert after - before == change or abs(after - before - change) < 1.5e-4
    assert (effect[8] == "not noise") == (abs(change) > noise)
    tmux.press("Escape", lambda shown: "marked" not in shown and "Without" not in shown)

    # `v` marks a range, and the filters show a part of the rows.
    tmux.press("g v j j v", lambda shown: "3 marked" in shown)
    shown = tmux.press("d", lambda shown: "harmful only" in shown and "most harmful first" in shown)
    assert re.search(r"▌.? +−\d", shown), "the most harmful row is first, under the cursor"
    harmful = _listed(shown)
    assert "─ examples " in shown, "the title is whole"
    tmux.press("d", lambda shown: "marked only" in shown and _listed(shown) == 3)
    shown = tmux.press("x", lambda shown: _effect(shown, 3, "dropped") and "of 17 examples help." in shown)
    assert re.search(r"help: \d+ of 17 ", shown), "the box counts the rows that train"
    assert "● 3 changed" in shown
    tmux.press("d", lambda shown: "dropped only" in shown and _listed(shown) == 3 and shown.count("\n ✗ ") == 2)
    tmux.press("u", lambda shown: "Without" not in shown and "✓ saved" in shown and "of 20 examples help." in shown)
    tmux.press("U", lambda shown: _effect(shown, 3, "dropped"))
    tmux.press("u", lambda shown: "✓ saved" in shown and "of 20 examples help." in shown)

    # "Drop the n most harmful" refuses more rows than there are.
    tmux.press("X", lambda shown: f"{harmful} examples harm the target" in shown)
    tmux.press("C-u 9 9 Enter", lambda shown: f"enter a number from 1 to {harmful}" in shown)
    tmux.press("C-u 2 Enter", lambda shown: _effect(shown, 2, "dropped"))

    # A note is kept on an example and on its task.
    tmux.press("d", lambda shown: "dropped only" not in shown)
    tmux.press("n", lambda shown: re.search(rf"example [0-9a-f]{{8}} of {task}", shown))
    tmux.type("odd row")
    tmux.press("Enter", lambda shown: "note: odd row" in shown)
    tmux.press("N", lambda shown: f"task {task} " in shown)
    tmux.type("look at it again")
    tmux.press("Enter", lambda shown: "note on the task: look at it again" in shown)

    # The best order and its point are of the same examples: with all tasks, both end at the same loss.
    tmux.press("Escape", lambda shown: "helps by ▼" in shown)
    tmux.press("a", lambda shown: "16/16 in" in shown and "◌" not in shown)
    tmux.press("b", lambda shown: "× now" in shown and "pins are kept" in shown)
    shown = tmux.press("G", lambda shown: re.search(r"▌ +16 ", shown))
    now = re.search(r"× now +(\d\.\d{4}) with 16 tasks", shown)
    last = re.search(r"▌ +16 \S+ +\S+ (\d\.\d{4}) ", shown)
    assert now is not None
    assert last is not None
    assert now[1] == last[1]
    tmux.press("Escape", lambda shown: "× now" not in shown)
    tmux.press("u", lambda shown: "● 2 changed" in shown)

    # A note is kept on a selection, and shown whole.
    tmux.press("w", lambda shown: "save selection" in shown)
    tmux.type("clean")
    tmux.press("Enter", lambda shown: "vs clean same" in shown)
    tmux.press("1", lambda shown: "★ clean" in shown)
    tmux.press("n", lambda shown: "selection clean" in shown)
    words = "without two rows that no other task has, for the second table of the paper"
    tmux.type(words)
    tmux.press("Enter", lambda shown: "note kept" in shown)
    shown = tmux.press("o", lambda shown: "saved selections" in shown and "paper" in shown)
    assert words in sentences(shown)
    tmux.press("Escape", lambda shown: "saved selections" not in shown)
    tmux.quit()

    store = Project.open(project).store
    assert sorted(kept.text for kept in store.notes()) == sorted(["odd row", "look at it again", words])
    saved = next(kept for kept in store.selections() if kept.name == "clean")
    manifest = Manifest.model_validate_json(saved.manifest)
    assert {row.task for row in manifest.dropped_examples} == {task}
    assert len(manifest.dropped_examples) == 2
