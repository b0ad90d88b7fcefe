"""curator: pick the auxiliary tasks that help a fine-tuning target, without training on every subset.

    >>> import curator
    >>> project = curator.Project.open("sample_data")
    >>> result = project.select()
    >>> result.selected

Fourteen rooms, from the bottom of the pipeline to the top: core, workspace, results, data, training, metrics, workers,
gradients, estimate, select, verify, export, project, cli. A room imports only from the rooms before it.

Names resolve at first use: `import curator` alone imports neither torch nor DuckDB.
"""

import importlib
from typing import TYPE_CHECKING, Any

from curator.core.version import __version__

_HOMES = {
    "Project": "curator.project.project",
    "CuratorCallback": "curator.project.callback",
    "CheckReport": "curator.results",
    "CostReport": "curator.results",
    "EstimateResult": "curator.results",
    "SelectionResult": "curator.results",
    "VerifyReport": "curator.results",
    "CurveReport": "curator.results",
    "ExamplesReport": "curator.results",
    "AdaptersReport": "curator.results",
    "ApplyReport": "curator.results",
    "EstimatesReport": "curator.results",
    "ExportReport": "curator.results",
    "GradientsReport": "curator.results",
    "NotesReport": "curator.results",
    "SavedSelectionsReport": "curator.results",
    "ParetoReport": "curator.results",
    "QueryResult": "curator.results",
    "StatusReport": "curator.results",
    "StoreReport": "curator.results",
    "TrainReport": "curator.results",
    "plot_curve": "curator.results.plots",
    "plot_verify": "curator.results.plots",
    "ConfigError": "curator.core.errors",
    "CuratorError": "curator.core.errors",
    "DataError": "curator.core.errors",
    "ManifestMismatch": "curator.core.errors",
    "NumericalError": "curator.core.errors",
    "StoreBusy": "curator.core.errors",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from curator.core.errors import ConfigError as ConfigError
    from curator.core.errors import CuratorError as CuratorError
    from curator.core.errors import DataError as DataError
    from curator.core.errors import ManifestMismatch as ManifestMismatch
    from curator.core.errors import NumericalError as NumericalError
    from curator.core.errors import StoreBusy as StoreBusy
    from curator.project.callback import CuratorCallback as CuratorCallback
    from curator.project.project import Project as Project
    from curator.results.data import CheckReport as CheckReport
    from curator.results.data import StoreReport as StoreReport
    from curator.results.estimates import CurveReport as CurveReport
    from curator.results.estimates import EstimateResult as EstimateResult
    from curator.results.estimates import EstimatesReport as EstimatesReport
    from curator.results.estimates import ExamplesReport as ExamplesReport
    from curator.results.estimates import ParetoReport as ParetoReport
    from curator.results.notes import NotesReport as NotesReport
    from curator.results.outputs import AdaptersReport as AdaptersReport
    from curator.results.outputs import ApplyReport as ApplyReport
    from curator.results.outputs import ExportReport as ExportReport
    from curator.results.outputs import QueryResult as QueryResult
    from curator.results.plots import plot_curve as plot_curve
    from curator.results.plots import plot_verify as plot_verify
    from curator.results.saved import SavedSelectionsReport as SavedSelectionsReport
    from curator.results.selection import SelectionResult as SelectionResult
    from curator.results.stages import CostReport as CostReport
    from curator.results.stages import GradientsReport as GradientsReport
    from curator.results.stages import StatusReport as StatusReport
    from curator.results.stages import TrainReport as TrainReport
    from curator.results.verification import VerifyReport as VerifyReport


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
