"""Calibration on every screen, the Verify dialog, and the start of a verification."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HOSTILE, MakeProject
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import App, drive, grid, is_solved, text, until

from curator.core.interval import Interval
from curator.estimate.calibration import LEAST_RUNS
from curator.results.verification import VerifiedRun, VerifyReport
from curator.training.fine_tune import recipe_key, subset_content
from curator.verify.report import report
from curator.workspace.job_log import read_jobs
from tui.dialogs.run import RunDialog
from tui.dialogs.verify import Measured, VerifyDialog, diagonal, is_inside, subset_words, summary_lines
from tui.state.messages import EstimateReady
from tui.state.session import State
from tui.state.snapshot import Snapshot, load_snapshot, trust_word
from tui.widgets.lines import Lines
from tui.widgets.rows import Rows
from tui.widgets.selection_estimate import headline
from tui.widgets.trust import measured_part

DrawnProject = Callable[..., Path]
SIZES = [(60, 16), (80, 24), (140, 40)]


@pytest.fixture(autouse=True)
def _no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def measure(root: Path, count: int, *, seeds: int = 2) -> Snapshot:
    """Store measurements of subsets, all tasks and the target alone included, and return the new snapshot."""
    snapshot = load_snapshot(root)
    assert snapshot.corpus is not None
    assert snapshot.answers is not None
    rng = np.random.default_rng(0)
    masks = rng.random((count, len(snapshot.names))) < 0.5
    masks[0], masks[1] = True, False
    losses = snapshot.answers.estimator.validation_losses(masks) @ snapshot.answers.estimator.validation_weights
    recipe = recipe_key(snapshot.project.config, snapshot.corpus)
    for mask, loss in zip(masks, losses, strict=True):
        content = subset_content(snapshot.corpus, [n for n, inside in zip(snapshot.names, mask, strict=True) if inside])
        for seed in range(seeds):
            measured = float(1.1 * loss + 0.01 * rng.standard_normal())
            snapshot.project.store.put_measurement(recipe, "target", content, seed=seed, loss=measured, seconds=2.0)
    return load_snapshot(root)


async def _open(app: App, pilot: Pilot[None], key: str, words: str) -> str:
    await pilot.press(key)
    await until(pilot, lambda: is_solved(app) and words in text(app))
    return text(app)


# -- at every size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_screens_uncalibrated_estimate_is_marked(size: tuple[int, int], drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.snapshot is not None
        assert app.snapshot.trust == "uncalibrated"
        await _open(app, pilot, "1", "? uncalibrated")
        for key in ("2", "5"):
            await _open(app, pilot, key, "uncalibrated")
        await pilot.press("2", "space")
        await until(pilot, lambda: is_solved(app) and "uncalibrated" in grid(app)[1])
        assert "◎" not in text(app)
        for width in range(60, 140):
            head = "".join(part if isinstance(part, str) else part[0] for part in headline(app, width))
            assert " uncalibrated " in head, f"the word has no blanks around it at {width}: {head}"
        await _open(app, pilot, "b", "× now")
        assert "uncalibrated" in app.screen.query_one("#order-note", Lines).text
        await pilot.press("escape")
        await _open(app, pilot, "3", "synergy")
        assert "uncalibrated" in text(app)
        await pilot.press("2", "w", "enter")
        await until(pilot, lambda: app.session is not None and app.session.base == "mine")
        await _open(app, pilot, "o", "loss")
        assert "uncalibrated" in text(app)
        await pilot.press("escape")
        await pilot.press("f", "enter")
        await until(pilot, lambda: not isinstance(app.screen, RunDialog) and is_solved(app))

    drive(drawn_project(), story, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_screens_calibrated_estimate_and_measured_loss_are_shown(
    size: tuple[int, int], drawn_project: DrawnProject
) -> None:
    root = drawn_project()
    before = measure(root, 14)
    every = before.measured_loss(np.ones(12, dtype=bool))
    none = before.measured_loss(np.zeros(12, dtype=bool))
    assert every is not None
    assert none is not None
    assert before.answers is not None
    assert before.calibrated_on == before.answers.calibrated_on == 14

    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.estimate is not None
        await _open(app, pilot, "1", "◎ measured, 2 runs")
        assert f"{every:.4f}" in text(app)
        assert "? uncalibrated" not in text(app)
        assert "14 subsets measured" in text(app) or size[1] < 34
        await _open(app, pilot, "2", "calibrated·14")
        head = "\n".join(grid(app)[1:3])
        assert f"◎ measured {every:.4f}" in head
        assert f"loss {app.estimate.target_loss.loss:.4f}" in head
        # A subset without measurement has no measured loss, and the difference keeps its mark.
        await pilot.press("space")
        await until(pilot, lambda: is_solved(app) and "◎" not in text(app))
        assert "calibrated·14" in grid(app)[1]
        difference = app.estimate.versus_all
        assert difference.is_noise == bool(re.search(r"vs all \S+ ?~", grid(app)[1]))
        await pilot.press("u", "5")
        app.place.compared = []
        shown = await _open(app, pilot, "d", "measured")
        assert "calibrated·14" in shown
        assert f"◎ {every:.4f}" in shown
        app.screen._picked(["\0all", "\0none"])  # type: ignore[attr-defined]
        await until(pilot, lambda: f"◎ {none:.4f}" in text(app))
        await pilot.press("2")
        await _open(app, pilot, "b", "× now")
        note = app.screen.query_one("#order-note", Lines).text
        assert f"◎ {every:.4f}" in note
        assert "calibrated·14" in note

    drive(root, story, size)


def test_order_dialog_selection_is_placed_by_tokens(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2", "j", "space")
        await until(pilot, lambda: is_solved(app))
        await _open(app, pilot, "b", "× now")
        assert app.snapshot is not None
        assert app.session is not None
        assert app.estimate is not None
        tokens = app.snapshot.tokens[app.session.mask].sum()
        assert f"× now   {app.estimate.target_loss.loss:.4f} with 11 tasks, {tokens:.0f} tokens" in text(app)
        plot = app.screen.query_one("#order-plot")
        points = [list(series.points) for series in plot._series]  # type: ignore[attr-defined]
        assert points[1] == [(float(tokens), app.estimate.target_loss.loss)]
        assert points[0][-1][0] == app.snapshot.tokens.sum()
        assert any("×" in row for row in grid(app)[4:12])
        # Pinned tasks count, as they do for the selection in hand.
        await pilot.press("escape", "p")
        await until(pilot, lambda: is_solved(app))
        await _open(app, pilot, "b", "pins are kept")
        steps = app.screen.query_one(Rows)
        count = len(app.session.pinned(State.PINNED_IN)) + steps.best  # type: ignore[attr-defined]
        assert f"with {count} task{'' if count == 1 else 's'}, " in text(app).partition("× now")[0]

    drive(drawn_project(), story)


def axis_words(app: App) -> list[str]:
    """Return the values and the name of the plot's lower axis."""
    return [row for row in grid(app) if "estimated" in row][-1].replace("│", " ").split()


