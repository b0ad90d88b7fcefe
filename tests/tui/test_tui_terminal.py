"""The real interface: in tmux on the sample project, next to another process, and in a browser."""

import asyncio
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browsing, needs_chromium
from served import Server, serving
from tui_tmux import CURATOR, Tmux, needs_tmux, tmux

from curator.data.dropped import without
from curator.project.project import Project
from curator.select.manifest import read_manifest
from curator.select.selections import dropped_by
from curator.training.fine_tune import recipe_key, subset_content

__all__ = ["tmux"]


@pytest.fixture(scope="module")
def sample(computed_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy that the tests of this file share, with the sessions that they leave."""
    return Path(shutil.copytree(computed_sample, tmp_path_factory.mktemp("shared") / "sample", symlinks=True))


def _loss(shown: str) -> str:
    found = re.search(r" loss (\d\.\d{4}) ", shown)
    return found[1] if found else ""


@needs_tmux
def test_terminal_home_measure_and_selections_answer_by_keys(sample: Path, tmux: Tmux) -> None:
    tmux.open(sample, "1")
    sentence = re.compile(r"(better|worse) than|no different")
    home = tmux.until(lambda shown: "target only" in shown and sentence.search(shown))
    assert re.search(r"\d\.\d{4} +█.*[├┼┤]", home), "a bar with its interval"
    assert "does nothing" not in home
    tmux.keys("M")
    measure = tmux.until(lambda shown: "esc cancel" in shown and re.search(r"\d+ runs?\b", shown))
    assert re.search(r"\d+ (s|min|h)\b", measure), "the expected time"
    tmux.keys("Escape")
    tmux.until(lambda shown: "esc cancel" not in shown)
    tmux.keys("o")
    tmux.until(lambda shown: "saved selections" in shown and "forward" in shown and "r rename" in shown)
    tmux.keys("Escape")
    tmux.until(lambda shown: "r rename" not in shown)
    tmux.quit()


@needs_tmux
def test_terminal_keys_in_one_piece_fill_the_field_that_the_first_one_opens(sample: Path, tmux: Tmux) -> None:
    """A slow connection joins keys. The letters after `/` once took all tasks, and inverted them."""
    tmux.open(sample, "2")
    before = tmux.until(lambda shown: "✓ saved" in shown and "16 of 16" in shown)
    tmux.type("/rare")
    shown = tmux.until(lambda shown: "rare_nouns" in shown and "word_topic" not in shown)
    assert "✓ saved" in shown
    assert _loss(shown) == _loss(before)
    tmux.keys("Escape")
    tmux.until(lambda shown: " 1 of 16" in shown)
    tmux.keys("Escape")
    tmux.until(lambda shown: "16 of 16" in shown)
    tmux.type("wmine")
    shown = tmux.until(lambda shown: "save selection" in shown and "mine" in shown)
    # Keys that are no letters act in their order among the letters.
    tmux.keys("x", "C-u", "o", "n", "e", "BSpace", "C-a", "t", "h", "C-e", "r")
    tmux.until(lambda shown: "│ thonr " in shown)
    tmux.keys("Escape")
    tmux.until(lambda shown: "save selection" not in shown)
    tmux.type("?/settings")
    tmux.until(lambda shown: "Change theme" in shown and "Quit" not in shown)
    tmux.keys("Escape")
    tmux.keys("Escape")
    tmux.until(lambda shown: "Change theme" not in shown)
    # The next session opens the screen of this one.
    tmux.keys("1")
    tmux.until(lambda shown: "pipeline" in shown)
    tmux.quit()


@needs_tmux
def test_terminal_selection_is_edited_saved_and_exported(sample: Path, tmux: Tmux, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tmux.type(f"{sys.executable} -m curator tui -p {sample}")
    tmux.keys("Enter")
    tmux.until(lambda shown: "pipeline" in shown)
    tmux.keys("2")
    before = tmux.until(lambda shown: _loss(shown) and "hypernym" in shown)

    # A second terminal selects at the same time.
    other = subprocess.Popen(
        [*CURATOR, "select", "-p", str(sample), "--method", "backward", "--name", "other", "--json", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    tmux.keys("g", "Space")
    toggled = tmux.until(lambda shown: _loss(shown) not in ("", _loss(before)))
    first = next(line for line in before.splitlines() if line.startswith("▌"))
    changed = next(line for line in toggled.splitlines() if line.startswith("▌"))
    assert {first[2], changed[2]} == {"●", "○"}
    tmux.keys("u")
    tmux.until(lambda shown: _loss(shown) == _loss(before))
    tmux.keys("U")
    tmux.until(lambda shown: _loss(shown) == _loss(toggled))
    stdout, stderr = other.communicate(timeout=60)
    assert (other.returncode, stderr) == (0, "")
    assert json.loads(stdout)["name"] == "other"

    tmux.keys("w")
    tmux.until(lambda shown: "save selection" in shown)
    tmux.keys("C-u")
    tmux.until(lambda shown: "enter a name" in shown)
    tmux.type("by hand")
    tmux.keys("Enter")
    tmux.until(lambda shown: "vs by hand same" in shown)
    tmux.resize(40, 12)
    tmux.until(lambda shown: "too small" in shown)
    tmux.resize(80, 24)
    tmux.until(lambda shown: "vs by hand same" in shown)
    tmux.keys("e")
    tmux.until(lambda shown: "curator export" in shown)
    tmux.keys("Tab")
    tmux.keys("C-u")
    tmux.until(lambda shown: "name a folder" in shown)
    tmux.type(str(out))
    tmux.until(lambda shown: "will be created" in shown and f"preview {out.name}/" in shown)
    tmux.keys("Enter")
    tmux.until(lambda shown: "exported" in shown)
    tmux.keys("q")
    tmux.until(lambda shown: "bash-" in shown)

    name = first.split()[2]
    manifest = read_manifest(out / "curator-manifest.json")
    assert manifest.name == "by hand"
    assert f"{manifest.estimated_loss:.4f}" == _loss(toggled)
    assert [(edit.task, edit.by) for edit in manifest.edits] == [(name, "curator tui")]
    selected = {task.name for task in manifest.tasks if task.selected}
    assert (name in selected) == (changed[2] == "●")
    assert {path.stem for path in out.glob("*.jsonl")} == selected | {"topic", "validation"}


@needs_tmux
def test_terminal_sitting_drops_harmful_rows_measures_and_exports_for_two_trainers(
    computed_sample: Path, tmux: Tmux, tmp_path: Path
) -> None:
    """The keys of docs/tutorial/terminal-interface.md, in their order."""
    project = Path(shutil.copytree(computed_sample, tmp_path / "sitting", symlinks=True))
    tmux.open(project, "1")
    tmux.until(lambda shown: re.search(r"★ forward +\d+ in", shown) and "better than" in shown)
    tmux.keys("Enter")
    shown = tmux.until(lambda shown: _loss(shown) and re.search(r"▌ ● ", shown))
    tmux.keys("g")
    shown = tmux.until(lambda shown: (row := _row(shown)) is not None and row[1] == "1")
    row = _row(shown)
    assert row is not None
    task = row[0]
    tmux.keys("Enter")
    tmux.until(lambda shown: f"{task} lowers the loss" in " ".join(shown.split()) and "help." in shown)
    tmux.keys("d")
    tmux.until(lambda shown: "harmful only" in shown and "most harmful first" in shown)
    tmux.keys("X")
    tmux.until(lambda shown: "drop the most harmful examples" in shown and "│ 3 " in shown)
    tmux.keys("Enter")
    tmux.until(lambda shown: re.search(r"Without 3 dropped rows: \d\.\d+ → \d\.\d+ .*noise", shown))
    tmux.keys("M")
    tmux.until(lambda shown: "save selection" in shown)
    tmux.type("clean")
    tmux.keys("Enter")
    tmux.until(lambda shown: "measure clean" in shown and re.search(r"1 run, .* on this machine", shown))
    tmux.keys("Enter")
    tmux.until(lambda shown: re.search(r"verify +✓ done", shown))
    tmux.keys("1")
    home = tmux.until(lambda shown: re.search(r"clean \(.* ◎ measured, 1 run", shown))
    for presses, trainer in ((3, "llamafactory"), (5, "trl")):
        tmux.keys("e")
        tmux.until(lambda shown: "curator export clean" in shown and "will be created" in shown)
        tmux.keys(*["j"] * presses)
        tmux.until(lambda shown, trainer=trainer: f"preview clean-{trainer}/" in shown)
        tmux.keys("Enter")
        written = project / "exports" / f"clean-{trainer}" / "curator-export.json"
        tmux.until(lambda shown, written=written: "curator export" not in shown and written.exists())
    tmux.quit()

    manifests = [
        read_manifest(project / "exports" / f"clean-{trainer}" / "curator-manifest.json")
        for trainer in ("llamafactory", "trl")
    ]
    assert [len(found.dropped_examples) for found in manifests] == [3, 3]
    assert {row.task for row in manifests[0].dropped_examples} == {task}
    assert (manifests[0].method, manifests[0].started_from) == ("manual", "forward")
    opened = Project.open(project)
    kept = without(opened.corpus(("topic",)), dropped_by(manifests[0]))
    (run,) = opened.store.measurements(recipe_key(opened.config, kept))
    assert run.subset == subset_content(kept, run.subset)
    assert f"{run.loss:.4f}" in home
    for folder in ("clean-llamafactory", "clean-trl"):
        rows = [path.read_text() for path in (project / "exports" / folder).rglob(f"*{task}.jsonl")]
        assert rows
        assert {len(text.splitlines()) for text in rows} == {17}


def _row(shown: str) -> "tuple[str, str] | None":
    """Return the task under the cursor of Tasks, and its rank."""
    found = re.search(r"^▌ ● (\S+) .* (\d+) +[▐█│]", shown, re.MULTILINE)
    return (found[1], found[2]) if found else None


@needs_tmux
def test_terminal_job_outlives_terminal(sample: Path, tmux: Tmux, tmp_path: Path) -> None:
    # The last test may have left another screen open.
    command = f"{sys.executable} -m curator tui -p {sample}"
    tmux.type(command)
    tmux.keys("Enter")
    tmux.until(lambda shown: "topic" in shown and "? help" in shown)
    tmux.keys("4")
    tmux.until(lambda shown: "[4 Jobs]" in shown)
    tmux.keys("R")
    tmux.until(lambda shown: "run a stage" in shown)
    tmux.keys("j", "Enter")
    tmux.until(lambda shown: "▶" in shown)
    runs = sample / ".curator" / "runs"
    newest = sorted(runs.glob("*/run.json"))[-1]
    pid = int(json.loads(newest.read_text())["pid"])
    tmux.close()
    time.sleep(0.5)
    os.kill(pid, 0)
    again = Tmux(tmp_path)
    again.type(command)
    again.keys("Enter")
    again.until(lambda shown: "[4 Jobs]" in shown and "train" in shown)
    again.keys("g", "x")
    again.until(lambda shown: "y yes" in shown)
    again.keys("y")
    again.until(lambda shown: "interrupted" in shown)
    again.close()


def test_tui_without_terminal_names_alternative(sample: Path) -> None:
    done = subprocess.run(
        [*CURATOR, "tui", "-p", str(sample)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "curator select --json" in done.stderr
    nowhere = subprocess.run([*CURATOR, "tui", "-p", "/nowhere"], capture_output=True, text=True, check=False)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert "curator.toml" in nowhere.stderr


# -- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture
def served(sample: Path) -> Iterator[Server]:
    with serving(sample) as server:
        yield server


def test_serve_port_in_use_is_error(sample: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = [*CURATOR, "tui", "-p", str(sample), "--serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_tui_closed_terminal_ends_process(sample: Path, tmp_path: Path) -> None:
    # The terminal is not the controlling terminal, so that no signal reports its end. Containers do the same.
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [*CURATOR, "tui", "-p", str(sample)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        assert os.read(master, 1)
        os.close(master)
        process.wait(timeout=20)
    finally:
        process.kill()


@needs_chromium
def test_serve_browser_shows_task_table(served: Server, tmp_path: Path) -> None:
    async def main() -> None:
        async with browsing(tmp_path) as browser:
            await browser.open(served.url)
            await browser.until(lambda shown: "pipeline" in shown or "? help" in shown)
            await browser.focus()
            await browser.press("2")
            shown = await browser.until(lambda shown: _loss(shown) and "hypernym" in shown)
            await browser.press(" ")
            await browser.until(lambda now: _loss(now) not in ("", _loss(shown)))

    asyncio.run(main())
