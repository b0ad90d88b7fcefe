"""The interface before the first estimate, on broken projects, and on names of any script: in tmux at 80 × 24."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tui_tmux import Tmux, has, needs_tmux, tmux

from curator.project.project import Project

__all__ = ["tmux"]
pytestmark = needs_tmux

SOFT = "co\u00adoperate"
PERSIAN, FAMILY = "می\u200cخواهم", "👨\u200d👩\u200d👧"
LONG = "natural_instructions_" + "x" * 70 + "_paraphrase"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return the sample project, with nothing computed."""
    source = Path(__file__).parents[2] / "sample_data"
    ignored = shutil.ignore_patterns(".curator", "curator-manifest.json", "exports")
    return Path(shutil.copytree(source, tmp_path / "sample", ignore=ignored))


def _open(tmux: Tmux, project: Path, sign: str) -> str:
    tmux.type(f"{sys.executable} -m curator tui -p {project}")
    tmux.keys("Enter")
    return tmux.until(lambda shown: sign in shown and "? help" in shown)


def test_first_run_one_pane_says_what_to_press(fresh: Path, tmux: Tmux) -> None:
    shown = _open(tmux, fresh, "files found")
    assert "16 task files found. The target is topic." in shown
    assert "Press R, then enter" in shown
    assert shown.count("╭") == 1, "no empty boxes"
    footer = shown.rstrip().splitlines()[-1]
    assert "R run" in footer
    assert not re.search(r"undo|save|verify|export|compare|open|pane", footer), "the footer offers only what works"
    # The selection of the method does not exist yet, so it cannot be saved or not.
    assert "saved" not in shown
    tmux.until(
        lambda shown: (
            "16 task files found. The target is topic (300 rows, 192 held out)." in shown
            and re.search(r"Press R, then enter: about .*(s|min|h) on this machine\.", shown)
        )
    )
    tmux.keys("w")
    tmux.until(lambda shown: "press R and run" in shown)
    tmux.keys("R")
    tmux.until(lambda shown: "run a stage" in shown and "curator select -p" in shown)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('target = "topic"', 'target = "nope"'), "unknown target: 'nope'"),
        (("[data]", "[data"), "curator.toml"),
        (('name_or_path = "model"', 'name_or_path = "nowhere/at-all"'), "nowhere/at-all"),
    ],
    ids=["target", "configuration", "model"],
)
def test_broken_project_message_and_hint_are_whole(
    change: tuple[str, str], words: str, fresh: Path, tmux: Tmux
) -> None:
    config = (fresh / "curator.toml").read_text()
    assert change[0] in config
    (fresh / "curator.toml").write_text(config.replace(*change))
    shown = _open(tmux, fresh, "the project cannot be read")
    # A path has no blanks, so it breaks anywhere.
    assert words.replace(" ", "") in re.sub(r"[\s│]", "", shown)
    assert "ctrl+l reads the project again" in shown
    assert shown.count("╭") == 1
    (fresh / "curator.toml").write_text(config)
    tmux.keys("C-l")
    tmux.until(lambda shown: "16 task files found" in shown)


def test_help_scrolls_filters_and_runs_action(fresh: Path, tmux: Tmux) -> None:
    _open(tmux, fresh, "files found")
    tmux.keys("?")
    tmux.until(lambda shown: "this screen" in shown)

    def at_the_end(shown: str) -> bool:
        # The box takes keys when it has the focus, a moment after it is drawn.
        tmux.keys("G")
        return "matrix: hurts, from strong to weak" in shown

    shown = tmux.until(at_the_end)
    assert "this screen" not in shown
    tmux.keys("/")
    tmux.type("settings")
    tmux.until(lambda shown: "f2" not in shown and "F2" in shown and "Change theme" in shown and "Quit" not in shown)
    tmux.keys("Enter")
    tmux.keys("Enter")
    tmux.until(lambda shown: "curator-dark" in shown and "pointer" in shown)