# -- estimated against measured -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_verify_dialog_shows_figures_of_report(size: tuple[int, int], drawn_project: DrawnProject) -> None:
    root = drawn_project()
    answers = measure(root, 14).answers
    assert answers is not None
    expected = report(answers)

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("V")
        assert isinstance(app.screen, VerifyDialog)
        rows = app.screen.query_one(Measured)
        await until(pilot, lambda: rows.count == 14)
        shown = text(app)
        for words in (
            f"error {expected.relative_error:.2%}",
            f"constant guess {expected.constant_relative_error:.2%}",
            f"noise between seeds {expected.seed_noise:.2%}",
            f"Spearman {expected.spearman:.2f}",
            f"inside the 90 % interval {expected.interval_coverage:.0%}",
            "14 subsets, 28 runs",
        ):
            assert words in shown
        losses = [point.measured_loss for point, _, _ in rows.subsets]
        assert losses == sorted(losses)
        for row, (point, runs, words) in enumerate(rows.subsets):
            line = "".join(part if isinstance(part, str) else part[0] for part in rows.line(row, 120))
            for value in (
                point.estimated_loss,
                point.measured_loss,
                point.estimated_loss_low,
                point.estimated_loss_high,
            ):
                assert f"{value:.4f}" in line
            assert f"{100 * (point.estimated_loss / point.measured_loss - 1):+.1f}%".replace("-", "−") in line
            assert runs == 2
            assert words.split(",")[0] in line
            assert line[0] == ("○" if is_inside(point) else "×")
        assert "all tasks" in [words for _, _, words in rows.subsets]
        assert "the target alone" in [words for _, _, words in rows.subsets]
        # The axes do not change with the cursor.
        # A row of the screen also holds the borders of panes behind the dialog, so only the words are compared.
        axis = axis_words(app)
        assert axis[-1] == "estimated"
        await pilot.press("G")
        assert rows.cursor == 13
        assert axis_words(app) == axis
        plot = app.screen.query_one("#verify-plot")
        last = rows.subsets[13][0]
        assert plot._marker == (last.estimated_loss, last.measured_loss)  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert not isinstance(app.screen, VerifyDialog)
        # The second visit shows the report at once.
        await pilot.press("2", "V")
        await pilot.pause()
        assert app.screen.query_one(Measured).count == 14

    drive(root, story, size)


