"""Results in a notebook: data frames, safe HTML tables, the example notebook in docs/, and progress."""

import ast
import dataclasses
import html.parser
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pandas
import pyarrow as pa
import pytest

import curator
from curator import results
from curator.core.events import Note, StageProgress
from curator.core.progress import PlainProgress
from curator.results.display import Shown

MakeProject = Callable[..., Path]
NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.py"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e & \"quoted\" 'x'"


def _value(kind: Any) -> Any:
    """Return a value of a type, with hostile text in every text."""
    if dataclasses.is_dataclass(kind):
        return _made(kind)
    if kind in (str, Path):
        return kind(HOSTILE)
    if kind in (int, float, bool):
        return kind(1)
    if getattr(kind, "__origin__", None) is tuple:
        inner = [inner for inner in get_args(kind) if inner is not ...]
        return tuple(_value(one) for one in inner)
    if getattr(kind, "__origin__", None) is dict:
        return {HOSTILE: _value(get_args(kind)[1])}
    return _value(get_args(kind)[0]) if get_args(kind) else HOSTILE


def _made(kind: Any) -> Any:
    if kind is results.QueryResult:
        return kind(table=pa.table({HOSTILE: [HOSTILE, None]}), total=2)
    hints = get_type_hints(kind)
    return kind(**{field.name: _value(hints[field.name]) for field in dataclasses.fields(kind)})


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


KINDS = [
    kind for kind in vars(results).values() if isinstance(kind, type) and issubclass(kind, Shown) and kind is not Shown
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_result_with_hostile_text_is_frozen_and_shows_safe_html(kind: Any) -> None:
    made = _made(kind)
    name = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, None)
    frame = made.to_pandas()
    assert list(frame.columns) == made.columns()
    assert len(frame) == len(made.rows()) >= 1
    text = made._repr_html_()
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.seen <= {"table", "thead", "tbody", "tr", "th", "td", "p", "b"}
    assert reader.attributes <= {"style"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert kind.__name__ in curator.__all__
    assert getattr(curator, kind.__name__) is kind


def test_project_methods_return_results_that_a_notebook_shows() -> None:
    # These methods return internal classes.
    internal = ("corpus", "estimates", "selections", "manifest")
    returned = {
        kind
        for name, method in vars(curator.Project).items()
        if callable(method) and not name.startswith("_") and name not in internal
        if isinstance(kind := inspect.signature(method).return_annotation, type)
    }
    assert {kind for kind in returned if kind.__module__.startswith("curator.results.")} <= set(KINDS)


def test_to_pandas_of_empty_report_has_all_columns() -> None:
    report = results.EstimatesReport(target=("t",), calibrated_on=0, estimates=(), ridge=())
    frame = report.to_pandas()
    assert list(frame.columns) == [
        "subset",
        "estimated_loss",
        "estimated_loss_low",
        "estimated_loss_high",
        "measured_loss",
        "as_good_as_best",
    ]
    assert len(frame) == 0
    assert "<tbody></tbody>" in report._repr_html_()


def test_html_of_long_table_shows_20_rows_and_their_number() -> None:
    examples = tuple(
        results.ExampleInfluence(row=n, file="f", line=n, sha256="5", gain=0.25 * n, text="t" * 1000)
        for n in range(500)
    )
    report = results.ExamplesReport(task="a", target=("t",), selection=("b",), calibrated_on=0, examples=examples)
    text = report._repr_html_()
    assert text.count("<tr>") == 21
    assert "the first 20 of 500 rows" in text
    assert "t" * 200 not in text
    assert len(report.to_pandas()) == 500
    assert report.to_pandas()["gain"].dtype == float


def _run_as_notebook(path: Path) -> list[Any]:
    """Run the cells of a file in the percent format, and return the values that a notebook would show."""
    space: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, _, code = cell.partition("\n")
        if "[markdown]" in head:
            assert all(line.startswith("#") for line in code.splitlines() if line)
            continue
        value = _run_cell(code, str(path), space)
        if value is not None:
            shown.append(value)
    return shown


def _run_cell(code: str, name: str, space: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    return eval(compile(ast.Expression(last.value), name, "eval"), space) if isinstance(last, ast.Expr) else None


def test_example_notebook_on_other_project_runs_on_a_copy(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = make_project(train={"epochs": 1})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setenv("PROJECT", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown = _run_as_notebook(NOTEBOOK)
    kinds = {type(value) for value in shown}
    assert kinds >= {results.CheckReport, results.SelectionResult, results.VerifyReport, results.ApplyReport}
    for value in shown:
        assert isinstance(value, int | tuple) or "<table" in value._repr_html_()
    frames = [value for value in shown if isinstance(value, pandas.DataFrame)]
    assert len(frames) == 4
    assert all(len(frame) for frame in frames)
    applied = next(value for value in shown if isinstance(value, results.ApplyReport))
    runs = next(value for value in shown if isinstance(value, results.QueryResult)).to_pandas()
    assert round(applied.measured_loss, 4) in runs["measured_loss"].round(4).tolist()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    progress = capsys.readouterr().err
    assert "train: done in" in progress
    assert "apply: " in progress


def _run_cells(path: Path) -> list[Any]:
    """Run the cells of a notebook file, and return the values that a notebook would show."""
    space: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []
        if cell["cell_type"] == "code":
            shown.append(_run_cell("".join(cell["source"]), f"{path.name}, cell {number}", space))
    return shown


def test_notebook_file_in_memory_selects_and_trains(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = make_project()
    for name, value in {"PROJECT": str(folder), "TARGET": "target", "EPOCHS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown = [value for value in _run_cells(NOTEBOOK.parent / "how-to" / "from-a-notebook.ipynb") if value is not None]
    checked, selection, frame, data, loss = shown
    assert [task.name for task in checked.tasks] == ["alpha", "beta", "gamma", "target"]
    assert sorted(frame["name"]) == [task.name for task in selection.tasks] == ["alpha", "beta", "gamma"]
    assert set(data["train"].unique("task")) == {*selection.selected, "target"}
    assert 0 < loss < 10


def test_plain_progress_of_many_events_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = PlainProgress()
    show(Note(message="\x1b[31mred"))
    for done in range(100):
        show(StageProgress(stage="s", done=done, total=100, unit="steps", rate=1.0, seconds_left=1.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, "events in quick succession share one line"
    assert "\x1b" not in lines[0]
