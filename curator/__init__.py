"""curator: pick the auxiliary tasks that help a fine-tuning target, without training on every subset.

    >>> import curator
    >>> project = curator.Project.open("sample_data")
    >>> result = project.select()
    >>> result.selected

Names are resolved when they are first used: `import curator` alone imports neither torch nor DuckDB.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Project": "curator.project",
    "CheckReport": "curator.results",
    "EstimateResult": "curator.results",
    "SelectionResult": "curator.results",
    "VerifyReport": "curator.results",
    "CurveReport": "curator.results",
    "ExamplesReport": "curator.results",
    "ApplyReport": "curator.results",
    "EstimatesReport": "curator.results",
    "ExportReport": "curator.results",
    "GradientsReport": "curator.results",
    "QueryResult": "curator.results",
    "StatusReport": "curator.results",
    "TrainReport": "curator.results",
    "ConfigError": "curator.errors",
    "CuratorError": "curator.errors",
    "DataError": "curator.errors",
    "ManifestMismatch": "curator.errors",
    "NumericalError": "curator.errors",
    "StoreBusy": "curator.errors",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from curator.errors import ConfigError as ConfigError
    from curator.errors import CuratorError as CuratorError
    from curator.errors import DataError as DataError
    from curator.errors import ManifestMismatch as ManifestMismatch
    from curator.errors import NumericalError as NumericalError
    from curator.errors import StoreBusy as StoreBusy
    from curator.project import Project as Project
    from curator.results import ApplyReport as ApplyReport
    from curator.results import CheckReport as CheckReport
    from curator.results import CurveReport as CurveReport
    from curator.results import EstimateResult as EstimateResult
    from curator.results import EstimatesReport as EstimatesReport
    from curator.results import ExamplesReport as ExamplesReport
    from curator.results import ExportReport as ExportReport
    from curator.results import GradientsReport as GradientsReport
    from curator.results import QueryResult as QueryResult
    from curator.results import SelectionResult as SelectionResult
    from curator.results import StatusReport as StatusReport
    from curator.results import TrainReport as TrainReport
    from curator.results import VerifyReport as VerifyReport


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