def test_verify_dialog_too_few_subsets_are_still_compared(drawn_project: DrawnProject) -> None:
    root = drawn_project()
    assert measure(root, 3, seeds=1).calibrated_on == 0

    async def story(app: App, pilot: Pilot[None]) -> None:
        assert f"3 of {LEAST_RUNS} subsets" in text(app)
        await _open(app, pilot, "2", "uncalibrated")
        assert "◎ measured" in text(app)
        await _open(app, pilot, "V", f"uncalibrated: 3 of {LEAST_RUNS}")
        assert "noise between seeds —" in text(app)
        assert app.screen.query_one(Measured).count == 3

    drive(root, story, (140, 40))


def test_verify_dialog_failed_report_shows_error(drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch) -> None:
    root = drawn_project()
    measure(root, 6)

    def fails(_: Any) -> None:
        raise OSError("disk not found")

    monkeypatch.setattr("curator.verify.report.report", fails)

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _open(app, pilot, "V", "✗ disk not found")
        await pilot.press("j", "escape")
        assert "cannot compare estimates" in text(app)

    drive(root, story)


def test_verify_dialog_hostile_names_stay_text(drawn_project: DrawnProject) -> None:
    root = drawn_project("hostile")
    measure(root, 12)

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("V")
        rows = app.screen.query_one(Measured)
        await until(pilot, lambda: rows.count > 5)
        for _ in range(rows.count):
            await pilot.press("j")
            assert not set(text(app)) & set("\x1b\x07\x9b\x00\u202e\u2066\t\r")
            assert len(grid(app)) == 24

    assert HOSTILE
    drive(root, story)


# -- the start ------------------------------------------------------------------------------------------------------


def test_run_dialog_verify_starts_with_subsets(drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str] | None] = []
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "launch", launched.append)
        shown = await _open(app, pilot, "V", "no measured losses yet")
        assert "uncalibrated" in shown
        assert "curator verify" in shown
        await _open(app, pilot, "R", "run a stage")
        assert "24 subsets: 28 fine-tuning runs" in text(app)
        assert "curator verify --runs 24 -p" in text(app)
        field = app.screen.query_one("#subsets", Input)
        for value in ("", "0", "-3"):
            field.value = value
            await pilot.pause()
            assert "at least 1" in text(app)
            await pilot.press("enter")
            assert isinstance(app.screen, RunDialog)
        field.value = "7"
        await pilot.pause()
        assert "8 fine-tuning runs" in text(app)
        # Only verification shows the number of subsets.
        await pilot.press("k")
        assert not field.parent.display  # type: ignore[union-attr]
        assert "curator select -p" in text(app)
        await pilot.press("j", "tab", "enter")
        await until(pilot, lambda: bool(launched))
        assert launched.pop() == ["verify", "--runs", "7"]
        # The stage starts like any other stage, and a canceled dialog starts nothing.
        await _open(app, pilot, "R", "run a stage")
        await pilot.press("escape")
        await pilot.press("V", "escape")
        assert launched == [None]

    drive(root, story)


def test_run_dialog_configured_runs_and_seeds_are_shown(drawn_project: DrawnProject) -> None:
    root = drawn_project()
    config = root / "curator.toml"
    config.write_text(config.read_text("utf-8") + "\n[verify]\nruns = 6\nseeds = 2\n", "utf-8")

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _open(app, pilot, "V", "no measured losses yet")
        await _open(app, pilot, "R", "run a stage")
        assert "6 subsets: 12 fine-tuning runs" in text(app)
        assert "curator verify --runs 6 -p" in text(app)

    drive(root, story)


