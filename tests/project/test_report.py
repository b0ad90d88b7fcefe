"""The report of a selection: complete, self-contained, and safe with hostile text."""

import asyncio
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import HOSTILE, pair_rows
from hostile import run_cli
from tui_pilot import opened, text, until

import curator
from curator.core.errors import DataError
from curator.core.text import clean
from curator.project.report import _against, _effect
from curator.results.document import Document, Section, Sentence, Table, to_html, to_markdown
from curator.results.svg import Bar, bars_svg
from curator.select.manifest import read_manifest

MakeProject = Callable[..., Path]
_ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "rect", "path", "text", "circle", "polyline"),
}
_ATTACK = "<script>alert(1)</script>\" onload='x' <img src=http://a.example/x> [a](javascript:x) `|` \x1b[31m \u202e"


class _Seen(HTMLParser):
    """Collect elements, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(page: str) -> _Seen:
    seen = _Seen()
    seen.feed(page)
    assert seen.tags <= _ALLOWED, seen.tags - _ALLOWED
    assert not {name for name in seen.names if name.startswith("on") or name in ("src", "href", "srcdoc", "action")}
    for address in ("http://", "https://", "url(", "@import", "javascript:"):
        assert address not in page.replace(_ATTACK, "") or address in seen.text
    assert "default-src 'none'" in page
    return seen


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """Make a project with a dropped example and an applied selection."""
    tasks = {"target": pair_rows("target", 12)} | {t: pair_rows(t, 8) for t in ("alpha", "beta", "gamma")}
    tasks["alpha"][3]["completion"] = _ATTACK
    folder = make_project(tasks=tasks, estimate={"method": "trajectory"})
    project = curator.Project.open(folder)
    index = {task.name: task for task in project.corpus(("target",)).tasks}["alpha"].version.index.hashes
    project.select(include=["alpha"], name="<best>", drop_examples=[("alpha", index[3])])
    project.note(_ATTACK, selection="<best>")
    return folder


def test_report_holds_selection_reasons_runs_settings_and_hashes(folder: Path) -> None:
    project = curator.Project.open(folder)
    project.verify(runs=2, seeds=1)
    path = project.report()
    assert path == folder / "curator-report.html"
    page = path.read_text(encoding="utf-8")
    seen, manifest = _read(page), read_manifest(folder / "curator-manifest.json")
    assert seen.tags >= {"svg", "rect", "circle", "table"}
    for task in manifest.tasks:
        assert task.name in seen.text
        assert task.files[0].sha256 in seen.text
    for words in (
        f"{manifest.estimated_loss:.4f}",
        manifest.model.sha256,
        "pinned in",
        "alpha.jsonl:4",
        manifest.dropped_examples[0].sha256,
        "train.learning_rate",
        "subsets are measured in",
        "<script>alert(1)</script>",
    ):
        assert words in seen.text, words
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    # Equal inputs give equal bytes.
    assert project.report(output=folder / "again.html").read_bytes() == path.read_bytes()


def test_report_selection_without_a_task_is_the_target_alone(folder: Path) -> None:
    project = curator.Project.open(folder)
    project.select(k=0, name="empty")
    manifest = read_manifest(folder / "curator-manifest.json")
    assert manifest.estimate["interval"] == "90 % over the validation examples, widened for the selected subset"
    seen = _read(project.report().read_text(encoding="utf-8"))
    assert "The estimate is the same as that of the target alone." in seen.text
    assert "The interval accounts for the choice of the subset" in seen.text
    assert "stale" not in seen.text
    for task in manifest.tasks:
        assert task.affinity_standard_error is not None
        clear = abs(task.affinity) > 1.645 * task.affinity_standard_error
        words = "no clear effect" if not clear else "helps" if task.affinity > 0 else "harms"
        assert _effect(task) == f"{words} on average"


def test_report_effect_of_a_task_without_a_comparison_is_unsaid(folder: Path) -> None:
    (task, *_) = read_manifest(folder / "curator-manifest.json").tasks
    assert _effect(task.model_copy(update={"affinity": 0.0, "affinity_standard_error": None})) == ""
    assert _effect(task.model_copy(update={"affinity": 0.02, "affinity_standard_error": 0.02})).startswith("no clear")
    assert _effect(task.model_copy(update={"affinity": -0.1, "affinity_standard_error": 0.02})) == "harms on average"


def test_report_differences_that_round_to_zero_are_not_the_same() -> None:
    assert _against("all tasks", 0.0, is_noise=True) == "The estimate is the same as that of all tasks."
    assert _against("all tasks", -0.00003, is_noise=False) == "The estimate differs by <0.0001 from that of all tasks."
    words = "The estimate is lower by 0.0100 than that of all tasks: more than the noise."
    assert _against("all tasks", -0.01, is_noise=False) == words


def test_report_after_a_change_of_settings_or_files_says_first_that_it_is_stale(folder: Path) -> None:
    def answer() -> str:
        page = curator.Project.open(folder).report(output=folder / "report.md").read_text(encoding="utf-8")
        return page.partition("## Tasks")[0]

    assert "stale" not in answer()
    config = (folder / "curator.toml").read_text(encoding="utf-8")
    (folder / "curator.toml").write_text(config.replace("epochs = 2", "epochs = 3"), encoding="utf-8")
    assert "These estimates are stale" in answer()
    (folder / "curator.toml").write_text(config, encoding="utf-8")
    assert "stale" not in answer()
    with (folder / "tasks" / "beta.jsonl").open("a") as rows:
        rows.write('{"prompt": "one more", "completion": " row"}\n')
    assert "These estimates are stale" in answer()


def test_report_as_markdown_escapes_foreign_text(folder: Path) -> None:
    curator.Project.open(folder).report(output=folder / "report.md")
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# project\\: selection \\<best\\> for target")
    assert "<script" not in page.replace("\\<script", "")
    assert "](javascript" not in page.replace("\\]\\(javascript", "")
    assert "## Files and hashes" in page
    assert "\x1b" not in page


def test_report_command_prints_the_file(folder: Path, tmp_path: Path) -> None:
    outcome = run_cli("report", "-p", folder, "-o", tmp_path / "r.html", "--json").check(0)
    assert json.loads(outcome.out) == {"schema_version": 1, "report": str(tmp_path / "r.html")}
    assert run_cli("report", "missing", "-p", folder).check(3).out == ""


def test_report_without_selection_says_what_to_do(make_project: MakeProject) -> None:
    with pytest.raises(DataError, match="no selection to report on"):
        curator.Project.open(make_project()).report()


def test_report_key_writes_the_file_of_the_saved_selection(folder: Path) -> None:
    async def main() -> None:
        async with opened(folder) as (app, pilot):
            await pilot.press("E")
            await until(pilot, lambda: "report of " in text(app))

    asyncio.run(main())
    _read((folder / "curator-report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", [*HOSTILE, _ATTACK])
def test_document_hostile_text_stays_text(words: str) -> None:
    document = Document(
        words, words, [Section(words, [Sentence(words), Table((words, "b"), [(words, words)], (words,))])]
    )
    page = to_html(document)
    assert _read(page).tags <= _ALLOWED - {"svg"}
    assert not {c for c in page if clean(c, lines=True) != c}
    assert not {c for c in to_markdown(document) if clean(c, lines=True) != c}
    plot = bars_svg([Bar(name=words, value=1.0, low=0.5, high=1.5)])
    assert "<script" not in plot
    assert "<img" not in plot
