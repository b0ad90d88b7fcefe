"""What `curator mcp` offers to an assistant, as plain methods that take and return JSON values.

Without `allow_runs`, a method trains nothing, computes no gradients, and writes nothing outside `.curator/`.
Every path must lie in the project. Texts from data and files are cleaned, and stay values of the document.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from sys import stderr
from threading import Lock
from typing import TYPE_CHECKING, Any

from curator.cli.options import Shared
from curator.core.errors import ConfigError, CuratorError, DataError
from curator.core.figures import first_of
from curator.core.text import clean
from curator.results.display import plain
from curator.select.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from curator.project.project import Project
    from curator.select.manifest import Manifest

Document = dict[str, Any]

# Characters of a text, and examples of each kind, that an answer holds.
_LETTERS, _EXAMPLES = 2000, 3
# Most subsets of one call, and largest limit of a selection.
_SUBSETS, _LARGEST = 1000, 2**53
_START = "Start the server with `curator mcp --allow-runs`, or run `curator select` in a terminal."


class AssistantTools:
    """Methods of one project for an assistant. One call runs at a time.

    Args:
        root: Folder of the project.
        allow_runs: Whether methods may train, compute gradients, and write files into the project.
    """

    def __init__(self, root: Path, *, allow_runs: bool) -> None:
        self._root, self._allow_runs, self._lock = root.resolve(), allow_runs, Lock()

    def check(self) -> Document:
        """Read the project's tasks. Return sizes, token counts and problems. `error` says why it cannot be used."""
        from curator.data.check import CheckFailed

        with self._open() as project:
            try:
                return _safe(project.check().to_json())
            except CheckFailed as failed:
                return _safe(failed.report.to_json())

    def status(self) -> Document:
        """Return the state of every stage, the reasons why a stage is stale, and recent selections and jobs."""
        with self._open() as project:
            return _safe(project.status().to_json())

    def estimate(self, subsets: list[list[str]], target: str | None = None) -> Document:
        """Estimate the target's loss after fine-tuning on the target and each subset of auxiliary tasks.

        Losses are in nats per target token. An empty subset is the target alone.
        """
        if len(subsets) > _SUBSETS:
            raise ConfigError(
                f"too many subsets: {len(subsets):,}", hint=f"Ask for at most {_SUBSETS:,} subsets in one call."
            )
        with self._open() as project:
            self._check_ready(project, target)
            return _safe(project.estimate_all(subsets, target=target).to_json())

    def select(
        self,
        target: str | None = None,
        method: str | None = None,
        k: int | None = None,
        max_tokens: int | None = None,
        max_examples: int | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        name: str = "",
    ) -> Document:
        """Select the auxiliary tasks that help the target most.

        `k`, `max_tokens` and `max_examples` limit the selection. `include` and `exclude` name fixed tasks.
        Only a server with `--allow-runs` keeps the selection, and writes its manifest.
        """
        given: Document = {
            "method": method,
            "k": k,
            "max_tokens": max_tokens,
            "max_examples": max_examples,
            "include": include or (),
            "exclude": exclude or (),
        }
        for limit in ("k", "max_tokens", "max_examples"):
            if given[limit] is not None and not 0 <= given[limit] <= _LARGEST:
                raise ConfigError(f"{limit} is out of range", hint=f"Use a number from 0 to {_LARGEST}.")
        with self._open() as project:
            self._check_ready(project, target)
            report = (
                project.select(target=target, name=name, **given)
                if self._allow_runs
                else project.preview(target=target, **given)
            )
            return _safe(report.to_json())

    def explain(self, task: str, selection: str = "") -> Document:
        """Explain why a selection has or lacks a task.

        Returns the task's affinity, the estimated loss with and without the task, and its most helpful and most
        harmful examples. `selection` is the name of a selection or a manifest file [default: the last selection].
        """
        with self._open() as project:
            manifest = self._manifest(project, selection or self._last(project))
            target = manifest.target_names
            self._check_ready(project, target)
            entry = next((entry for entry in manifest.tasks if entry.name == task), None)
            if entry is None:
                known = first_of([entry.name for entry in manifest.tasks], 20)
                raise ConfigError(f"the selection has no auxiliary task {task!r}", hint=f"Use one of: {known}.")
            others = [other.name for other in manifest.tasks if other.selected and other.name != task]
            self._check_selected(project, target)
            have, lack = project.estimate_all([[*others, task], others], target=target).to_json()["estimates"]
            examples = [example for example in project.examples(task, target=target).rows() if example["text"]]
            return _safe(
                {
                    "schema_version": 1,
                    "selection": manifest.name,
                    "method": manifest.method,
                    "target": list(target),
                    "task": task,
                    "selected": entry.selected,
                    "weight": entry.weight,
                    "affinity": entry.affinity,
                    "affinity_standard_error": entry.affinity_standard_error,
                    "examples": entry.examples,
                    "tokens": entry.tokens,
                    "with_task": have,
                    "without_task": lack,
                    "steps": [step for step in manifest.steps if task in step["tasks"]],
                    "most_helpful": examples[:_EXAMPLES],
                    "most_harmful": examples[: -_EXAMPLES - 1 : -1],
                }
            )

    def export(self, selection: str, format: str = "jsonl", folder: str = "") -> Document:
        """Write a selection as files for a trainer, into a folder of the project.

        A server without `--allow-runs` only counts rows and tokens. `selection` is a name or a manifest file.
        """
        with self._open() as project:
            place = self._inside(folder or f"export-{format}")
            # Hidden folders hold what programs trust, such as `.git` and `.github`.
            inner = place.relative_to(self._root).parts
            if not inner or any(part.startswith(".") for part in inner):
                raise ConfigError(f"not a folder for exports: {folder!r}", hint="Name a new folder in the project.")
            self._manifest(project, selection)
            report = project.export(self._place(selection), format=format, output=place, dry_run=not self._allow_runs)
            return _safe(report.to_json() | {"dry_run": not self._allow_runs})

    # -- limits ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _open(self) -> "Iterator[Project]":
        """Open the project as it is now. What a library prints goes to standard error, never into the protocol."""
        with self._lock, redirect_stdout(stderr), Shared().open(folder=self._root, silent=True) as project:
            yield project

    def _check_ready(self, project: "Project", target: str | Sequence[str] | None) -> None:
        if not self._allow_runs and not project.is_ready(target=target):
            raise ConfigError("estimates need a training run, which this server may not start", hint=_START)

    def _check_selected(self, project: "Project", target: Sequence[str]) -> None:
        """Check that a read-only call finds a selection. Without one, `Project.examples` makes one and keeps it."""
        if not self._allow_runs and project.selections(project.workspace.targets(target)).last() is None:
            raise ConfigError("the target has no selection, and this server may not make one", hint=_START)

    def _inside(self, written: str) -> Path:
        """Return an absolute path in the project.

        Raises:
            ConfigError: The path, or the target of a link on it, lies outside the project.
        """
        place: Path | None = None
        # No file has a name with a zero or a lone surrogate. `Path.resolve` would raise an error for a loop of links.
        with suppress(OSError, ValueError):
            place = Path(os.path.realpath(self._root / written))
        if place is None or not place.is_relative_to(self._root):
            raise ConfigError(f"path lies outside the project: {written!r}", hint="Name a path in the project.")
        return place

    def _place(self, selection: str) -> str:
        """Return the absolute path of a manifest file in the project, or the name of a selection.

        Raises:
            ConfigError: The file lies outside the project.
        """
        if os.path.isfile(self._root / selection):
            return str(self._inside(selection))
        # `Project.manifest` also reads files of the working directory.
        return str(self._inside(os.path.abspath(selection))) if os.path.isfile(selection) else selection

    def _manifest(self, project: "Project", selection: str) -> "Manifest":
        return project.manifest(self._place(selection))[0]

    def _last(self, project: "Project") -> str:
        kept = project.store.selections()
        if kept:
            return kept[0].name
        if os.path.isfile(self._root / MANIFEST_NAME):
            return MANIFEST_NAME
        raise DataError("the project has no selection", hint="Run `curator select` first.")


def explained(error: Exception) -> str:
    """Return what an assistant reads about an error, without characters that steer a terminal."""
    words = f"{error.message}\n{error.hint}" if isinstance(error, CuratorError) else f"{type(error).__name__}: {error}"
    return clean(words.strip(), lines=True, limit=_LETTERS)


def _safe(document: Document) -> Document:
    """Return a JSON document without characters that steer a terminal. Long texts are cut."""
    return {clean(name): _safe_value(inner) for name, inner in document.items()}


def _safe_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _safe(value)
    if isinstance(value, list | tuple):
        return [_safe_value(inner) for inner in value]
    return clean(value, limit=_LETTERS, lines=True) if isinstance(value, str) else plain(value)
