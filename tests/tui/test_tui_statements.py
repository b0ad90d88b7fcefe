"""Statements on the screens are true: two windows on one project, after a restart, and after other processes."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tui_tmux import Tmux, has, needs_tmux, tmux

from curator.project.project import Project
from curator.select.manifest import Manifest
from curator.training.fine_tune import recipe_key, subset_content
from tui.state.snapshot import load_snapshot

__all__ = ["tmux"]
pytestmark = needs_tmux


@pytest.fixture
def sample(computed_sample: Path, tmp_path: Path) -> Path:
    """Return a copy of the sample project, without sessions."""
    return Path(shutil.copytree(computed_sample, tmp_path / "sample"))


@pytest.fixture
def other(tmux: Tmux, tmp_path: Path) -> Iterator[Tmux]:
    """Return a second terminal."""
    (tmp_path / "other").mkdir()
    made = Tmux(tmp_path / "other")
    yield made
    made.close()


def _save_as(window: Tmux, name: str) -> None:
    window.keys("w")
    window.until(lambda shown: "save selection" in shown and ("new selection" in shown or "replaces" in shown))
    window.keys("C-u")
    window.until(lambda shown: "enter a name" in shown)
    window.type(name)
    window.until(lambda shown: name in shown)
    window.keys("Enter")
    window.until(lambda shown: f"vs {name} same" in shown)


def _measure(sample: Path, count: int) -> None:
    """Store measured losses, as `curator verify` does: 0.8 of the estimate. They change every estimate."""
    snapshot = load_snapshot(sample)
    assert snapshot.corpus is not None
    assert snapshot.answers is not None
    masks = np.random.default_rng(0).random((count, len(snapshot.names))) < 0.5
    losses = snapshot.answers.estimator.validation_losses(masks) @ snapshot.answers.estimator.validation_weights
    recipe = recipe_key(snapshot.project.config, snapshot.corpus)
    for mask, loss in zip(masks, losses, strict=True):
        content = subset_content(snapshot.corpus, [n for n, inside in zip(snapshot.names, mask, strict=True) if inside])
        snapshot.project.store.put_measurement(recipe, "topic", content, seed=1, loss=0.8 * float(loss), seconds=2.0)


def _saved(sample: Path, name: str) -> Manifest:
    found = next(kept for kept in Project.open(sample).store.selections() if kept.name == name)
    return Manifest.model_validate_json(found.manifest)


def test_windows_second_window_starts_from_saved_selection_and_sees_saves(
    sample: Path, tmux: Tmux, other: Tmux, tmp_path: Path
) -> None:
    tmux.open(sample, "2")
    tmux.until(lambda shown: "vs forward same" in shown)
    tmux.keys("g", "Space")
    edited = tmux.until(lambda shown: "1 changed" in shown and re.search(r"vs forward [+−]", shown))
    row = next(line for line in edited.splitlines() if line.startswith("▌"))

    other.open(sample)
    other.until(lambda shown: "starts from what is saved" in shown)
    other.keys("2")
    shown = other.until(lambda shown: "vs forward same" in shown and "✓ saved" in shown)
    same = next(line for line in shown.splitlines() if row.split()[2] in line)
    assert {row[2], same[2]} == {"●", "○"}, "the edit of the first window is not in the second"
    # An export of the second window holds the saved selection.
    out = tmp_path / "out"
    other.keys("e")
    other.until(lambda shown: "curator export" in shown)
    other.keys("Tab", "C-u")
    # Textual deletes the text after keys that are already waiting.
    other.until(lambda shown: "name a folder" in shown)
    other.type(str(out))
    other.until(lambda shown: "will be created" in shown and f"preview {out.name}/" in shown)
    other.keys("Enter")
    other.until(lambda shown: "exported" in shown)
    exported = json.loads((out / "curator-manifest.json").read_text())
    selected = {task.name for task in _saved(sample, "forward").tasks if task.selected}
    assert {task["name"] for task in exported["tasks"] if task["selected"]} == selected

    # Both see each other's saves.
    _save_as(tmux, "forward")
    other.until(lambda shown: "forward was saved again" in shown and "1 changed" in shown)
    _save_as(other, "second")
    tmux.keys("o")
    tmux.until(lambda shown: "second" in shown)


def test_windows_closed_windows_keep_their_undo_histories(sample: Path, tmux: Tmux, other: Tmux) -> None:
    tmux.open(sample, "2")
    tmux.until(lambda shown: "vs forward same" in shown)
    tmux.keys("g", "Space", "j", "Space")
    tmux.until(lambda shown: "2 changed" in shown)
    other.open(sample, "2")
    other.until(lambda shown: "vs forward same" in shown)
    other.keys("G", "Space")
    other.until(lambda shown: "1 changed" in shown)
    other.quit()
    tmux.quit()

    other.open(sample)
    other.until(lambda shown: "1 other session has unsaved changes: ctrl+o" in shown and "1 changed" in shown)
    other.keys("C-o")
    other.until(lambda shown: "3 edits, 2 changed from forward" in shown)
    other.keys("j", "Enter")
    other.until(lambda shown: "2 changed" in shown and "sessions of edits" not in shown)
    other.keys("u", "u")
    other.until(lambda shown: "✓ saved" in shown and "vs forward same" in shown)


def test_windows_opened_and_closed_window_leaves_session_alone(sample: Path, tmux: Tmux, other: Tmux) -> None:
    tmux.open(sample, "2")
    tmux.keys("g", "Space")
    tmux.until(lambda shown: "1 changed" in shown)
    other.open(sample, "2")
    other.until(lambda shown: "vs forward same" in shown)
    other.quit()
    tmux.quit()
    tmux.open(sample, "2")
    # The message about the resumed session goes after some seconds, but the history stays.
    tmux.until(lambda shown: "edit 2/2" in shown and "1 changed" in shown)


def test_save_selection_edited_by_hand_has_method_manual(sample: Path, tmux: Tmux) -> None:
    tmux.open(sample, "2")
    tmux.until(lambda shown: "vs forward same" in shown)
    _save_as(tmux, "copy")
    tmux.keys("g", "Space")
    tmux.until(lambda shown: "1 changed" in shown)
    _save_as(tmux, "mine")
    tmux.keys("j", "Space")
    tmux.until(lambda shown: "1 changed" in shown)
    _save_as(tmux, "mine")
    copy, mine = _saved(sample, "copy"), _saved(sample, "mine")
    assert (copy.method, copy.started_from, copy.edits) == ("forward", "", ())
    assert (mine.method, mine.started_from) == ("manual", "copy")
    start = {task.name for task in copy.tasks if task.selected}
    for edit in mine.edits:
        (start.add if edit.selected else start.discard)(edit.task)
    assert len(mine.edits) == 2
    assert start == {task.name for task in mine.tasks if task.selected}, "the edits lead to the selection"
    tmux.keys("o")
    tmux.until(lambda shown: re.search(r"mine .*manual, from c", shown))


def test_tasks_sorted_by_flip_stays_sorted_after_restart_and_edit(sample: Path, tmux: Tmux) -> None:
    def flips(shown: str) -> list[float]:
        rows = [line for line in shown.splitlines() if re.search(r"[●○◆◇] \w", line[:5])]
        return [
            float(line.split()[-1].replace("−", "-").lstrip("≈"))
            for line in rows
            if re.match(r"≈?[+−]", line.split()[-1])
        ]

    def is_sorted(shown: str) -> bool:
        return "if flipped ▲" in shown and len(flips(shown)) == 16 and flips(shown) == sorted(flips(shown))

    tmux.open(sample, "2")
    tmux.until(lambda shown: len(flips(shown)) == 16)
    tmux.keys("s")
    tmux.until(is_sorted)
    tmux.keys("g", "Space")
    tmux.until(lambda shown: "1 changed" in shown and is_sorted(shown))
    tmux.quit()
    tmux.open(sample)
    tmux.until(lambda shown: "1 changed" in shown and is_sorted(shown))


def test_home_numbers_after_verify_come_from_one_revision(sample: Path, tmux: Tmux) -> None:
    def rows(shown: str) -> dict[str, list[str]]:
        found = re.findall(r"[★ ] (forward|all tasks) .*? in (\d\.\d{4})(.*?)│", shown)
        return {name: [loss, rest.strip()] for name, loss, rest in found}

    tmux.resize(140, 40)
    tmux.open(sample)
    before = rows(tmux.until(lambda shown: len(rows(shown)) == 2))
    _measure(sample, 12)
    after = rows(
        tmux.until(lambda shown: len(rows(shown)) == 2 and rows(shown)["all tasks"][0] != before["all tasks"][0], 60)
    )
    change = float(re.search(r"[+−]\d\.\d{4}", after["forward"][1])[0].replace("−", "-"))  # type: ignore[index]
    assert float(after["forward"][0]) - float(after["all tasks"][0]) == pytest.approx(change, abs=1.5e-4)


def test_headline_nothing_saved_claims_no_saved_selection(computed_sample: Path, tmp_path: Path, tmux: Tmux) -> None:
    sample = Path(shutil.copytree(computed_sample, tmp_path / "unsaved"))
    with Project.open(sample).store.write() as connection:
        connection.execute("DELETE FROM selections")
    tmux.open(sample, "2")
    shown = tmux.until(lambda shown: re.search(r" loss \d\.\d{4} ", shown))
    assert "not saved" in shown
    assert "vs saved" not in shown
    assert "✓ saved" not in shown


def test_chart_counts_edits_only_and_copy_claims_only_what_was_sent(
    drawn_project: Callable[..., Path], tmux: Tmux
) -> None:
    """At 140 × 40: the chart, and at 200 × 50 more columns. All numbers of one kind have one form."""
    project = drawn_project()
    Project.open(project).select(name="best", k=3)

    def edits_of(shown: str) -> list[int]:
        """Return the numbers on the axis of the chart."""
        axis = next((line for line in shown.splitlines() if re.search(r"\bedit │", line)), "")
        return [int(word) for word in re.findall(r"\d+", axis[axis.rindex("│", 0, axis.rindex("edit")) :])]

    tmux.resize(140, 40)
    tmux.open(project, "2")
    shown = tmux.press("g Space j Space", lambda shown: "2 changed" in shown and edits_of(shown)[-1:] == [3])
    assert "edit 3/3" in shown, "the chart and the headline count the same edits"
    tmux.press("w", has("save selection"))
    tmux.type("mine")
    tmux.press("Enter", has("vs mine same", "saved mine"))
    tmux.press("o", has("saved selections"))
    tmux.press("r", has("rename selection"))
    tmux.press("C-u y o u r s Enter", has("renamed mine to yours", "▌yours"))
    tmux.press("x", has("deleted yours. u undoes it."))
    tmux.press("u u Escape", lambda shown: "vs mine same" in shown and "saved selections" not in shown)
    shown = tmux.until(lambda shown: "undo renamed mine" in shown)
    assert edits_of(shown)[-1] == 3, "saving, renaming, deleting and their undo do not count"

    # A terminal that takes no text: the words do not claim that it was copied.
    tmux.press("Enter", has("influence of its examples", "×0.001"))
    shown = tmux.press("y", has("sent to the terminal: "))
    assert "copied" not in shown
    assert tmux.clipboard() == ""
    tmux.take_clipboard()
    tmux.keys("y")
    tmux.until(lambda _: tmux.clipboard() != "")
    assert re.fullmatch(r"\d of \d: answer \d", tmux.clipboard())
    tmux.press("Escape", has("helps by ▼"))

    # More columns at more width.
    narrow = tmux.pane()
    assert all(title in narrow for title in (" ± ", "if flipped", " tag "))
    tmux.resize(200, 50)
    wide = tmux.until(has(" rank ", " source ", " first example "))
    assert not any(title in narrow.splitlines()[4] for title in (" rank ", " source ", " first example"))
    assert re.search(r"task0004 .* 00004\.jsonl +\d of 4: answer \d", wide), "source and preview of a task"

    # One way to write numbers: a true minus sign, four digits for nats, and ± before half of an interval.
    shots = [wide]
    for key, sign in (("1", "recent"), ("3", "similar tasks"), ("5", "est. loss")):
        shots.append(tmux.press(key, lambda shown, key=key, sign=sign: f"[{key} " in shown and sign in shown))
    for shot in shots:
        assert not re.search(r"(?<![\w./-])-\d", shot), "no hyphen as a minus sign"
        assert {len(digits) for digits in re.findall(r"±\s?<?\d\.(\d+)", shot)} <= {4}
        assert {len(digits) for digits in re.findall(r"[+−]0\.(\d+)", shot)} <= {2, 3, 4}, "scales of bars are short"
    losses = {re.search(r"all (?:12 )?tasks +(?:12 in )?(\d\.\d{4})", shots[1])[1]}  # type: ignore[index]
    losses.add(re.search(r"est\. loss .*?(\d\.\d{4}) ±\d\.\d{4} *\w* *$", shots[3], re.MULTILINE)[1])  # type: ignore[index]
    assert len(losses) == 1, "all tasks have the same loss on Home and on Compare"
    times = [line for line in shots[1].splitlines() if re.search(r"\d\d:\d\d .*(saved|deleted|renamed|out|in) ", line)]
    assert len(times) >= 3
    tmux.quit()
