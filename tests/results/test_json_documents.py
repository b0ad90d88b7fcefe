"""The JSON document of every report class, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator import results
from curator.core.interval import Interval
from curator.results.base import Report

_RUN = results.VerifiedRun(subset=("a", "b"), seed=1, estimate=Interval(0.4, 0.3, 0.5), measured_loss=0.45)
_COMPARED = results.ComparedMethod(
    method="less",
    selected=("a",),
    tokens=7,
    tokens_left=None,
    estimated_loss=0.4,
    measured_losses=(0.5, 0.4),
    measured_loss=0.45,
    as_good_as_best=None,
)


def _verify(comparison: tuple[results.ComparedMethod, ...] | None) -> results.VerifyReport:
    return results.VerifyReport(
        target=("t", "u"),
        calibrated=True,
        runs=(_RUN,),
        subsets=1,
        relative_error=0.1,
        constant_relative_error=0.2,
        seed_noise=None,
        spearman=0.5,
        interval_coverage=1.0,
        seconds_estimating=2.0,
        seconds_fine_tuning=30.0,
        subsets_estimated=100,
        speedup=1500.0,
        speedup_100=1500.0,
        comparison=comparison,
    )


REPORTS: dict[str, Any] = {
    "check": results.CheckReport(
        project="p",
        target=("t",),
        model="m",
        tasks=(
            results.CheckedTask(
                name="a",
                target=False,
                rows=9,
                examples=7,
                validation=1,
                tokens=70,
                longest=12,
                truncated=2,
                left_out={"repeated": 1},
                formats={"Alpaca": 9},
                bad_rows={"not valid JSON": 1},
                problem="no rows",
                notes=("cells are separated by ';'",),
            ),
        ),
        problems=("a problem",),
        overlaps=(results.Overlap(task="a", other="b", share=0.5),),
        duplicates=(results.DuplicateTasks(task="a", other="b", pairs=3, examples=2, other_examples=1),),
        near_duplicates=(("a", 1, "b", 2),),
        notes=("a note",),
        error="an error",
    ),
    "check without target": results.CheckReport(
        project="p", target=(), model="m", tasks=(), problems=(), overlaps=(), near_duplicates=()
    ),
    "check store": results.StoreReport(
        store=Path("store.duckdb"),
        sound=False,
        tables=(results.StoreTable(name="examples", rows=7, lost=((2, 3), (5, None)), words="broken"),),
        problems=("examples: rows 2 to 3 are unreadable",),
        backups=((Path("old.duckdb"), 9),),
    ),
    "train": results.TrainReport(
        key="k",
        points=({"share": 0.4, "step": 4, "folder": "f"},),
        examples=8,
        trainable_parameters=100,
        unseen=("b",),
        cached=False,
    ),
    "gradients": results.GradientsReport(examples=8, points=2, projection_dim=256, computed=16, cached=False),
    "status": results.StatusReport(
        project="p",
        stages=(results.StageStatus(stage="train", state="stale", detail="made", reasons=("seed: 0 → 1",)),),
        runs=({"id": "r", "ended": None},),
        selections=({"name": "s", "loss": 0.5},),
    ),
    "costs": results.CostReport(
        stages=(
            results.StageCost(
                stage="train", steps=4, tokens=80, seconds=1.5, peak_bytes=2000, cached=False, exact=True
            ),
        ),
        folder=Path("out"),
        machine="m",
    ),
    "estimates": results.EstimatesReport(
        target=("t",),
        calibrated_on=12,
        estimates=(
            results.EstimateResult(
                subset=("b", "a"), estimate=Interval(0.4, 0.3, 0.5), measured_loss=None, as_good_as_best=True
            ),
        ),
        ridge=(0.1, 0.2),
    ),
    "notes": results.NotesReport(
        notes=(results.NoteEntry(kind="task", name="a", sha256="", text="read this", made="2026-11-01T12:00:00Z"),),
    ),
    "selections": results.SavedSelectionsReport(
        selections=(
            results.SavedSelectionEntry(
                name="best",
                target="t",
                method="forward",
                tasks=2,
                estimated_loss=0.5,
                measured_loss=None,
                note="",
                created="2026-11-01T12:00:00Z",
                deleted=False,
            ),
        ),
    ),
    "examples": results.ExamplesReport(
        task="a",
        target=("t", "u"),
        selection=("a", "b"),
        calibrated_on=0,
        examples=(results.ExampleInfluence(row=1, file="a.jsonl", line=0, sha256="5", gain=-0.5, text="x"),),
    ),
    "curve": results.CurveReport(
        target=("t",),
        calibrated_on=0,
        points=(
            results.BudgetPoint(
                subset=("a",), tokens=70, estimate=Interval(0.4, 0.3, 0.5), measured_loss=0.45, on_front=True
            ),
        ),
    ),
    "pareto": results.ParetoReport(
        target=("t", "u"),
        calibrated_on=0,
        points=(
            results.ParetoPoint(
                subset=("a",),
                tokens=70,
                losses={"t": 0.4, "u": 0.6},
                estimated_loss=0.5,
                measured_loss=None,
                on_front=True,
            ),
        ),
    ),
    "select": results.SelectionResult(
        project="p",
        name="n",
        target=("t",),
        method="forward",
        tasks=(
            results.SelectedTask(
                name="a", examples=7, tokens=70, affinity=0.1, affinity_standard_error=None, selected=True, weight=0.5
            ),
            results.SelectedTask(
                name="b", examples=1, tokens=2, affinity=-0.1, affinity_standard_error=0.01, selected=False, weight=1.0
            ),
        ),
        estimate=Interval(0.4, 0.3, 0.5),
        interval_accounts_for_selection=True,
        calibrated=False,
        measured_loss=None,
        reference={"all_tasks": 0.6, "target_only": 0.5},
        indistinguishable=("target_only",),
        steps=({"change": "add", "tasks": ["a"], "loss": 0.4},),
        dropped_examples=({"task": "a", "sha256": "5", "number": 3, "place": "a.jsonl:4"},),
        manifest=Path("curator-manifest.json"),
        cached=True,
    ),
    "verify": _verify(None),
    "verify with comparison": _verify((_COMPARED,)),
    "export": results.ExportReport(
        format="trl",
        folder=Path("out"),
        tasks=(
            results.ExportedTask(
                name="t",
                target=True,
                file="t.jsonl",
                rows=4,
                rows_in_file=8,
                tokens=40,
                tokens_are_exact=True,
                weight=0.5,
                rows_of_data="rows/t.jsonl",
                validation="validation.jsonl",
                validation_rows=2,
                validation_of_data="rows/validation.jsonl",
            ),
            results.ExportedTask(
                name="a", target=False, file="", rows=0, rows_in_file=0, tokens=0, tokens_are_exact=False, weight=0.01
            ),
        ),
        form="messages",
        rows_differing=None,
        configs=("trl.yaml",),
        command="trl sft",
        notes=("a note",),
    ),
    "apply": results.ApplyReport(
        name="n",
        target=("t",),
        method="forward",
        seed=1,
        estimate=Interval(0.4, 0.3, 0.5),
        measured_loss=0.45,
        seconds=3.0,
        base_model="m",
        adapter=Path("adapter"),
        manifest=None,
        tasks=(results.AppliedTask(name="t", target=True, weight=1.0, examples=7),),
        cached=False,
    ),
    "apply several": results.AdaptersReport(
        adapters=(
            results.ApplyReport(
                name="n",
                target=("t", "u"),
                method="forward",
                seed=1,
                estimate=Interval(0.4, 0.3, 0.5),
                measured_loss=0.45,
                seconds=3.0,
                base_model="m",
                adapter=Path("adapter"),
                manifest=None,
                tasks=(),
                cached=True,
            ),
        ),
    ),
    "sql": results.QueryResult(table=pa.table({"task": ["a", None], "loss": [0.5, float("nan")]}), total=3),
}

UNKNOWN_DETAILS: dict[str, Any] = dict.fromkeys(
    (
        "estimated_before",
        "estimated_before_low",
        "estimated_before_high",
        "calibrated_on_before",
        "loss_quarter",
        "loss_half",
        "tokens",
        "seconds",
        "peak_bytes",
    )
) | {"machine": ""}

DOCUMENTS: dict[str, dict[str, Any]] = {
    "check": {
        "schema_version": 1,
        "project": "p",
        "target": "t",
        "model": "m",
        "tasks": [
            {
                "name": "a",
                "target": False,
                "rows": 9,
                "examples": 7,
                "validation": 1,
                "tokens": 70,
                "longest": 12,
                "truncated": 2,
                "left_out": {"repeated": 1},
                "formats": {"Alpaca": 9},
                "bad_rows": {"not valid JSON": 1},
                "problem": "no rows",
                "notes": ["cells are separated by ';'"],
                "test": 0,
            }
        ],
        "problems": ["a problem"],
        "overlaps": [{"task": "a", "other": "b", "share": 0.5}],
        "duplicates": [{"task": "a", "other": "b", "pairs": 3, "examples": 2, "other_examples": 1}],
        "near_duplicates": [["a", 1, "b", 2]],
        "notes": ["a note"],
        "error": "an error",
    },
    "check without target": {
        "schema_version": 1,
        "project": "p",
        "target": [],
        "model": "m",
        "tasks": [],
        "problems": [],
        "overlaps": [],
        "duplicates": [],
        "near_duplicates": [],
        "notes": [],
        "error": "",
    },
    "check store": {
        "schema_version": 1,
        "store": "store.duckdb",
        "sound": False,
        "tables": [{"name": "examples", "rows": 7, "lost": [[2, 3], [5, None]], "words": "broken"}],
        "problems": ["examples: rows 2 to 3 are unreadable"],
        "backups": [{"path": "old.duckdb", "bytes": 9}],
    },
    "train": {
        "schema_version": 1,
        "key": "k",
        "points": [{"share": 0.4, "step": 4, "folder": "f"}],
        "examples": 8,
        "trainable_parameters": 100,
        "unseen": ["b"],
        "cached": False,
    },
    "gradients": {
        "schema_version": 1,
        "examples": 8,
        "points": 2,
        "projection_dim": 256,
        "computed": 16,
        "cached": False,
        "captured": False,
    },
    "status": {
        "schema_version": 1,
        "project": "p",
        "stages": [
            {
                "stage": "train",
                "state": "stale",
                "detail": "made",
                "reasons": ["seed: 0 → 1"],
                "progress": None,
                "seconds_left": None,
            }
        ],
        "runs": [{"id": "r", "ended": None}],
        "selections": [{"name": "s", "loss": 0.5}],
    },
    "selections": {
        "schema_version": 1,
        "selections": [
            {
                "name": "best",
                "target": "t",
                "method": "forward",
                "tasks": 2,
                "estimated_loss": 0.5,
                "measured_loss": None,
                "note": "",
                "created": "2026-11-01T12:00:00Z",
                "deleted": False,
            }
        ],
    },
    "notes": {
        "schema_version": 1,
        "notes": [{"kind": "task", "name": "a", "sha256": "", "text": "read this", "made": "2026-11-01T12:00:00Z"}],
    },
    "costs": {
        "schema_version": 1,
        "stages": [
            {
                "stage": "train",
                "steps": 4,
                "tokens": 80,
                "seconds": 1.5,
                "peak_bytes": 2000,
                "cached": False,
                "exact": True,
                "workers": 1,
            }
        ],
        "seconds": 1.5,
        "peak_bytes": 2000,
        "workers": 1,
        "folder": "out",
        "machine": "m",
    },
    "estimates": {
        "schema_version": 1,
        "target": "t",
        "calibrated": True,
        "estimates": [
            {
                "subset": ["b", "a"],
                "estimated_loss": 0.4,
                "estimated_loss_low": 0.3,
                "estimated_loss_high": 0.5,
                "measured_loss": None,
                "as_good_as_best": True,
            }
        ],
    },
    "examples": {
        "schema_version": 1,
        "task": "a",
        "target": ["t", "u"],
        "selection": ["a", "b"],
        "calibrated_on": 0,
        "examples": [
            {"row": 1, "file": "a.jsonl", "line": 0, "sha256": "5", "gain": -0.5, "text": "x", "dropped": False}
        ],
        "calibrated": False,
    },
    "curve": {
        "schema_version": 1,
        "target": "t",
        "calibrated": False,
        "points": [
            {
                "subset": ["a"],
                "tokens": 70,
                "estimated_loss": 0.4,
                "estimated_loss_low": 0.3,
                "estimated_loss_high": 0.5,
                "measured_loss": 0.45,
                "on_front": True,
            }
        ],
    },
    "pareto": {
        "schema_version": 1,
        "target": ["t", "u"],
        "calibrated": False,
        "points": [
            {
                "subset": ["a"],
                "tokens": 70,
                "losses": {"t": 0.4, "u": 0.6},
                "estimated_loss": 0.5,
                "measured_loss": None,
                "on_front": True,
            }
        ],
    },
    "select": {
        "schema_version": 1,
        "project": "p",
        "name": "n",
        "target": "t",
        "method": "forward",
        "selected": ["a"],
        "excluded": ["b"],
        "estimated_loss": 0.4,
        "estimated_loss_low": 0.3,
        "estimated_loss_high": 0.5,
        "interval_accounts_for_selection": True,
        "calibrated": False,
        "measured_loss": None,
        "reference": {"all_tasks": 0.6, "target_only": 0.5},
        "indistinguishable": ["target_only"],
        "tasks": [
            {
                "name": "a",
                "examples": 7,
                "tokens": 70,
                "affinity": 0.1,
                "affinity_standard_error": None,
                "selected": True,
                "weight": 0.5,
            },
            {
                "name": "b",
                "examples": 1,
                "tokens": 2,
                "affinity": -0.1,
                "affinity_standard_error": 0.01,
                "selected": False,
                "weight": 1.0,
            },
        ],
        "steps": [{"change": "add", "tasks": ["a"], "loss": 0.4}],
        "dropped_examples": [{"task": "a", "sha256": "5", "number": 3, "place": "a.jsonl:4"}],
        "manifest": "curator-manifest.json",
        "cached": True,
        "race": None,
    },
    "verify": {
        "schema_version": 1,
        "target": ["t", "u"],
        "calibrated": True,
        "runs": [
            {
                "subset": ["a", "b"],
                "seed": 1,
                "estimated_loss": 0.4,
                "estimated_loss_low": 0.3,
                "estimated_loss_high": 0.5,
                "measured_loss": 0.45,
                "metric": None,
                "metric_error": None,
                "metric_estimate": None,
                "test_loss": None,
                "test_metric": None,
                **UNKNOWN_DETAILS,
            }
        ],
        "subsets": 1,
        "relative_error": 0.1,
        "constant_relative_error": 0.2,
        "seed_noise": None,
        "spearman": 0.5,
        "interval_coverage": 1.0,
        "seconds_estimating": 2.0,
        "seconds_fine_tuning": 30.0,
        "subsets_estimated": 100,
        "speedup": 1500.0,
        "speedup_100": 1500.0,
        "predictions": None,
        "forgetting": None,
        "comparison": None,
        "dropping": None,
        "selections": None,
        "differences": None,
        "metric": None,
    },
    "verify with comparison": {
        "schema_version": 1,
        "target": ["t", "u"],
        "calibrated": True,
        "runs": [
            {
                "subset": ["a", "b"],
                "seed": 1,
                "estimated_loss": 0.4,
                "estimated_loss_low": 0.3,
                "estimated_loss_high": 0.5,
                "measured_loss": 0.45,
                "metric": None,
                "metric_error": None,
                "metric_estimate": None,
                "test_loss": None,
                "test_metric": None,
                **UNKNOWN_DETAILS,
            }
        ],
        "subsets": 1,
        "relative_error": 0.1,
        "constant_relative_error": 0.2,
        "seed_noise": None,
        "spearman": 0.5,
        "interval_coverage": 1.0,
        "seconds_estimating": 2.0,
        "seconds_fine_tuning": 30.0,
        "subsets_estimated": 100,
        "speedup": 1500.0,
        "speedup_100": 1500.0,
        "predictions": None,
        "forgetting": None,
        "comparison": [
            {
                "method": "less",
                "selected": ["a"],
                "tokens": 7,
                "tokens_left": None,
                "estimated_loss": 0.4,
                "measured_losses": [0.5, 0.4],
                "measured_loss": 0.45,
                "as_good_as_best": None,
                "metric": None,
                "test_loss": None,
                "test_metric": None,
            }
        ],
        "dropping": None,
        "selections": None,
        "differences": None,
        "metric": None,
    },
    "export": {
        "schema_version": 1,
        "format": "trl",
        "folder": "out",
        "tasks": [
            {
                "name": "t",
                "target": True,
                "file": "t.jsonl",
                "rows": 4,
                "rows_in_file": 8,
                "tokens": 40,
                "tokens_are_exact": True,
                "weight": 0.5,
                "rows_of_data": "rows/t.jsonl",
                "validation": "validation.jsonl",
                "validation_rows": 2,
                "validation_of_data": "rows/validation.jsonl",
            },
            {
                "name": "a",
                "target": False,
                "file": "",
                "rows": 0,
                "rows_in_file": 0,
                "tokens": 0,
                "tokens_are_exact": False,
                "weight": 0.01,
                "rows_of_data": "",
                "validation": "",
                "validation_rows": 0,
                "validation_of_data": "",
            },
        ],
        "form": "messages",
        "rows_differing": None,
        "configs": ["trl.yaml"],
        "command": "trl sft",
        "notes": ["a note"],
        "files": [{"name": "t.jsonl", "rows": 8}],
        "validation": "validation.jsonl",
    },
    "apply": {
        "schema_version": 1,
        "name": "n",
        "target": "t",
        "method": "forward",
        "seed": 1,
        "estimated_loss": 0.4,
        "estimated_loss_low": 0.3,
        "estimated_loss_high": 0.5,
        "measured_loss": 0.45,
        "seconds": 3.0,
        "base_model": "m",
        "adapter": "adapter",
        "manifest": None,
        "tasks": [{"name": "t", "target": True, "weight": 1.0, "examples": 7}],
        "cached": False,
        "metric": None,
    },
    "apply several": {
        "schema_version": 1,
        "adapters": [
            {
                "name": "n",
                "target": ["t", "u"],
                "method": "forward",
                "seed": 1,
                "estimated_loss": 0.4,
                "estimated_loss_low": 0.3,
                "estimated_loss_high": 0.5,
                "measured_loss": 0.45,
                "seconds": 3.0,
                "base_model": "m",
                "adapter": "adapter",
                "manifest": None,
                "tasks": [],
                "cached": True,
                "metric": None,
            }
        ],
    },
    "sql": {
        "schema_version": 1,
        "columns": [{"name": "task", "type": "string"}, {"name": "loss", "type": "double"}],
        "rows": [{"task": "a", "loss": 0.5}, {"task": None, "loss": None}],
        "total": 3,
    },
}


@pytest.mark.parametrize("name", REPORTS)
def test_to_json_of_each_report_gives_expected_document(name: str) -> None:
    assert json.dumps(REPORTS[name].to_json()) == json.dumps(DOCUMENTS[name])


def test_to_json_cases_cover_every_report_class() -> None:
    kinds = {kind for kind in vars(results).values() if isinstance(kind, type) and issubclass(kind, Report)}
    assert {type(report) for report in REPORTS.values()} == kinds | {results.QueryResult}


def test_report_estimate_shows_as_three_columns_and_attributes() -> None:
    names = ["estimated_loss", "estimated_loss_low", "estimated_loss_high"]
    for report in (REPORTS["estimates"], REPORTS["curve"], REPORTS["verify"]):
        frame = report.to_pandas()
        assert [name for name in frame.columns if name.startswith("estimated_loss")] == names
        assert frame[names].to_numpy().tolist() == [[0.4, 0.3, 0.5]]
        (row,) = getattr(report, report._table)
        assert [getattr(row, name) for name in names] == [0.4, 0.3, 0.5]
    selection = REPORTS["select"]
    assert [getattr(selection, name) for name in names] == [0.4, 0.3, 0.5]
