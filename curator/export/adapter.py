"""Adapters of applied selections: what they depend on, their folders, and their reports.

The measured loss in the manifest is the loss of the kept adapter. A hash of all inputs identifies a run, so an equal
call finds the adapter again.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from curator import results
from curator.core.config import Config, LoraSection, TrainSection
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.figures import first_of
from curator.core.files import sha256_of, whole_folder
from curator.core.interval import Interval
from curator.core.provenance import InputChange, Inputs, hash_of, input_changes, key_of
from curator.data.corpus import Corpus, Task
from curator.results.base import rounded
from curator.select.manifest import (
    MANIFEST_NAME,
    EntryT,
    Manifest,
    ModelIdentity,
    TargetEntry,
    TaskEntry,
    TaskFile,
    rebased,
    render,
)
from curator.select.manifest_builder import with_files
from curator.training.fine_tune import (
    example_counts,
    measurement_inputs,
    subset_content,
)
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.workspace import Workspace

# Increase this number when equal inputs give another adapter.
_VERSION = 1
_ADAPTER = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_OURS = {_ADAPTER, _CONFIG, MANIFEST_NAME, "README.md"}
# Number of differences that an error names.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Describe a run and its adapter.

    Attributes:
        loss: Validation loss of the target, nats per target token.
        seconds: Time of the training.
        folder: Folder of the adapter.
        cached: Whether the adapter existed before the call.
        values: Values of the metric, and the loss on the test part.
    """

    loss: float
    seconds: float
    folder: Path
    cached: bool
    values: tuple[StoredMetric, ...] = ()


def changes_since(manifest: Manifest, config: Config, corpus: Corpus) -> list[InputChange]:
    """Return the changes of the project since a manifest was made that matter for training."""
    tasks = {task.name: task for task in corpus.tasks}
    selected = _selected(manifest)
    then: Inputs = {
        "model": {"sha256": manifest.model.sha256, "chat_template": hash_of([manifest.model.chat_template])},
        # Settings that an early version of curator did not write had their defaults.
        "lora": LoraSection().model_dump(mode="json") | manifest.lora,
        "train": {name: manifest.train.get(name, default) for name, default in TrainSection().decisive().items()},
        "data": manifest.data,
        "targets": _all_described(manifest.targets),
        "tasks": _all_described(selected),
    }
    now: Inputs = {
        "model": {"sha256": corpus.model.sha256, "chat_template": hash_of([corpus.model.chat_template])},
        "lora": config.lora.model_dump(mode="json"),
        "train": config.train.decisive(),
        "data": config.data.model_dump(mode="json", include={*manifest.data}),
        "targets": _all_described(_as_now(e, tasks[e.name]) for e in manifest.targets if e.name in tasks),
        "tasks": _all_described(_as_now(e, tasks[e.name]) for e in selected if e.name in tasks),
    }
    return input_changes(then, now)


def check_unchanged(workspace: Workspace, manifest: Manifest, corpus: Corpus, *, allow: bool) -> bool:
    """Check that the tasks of a manifest exist, and that tasks and recipe are unchanged.

    Args:
        workspace: The project.
        manifest: The manifest.
        corpus: The project's tasks, split for the manifest's targets.
        allow: Warn of changes instead of raising an error.

    Returns:
        Whether nothing has changed.

    Raises:
        ManifestMismatch: A selected task is missing, or there are changes and `allow` is false.
    """
    missing = sorted({entry.name for entry in _selected(manifest)} - {task.name for task in corpus.auxiliary})
    if missing:
        raise ManifestMismatch(
            f"the manifest selects a task that is not an auxiliary task of this project: {missing[0]!r}",
            hint="Run `curator select` again.",
        )
    found = changes_since(manifest, workspace.config, corpus)
    if not found:
        return True
    words = f"changed since the manifest was made: {first_of(found, _NAMED, joint='; ')}"
    if not allow:
        hint = "Run `curator select` again, or pass --allow-changed to train on the present data."
        raise ManifestMismatch(words, hint=hint)
    workspace.reporter.warn(words)
    return False


def run_inputs(config: Config, corpus: Corpus, weights: Mapping[str, float], seed: int) -> Inputs:
    """Return all that an adapter depends on: recipe, examples, weights and seed."""
    return {
        "version": _VERSION,
        **measurement_inputs(config, corpus),
        "subset": subset_content(corpus, weights),
        "weights": dict(weights),
        "seed": seed,
    }


def weights_of(manifest: Manifest) -> dict[str, float]:
    """Return the weight of each selected task."""
    return {entry.name: entry.weight for entry in _selected(manifest)}


def check_folder(folder: Path) -> None:
    """Check that a folder is missing, empty, or holds only files of an earlier `apply`.

    Raises:
        ConfigError: The folder holds other files, or is not a folder.
    """
    choose = "Choose an empty or a new folder with -o."
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} exists and is not a folder", hint=choose)
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(there - _OURS) or sorted(there if MANIFEST_NAME not in there else ())
    if foreign:
        raise ConfigError(f"{folder} exists and is not an applied selection: it holds {foreign[0]!r}", hint=choose)


def find_applied(
    workspace: Workspace, corpus: Corpus, manifest: Manifest, *, seed: int, folder: Path
) -> tuple[dict[str, Any] | None, Path | None]:
    """Return the outputs of an equal run, and the folder that holds its complete adapter. None for what is missing.

    Args:
        workspace: The project.
        corpus: Tasks of the project, split for the manifest's targets.
        manifest: The selection.
        seed: Seed of initialization and of the order of examples.
        folder: Folder of the adapter.
    """
    inputs = run_inputs(workspace.config, corpus, weights_of(manifest), seed)
    kept = workspace.store.artifact("apply", key_of(inputs))
    if kept is None:
        return None, None
    return kept.outputs, _holder((folder, Path(kept.outputs["folder"])), kept.outputs["sha256"])


