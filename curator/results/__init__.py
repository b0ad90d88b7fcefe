"""Report classes that the verbs of `Project` return.

Takes names and numbers of the other rooms.
Holds the values frozen, and shows them as JSON, data frames, plots and notebook tables.
Returns one class for each verb, in one file for each step of the pipeline.
"""

from curator.core.interval import Interval
from curator.results.base import SCHEMA_VERSION
from curator.results.data import CheckedTask, CheckReport, DuplicateTasks, Overlap
from curator.results.estimates import (
    BudgetPoint,
    CurveReport,
    EstimateResult,
    EstimatesReport,
    ExampleInfluence,
    ExamplesReport,
)
from curator.results.notes import NoteEntry, NotesReport
from curator.results.outputs import AppliedTask, ApplyReport, ExportedTask, ExportReport, QueryResult
from curator.results.selection import SelectedTask, SelectionResult
from curator.results.stages import GradientsReport, StageState, StageStatus, StatusReport, TrainReport
from curator.results.verification import ComparedMethod, DroppingReport, VerifiedRun, VerifiedSubset, VerifyReport

__all__ = [
    "SCHEMA_VERSION",
    "AppliedTask",
    "ApplyReport",
    "BudgetPoint",
    "CheckReport",
    "CheckedTask",
    "ComparedMethod",
    "CurveReport",
    "DroppingReport",
    "DuplicateTasks",
    "EstimateResult",
    "EstimatesReport",
    "ExampleInfluence",
    "ExamplesReport",
    "ExportReport",
    "ExportedTask",
    "GradientsReport",
    "Interval",
    "NoteEntry",
    "NotesReport",
    "Overlap",
    "QueryResult",
    "SelectedTask",
    "SelectionResult",
    "StageState",
    "StageStatus",
    "StatusReport",
    "TrainReport",
    "VerifiedRun",
    "VerifiedSubset",
    "VerifyReport",
]
