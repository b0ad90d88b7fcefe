"""Report classes that the verbs of `Project` return.

Takes names and numbers of the other rooms.
Holds the values frozen, and shows them as JSON, data frames, plots and notebook tables.
Returns one class for each verb, in one file for each step of the pipeline.
"""

from curator.core.interval import Interval
from curator.results.base import SCHEMA_VERSION
from curator.results.data import CheckedTask, CheckReport, DuplicateTasks, Overlap, StoreReport, StoreTable
from curator.results.estimates import (
    BudgetPoint,
    CurveReport,
    EstimateResult,
    EstimatesReport,
    ExampleInfluence,
    ExamplesReport,
    ParetoPoint,
    ParetoReport,
)
from curator.results.metrics import AppliedMetric, MetricReading, MetricReport, TestPart
from curator.results.notes import NoteEntry, NotesReport
from curator.results.outputs import AdaptersReport, AppliedTask, ApplyReport, ExportedTask, ExportReport, QueryResult
from curator.results.saved import SavedSelectionEntry, SavedSelectionsReport
from curator.results.selection import RaceResult, SelectedTask, SelectionResult
from curator.results.stages import (
    CostReport,
    GradientsReport,
    StageCost,
    StageState,
    StageStatus,
    StatusReport,
    TrainReport,
)
from curator.results.verification import (
    ComparedMethod,
    ComparedSelection,
    DroppingReport,
    ForgottenTask,
    PairedDifference,
    Predictions,
    VerifiedRun,
    VerifiedSubset,
    VerifyReport,
)

__all__ = [
    "SCHEMA_VERSION",
    "AdaptersReport",
    "AppliedMetric",
    "AppliedTask",
    "ApplyReport",
    "BudgetPoint",
    "CheckReport",
    "CheckedTask",
    "ComparedMethod",
    "ComparedSelection",
    "CostReport",
    "CurveReport",
    "DroppingReport",
    "DuplicateTasks",
    "EstimateResult",
    "EstimatesReport",
    "ExampleInfluence",
    "ExamplesReport",
    "ExportReport",
    "ExportedTask",
    "ForgottenTask",
    "GradientsReport",
    "Interval",
    "MetricReading",
    "MetricReport",
    "NoteEntry",
    "NotesReport",
    "Overlap",
    "PairedDifference",
    "ParetoPoint",
    "ParetoReport",
    "Predictions",
    "QueryResult",
    "RaceResult",
    "SavedSelectionEntry",
    "SavedSelectionsReport",
    "SelectedTask",
    "SelectionResult",
    "StageCost",
    "StageState",
    "StageStatus",
    "StatusReport",
    "StoreReport",
    "StoreTable",
    "TestPart",
    "TrainReport",
    "VerifiedRun",
    "VerifiedSubset",
    "VerifyReport",
]