def test_text_of_any_script_is_shown_and_long_names_keep_their_ends(fresh: Path, tmux: Tmux) -> None:
    first = {"prompt": f"first line\nsecond\tcell {SOFT}", "completion": f"{PERSIAN} \u202egnp"}
    for name in (PERSIAN, FAMILY, LONG):
        text = json.dumps(first) + "\n" + json.dumps({"prompt": f"a {name}", "completion": "b"}) + "\n"
        (fresh / "tasks" / f"{name}.jsonl").write_text(text)
    project = Project.open(fresh)
    project.corpus(project.config.data.targets)
    _open(tmux, fresh, "held out")
    tmux.keys("2")
    shown = tmux.until(lambda shown: "of 19" in shown)
    tmux.keys("/")
    tmux.type("natural_instructions")
    tmux.keys("Enter")
    shown = tmux.until(lambda shown: "1 of 19" in shown)
    assert re.search(r"natural_instr\w*…\w+_paraphrase", shown), "both ends of a long name are on the screen"
    tmux.keys("Enter")
    shown = tmux.until(lambda shown: "first line ↵ second ⇥ cell" in shown)
    assert SOFT in shown, "a soft hyphen is text"
    assert LONG in "".join(shown.split()), "the screen of the task shows the whole name"
    tmux.keys("Escape")
    tmux.until(lambda shown: "1 of 19" in shown)
    tmux.keys("Escape")
    tmux.until(lambda shown: "19 of 19" in shown)
    tmux.keys("G")
    shown = tmux.until(lambda shown: re.search(r"▌ ● ", shown))
    tmux.resize(80, 40)
    shown = tmux.until(lambda shown: PERSIAN in shown)
    assert FAMILY in shown
    assert "\u202e" not in shown


def test_empty_folder_and_bad_row_say_what_to_do(fresh: Path, tmp_path: Path, tmux: Tmux) -> None:
    (tmp_path / "nothing").mkdir()
    tmux.type(f"{sys.executable} -m curator tui -p {tmp_path / 'nothing'}")
    shown = tmux.press("Enter", has("to create a project."))
    assert "curatorinit" in re.sub(r"\s", "", shown)
    tmux.press("C-l", lambda shown: "create" not in shown)

    tasks = fresh / "tasks" / "hypernym.jsonl"
    rows = tasks.read_text().splitlines(keepends=True)
    tasks.write_text("".join([*rows[:2], '{"prompt": 5\n', *rows[3:]]))
    _open(tmux, fresh, "files found")
    shown = tmux.until(has("ctrl+l reads the project again."))
    assert shown.count("╭") == 1
    words = re.sub(r"[\s│]", "", shown)
    assert "hypernym.jsonl:3:notvalidJSON" in words
    assert 'Fixorremovetheline.Pass--skip-bad-rows,orsetbad_rows="skip"' in words
    assert "Press R" not in shown, "the run would fail"
    tasks.write_text("".join(rows))
    tmux.press("C-l", lambda shown: re.search(r"Press R, then enter: about .*(s|min|h) on this machine\.", shown))
    tmux.quit()


def test_dialogs_at_80_columns_use_the_width_and_cut_no_sentence(
    drawn_project: Callable[..., Path], tmux: Tmux
) -> None:
    project = drawn_project()
    tmux.open(project, "2")
    tmux.until(has("vs all same"))
    dialogs = {
        "f": ("weigh tasks within max tokens, as a job", "pins are kept: ◆ 0 pinned in, ◇ 0 pinned out"),
        "b": ("estimated loss against tokens, tasks added best first", "pins are kept", "enter take up to this line"),
        "w": ("save selection", "a new selection", "enter save"),
        "C": ("half of the 90 % interval of `helps by`", "space choose c clear enter keep esc cancel"),
        "o": ("r rename x delete u undo n note M measure e export esc cancel",),
        "n": ("task task0004", "enter keep"),
        "R": ("fine-tune on promising subsets, select the best", "Stop the job with x on Jobs."),
        "V": ("From 9 on, their intervals result from measured errors.", "R measure more"),
        "C-o": ("starts from what is saved", "A session belongs to one window at a time."),
        "F2": ("[x] motion a (always off over SSH)", "enter save m pointer a motion esc cancel"),
    }
    for key, words in dialogs.items():
        shown = tmux.press(key, has("esc cancel", *words))
        boxes = [line for line in shown.splitlines() if line.lstrip().startswith("╭─ ")]
        assert any(len(line.strip()) >= 76 for line in boxes), f"{key} uses the width"
        assert "…" not in shown.partition("╭─ ")[2].partition("╰")[0], f"{key} is whole"
        # Escape leaves a field first, and then the dialog.
        tmux.press("Escape", lambda shown: "esc cancel" not in shown)
    # A word is broken only if it is longer than a line.
    tmux.press("e", has("only saved selections can be exported"))
    tmux.quit()