def test_run_dialog_known_runs_give_expected_duration(drawn_project: DrawnProject) -> None:
    root = drawn_project()
    measure(root, 6)

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("V")
        await until(pilot, lambda: app.screen.query_one(Measured).count > 0)
        await _open(app, pilot, "R", "28 fine-tuning runs, about 56 s")

    drive(root, story)


def test_app_new_measurements_calibrate_estimates(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _open(app, pilot, "2", "uncalibrated")
        old, key = app.estimate, app._estimator_key
        assert old is not None
        measure(root, 14)
        app.read_snapshot()
        await until(pilot, lambda: app._estimator_key != key and is_solved(app))
        assert "calibrated·14" in grid(app)[1]
        new = app.estimate
        assert new is not None
        assert new.target_loss.loss == pytest.approx(1.1 * old.target_loss.loss, rel=0.05)
        # A late estimate of the old estimator is ignored.
        app.post_message(EstimateReady(old, key))
        await pilot.pause()
        assert app.estimate is not None
        assert app.estimate.target_loss.loss == new.target_loss.loss

    drive(root, story)


def test_app_verification_job_is_followed_to_its_end(make_project: MakeProject) -> None:
    from curator.project.project import Project

    root = make_project(train={"epochs": 1})
    Project.open(root).select()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _open(app, pilot, "2", "uncalibrated")
        await pilot.press("V", "R")
        await until(pilot, lambda: isinstance(app.screen, RunDialog))
        app.screen.query_one("#subsets", Input).value = "5"
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "runs" and app.jobs and app.jobs[0].stage == "verify", 90)
        assert app.jobs[0].unit == "tokens"
        assert "verify --runs 5" in text(app)
        await until(pilot, lambda: app.jobs[0].job.state != "running", 90)
        assert app.jobs[0].job.state == "done", text(app)
        assert any("run 5 of 5" in words for _, words in app.jobs[0].log)
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.calibrated_on == 5 and is_solved(app))
        await _open(app, pilot, "2", "calibrated·5")
        assert "◎ measured" in text(app)
        assert not np.isnan(app.snapshot.affinity).any()  # type: ignore[union-attr]

    try:
        drive(root, story)
    finally:
        for run in read_jobs(root / ".curator" / "runs"):
            if run.state == "running":
                os.kill(run.pid, signal.SIGKILL)


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def found() -> VerifyReport:
    return VerifyReport(
        target=("t",),
        calibrated=True,
        runs=(
            VerifiedRun(
                subset=("a",),
                seed=0,
                estimate=Interval(1.0, 0.9, 1.1),
                measured_loss=1.2,
            ),
            VerifiedRun(
                subset=("a",),
                seed=1,
                estimate=Interval(1.0, 0.9, 1.1),
                measured_loss=0.8,
            ),
            VerifiedRun(
                subset=(),
                seed=0,
                estimate=Interval(2.0, 1.9, 2.1),
                measured_loss=2.2,
            ),
        ),
        subsets=2,
        relative_error=0.045,
        constant_relative_error=0.5,
        seed_noise=None,
        spearman=-0.5,
        interval_coverage=None,
        seconds_estimating=None,
        seconds_fine_tuning=3.0,
        subsets_estimated=0,
        speedup=None,
        speedup_100=None,
    )


def test_verify_words_known_report_gives_expected_texts(found: VerifyReport) -> None:
    assert (trust_word(0), trust_word(7)) == ("uncalibrated", "calibrated·7")
    assert (measured_part(None), measured_part(0.5), measured_part(0.5, word=True)) == (
        "",
        ("◎ 0.5000", "accent"),
        ("◎ measured 0.5000", "accent"),
    )
    first, second = found.points()
    assert (is_inside(first), is_inside(second)) == (True, False)
    assert diagonal([first, second]) == [(1.0, 1.0), (2.2, 2.2)]
    names = {frozenset("ab"): "best"}
    words = [subset_words(subset, 3, names) for subset in ((), ("a", "b", "c"), ("a", "b"), ("a",))]
    assert words == ["the target alone", "all tasks", "best: a, b", "a"]
    shown = Lines(summary_lines(found)).text
    for figure in (
        "error 4.50%",
        "constant guess 50.00%",
        "Spearman −0.50",
        "seeds —",
        "interval —",
        "2 subsets, 3 runs",
    ):
        assert figure in shown
