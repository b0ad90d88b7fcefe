"""The interface before the first estimate, on broken projects, and on names of any script: in tmux at 80 × 24."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tui_tmux import Tmux, needs_tmux, tmux

from curator.project.project import Project

__all__ = ["tmux"]
pytestmark = needs_tmux

PERSIAN, FAMILY = "می\u200cخواهم", "👨\u200d👩\u200d👧"
LONG = "natural_instructions_" + "x" * 70 + "_paraphrase"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return the sample project, with nothing computed."""
    source = Path(__file__).parents[2] / "sample_data"
    ignored = shutil.ignore_patterns(".curator", "curator-manifest.json", "exports")
    return Path(shutil.copytree(source, tmp_path / "sample", ignore=ignored))


def _open(tmux: Tmux, project: Path, sign: str) -> str:
    import sys

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
    first = {"prompt": "first line\nsecond\tcell", "completion": f"{PERSIAN} \u202egnp"}
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