def write_adapter(
    workspace: Workspace, corpus: Corpus, manifest: Manifest, *, source: Path, folder: Path, loss: float
) -> None:
    """Write an adapter and its manifest into a folder, in whole or not at all.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        manifest: The applied selection.
        source: Folder that holds the adapter.
        folder: Folder of the adapter. Pass it to `check_folder` first.
        loss: Measured loss, nats per target token.

    Raises:
        DataError: A file cannot be written.
    """
    try:
        with whole_folder(folder) as partial:
            for name in _OURS - {MANIFEST_NAME}:
                if (source / name).is_file():
                    shutil.copy2(source / name, partial / name)
            _name_base(partial / _CONFIG, workspace.config, corpus)
            _write_manifest(partial, folder, manifest, workspace, corpus, loss)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error}", hint="Check free disk space and write permissions."
        ) from error


def report(
    workspace: Workspace,
    corpus: Corpus,
    manifest: Manifest,
    applied: Applied,
    *,
    seed: int,
    manifest_file: Path | None,
    metric: results.AppliedMetric | None = None,
) -> results.ApplyReport:
    """Build the report of `Project.apply`."""
    weights = weights_of(manifest) | dict.fromkeys(corpus.targets, 1.0)
    counts = example_counts([task for task in corpus.tasks if task.name in weights], weights)
    return results.ApplyReport(
        name=manifest.name,
        target=corpus.targets,
        method=manifest.method,
        seed=seed,
        estimate=Interval(manifest.estimated_loss, manifest.estimated_loss_low, manifest.estimated_loss_high),
        measured_loss=rounded(applied.loss),
        seconds=applied.seconds,
        base_model=base_model(workspace.config, corpus),
        adapter=applied.folder,
        manifest=manifest_file,
        tasks=tuple(
            results.AppliedTask(
                name=task.name,
                target=task.name in corpus.targets,
                weight=weights[task.name],
                examples=counts[task.name],
            )
            for task in corpus.tasks
            if task.name in weights
        ),
        cached=applied.cached,
        metric=metric,
    )


def base_model(config: Config, corpus: Corpus) -> str:
    """Return the name of the base model for an adapter: a folder or a hub id."""
    name, folder = config.model.name_or_path, corpus.model.folder
    # The cache of downloads exists on this machine only. The id is valid on every machine.
    is_cached = folder.parent.parent.name == f"models--{name.replace('/', '--')}"
    return name if is_cached else str(folder.resolve())


def _selected(manifest: Manifest) -> list[TaskEntry]:
    return [task for task in manifest.tasks if task.selected]


def _all_described(entries: Iterable[TaskEntry | TargetEntry]) -> dict[str, Any]:
    return {entry.name: _described(entry) for entry in entries}


def _described(entry: TaskEntry | TargetEntry) -> dict[str, Any]:
    return {
        "examples": entry.examples,
        "files": _hashes(entry.files),
        "validation_files": _hashes(getattr(entry, "validation_files", ())),
        "left_out": {reason: hash_of(map(str, numbers)) for reason, numbers in entry.left_out.items()},
    }


def _hashes(files: Collection[TaskFile]) -> dict[str, str]:
    """Return SHA-256 by file name. Equal names from several folders get numbers."""
    found: dict[str, str] = {}
    for file in files:
        name, number = PurePath(file.path).name, 2
        while name in found:
            name, number = f"{PurePath(file.path).name} ({number})", number + 1
        found[name] = file.sha256
    return found


def _as_now(entry: EntryT, task: Task) -> EntryT:
    """Return a task's entry with the present counts and files of the project, and with the corpus's paths."""
    present: dict[str, Any] = {
        "examples": len(task.split.train),
        "tokens": task.tokens,
        "left_out": task.split.left_out,
    }
    if isinstance(entry, TargetEntry):
        present["validation_examples"] = len(task.split.validation)
    return with_files(entry.model_copy(update=present), task)


def _write_manifest(
    partial: Path, folder: Path, manifest: Manifest, workspace: Workspace, corpus: Corpus, loss: float
) -> None:
    """Write the manifest of the trained adapter: its data and recipe as they are now, and the measured loss."""
    tasks = {task.name: task for task in corpus.tasks}
    config = workspace.config
    present = manifest.model_copy(
        update={
            "model": ModelIdentity.of(config.model, corpus.model),
            "lora": config.lora.model_dump(mode="json"),
            "train": config.train.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json", include={*manifest.data}),
            "targets": tuple(_as_now(e, tasks[e.name]) for e in manifest.targets),
            "tasks": tuple(_as_now(e, tasks[e.name]) for e in manifest.tasks if e.name in tasks),
            "measured_loss": rounded(loss),
        }
    )
    text = render(rebased(present, workspace.root, folder))
    (partial / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _name_base(path: Path, config: Config, corpus: Corpus) -> None:
    """Write the name of the base model into an adapter's configuration."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"base_model_name_or_path": base_model(config, corpus), "revision": config.model.revision or None}
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _holder(folders: Collection[Path], sha256: str) -> Path | None:
    """Return the first folder that holds the complete and unchanged adapter, or None."""
    for folder in folders:
        whole = all((folder / name).is_file() for name in (_ADAPTER, _CONFIG, MANIFEST_NAME))
        if whole and sha256_of(folder / _ADAPTER) == sha256:
            return folder
    return None
