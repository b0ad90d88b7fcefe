"""From a manifest to an adapter: the base model fine-tuned on the selection, by the project's own recipe.

What is trained, and measured, and kept is one and the same: the adapter in the folder is the one whose loss the
manifest says. A run is known by what goes into it, so that the same call again finds it.
"""

import json
import math
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from curator import results
from curator.core import distributed
from curator.core.config import Config, LoraSection, TrainSection
from curator.core.errors import ConfigError, DataError, ManifestMismatch, NumericalError
from curator.core.files import sha256_of, whole_folder
from curator.core.provenance import InputChange, Inputs, hash_of, input_changes, key_of
from curator.data.corpus import Corpus, Task
from curator.select.manifest import (
    MANIFEST_NAME,
    EntryT,
    Manifest,
    ModelIdentity,
    TargetEntry,
    TaskEntry,
    TaskFile,
    is_same_selection,
    rebased,
    render,
)
from curator.select.manifest_builder import with_files
from curator.training.fine_tune import example_counts, fine_tune, measurement_inputs, recipe_key, subset_content
from curator.training.meta_init import LoadModel
from curator.training.trainer import remove_run
from curator.workspace.workspace import Workspace

# Raised when the same inputs would give another adapter.
_VERSION = 1
_ADAPTER = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_OURS = {_ADAPTER, _CONFIG, MANIFEST_NAME, "README.md"}
# Differences that an error names; there may be one for every task.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A run, and where its adapter is.

    Attributes:
        loss: The target's validation loss, nats per target token.
        seconds: Time that training took.
        folder: Where the adapter is.
        cached: Whether it was there already.
    """

    loss: float
    seconds: float
    folder: Path
    cached: bool


def changes_since(manifest: Manifest, config: Config, corpus: Corpus) -> list[InputChange]:
    """In what the project is no longer the one that a manifest was made from, as far as training goes."""
    tasks = {task.name: task for task in corpus.tasks}
    selected = _selected(manifest)
    then: Inputs = {
        "model": {"sha256": manifest.model.sha256},
        # What a manifest from an older curator does not say was as it is by default.
        "lora": LoraSection().model_dump(mode="json") | manifest.lora,
        "train": TrainSection().model_dump(mode="json") | manifest.train,
        "data": manifest.data,
        "targets": _all_described(manifest.targets),
        "tasks": _all_described(selected),
    }
    now: Inputs = {
        "model": {"sha256": corpus.model.sha256},
        "lora": config.lora.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json", include={*manifest.data}),
        "targets": _all_described(_as_now(e, tasks[e.name]) for e in manifest.targets if e.name in tasks),
        "tasks": _all_described(_as_now(e, tasks[e.name]) for e in selected if e.name in tasks),
    }
    return input_changes(then, now)


def check_unchanged(workspace: Workspace, manifest: Manifest, corpus: Corpus, *, allow: bool) -> bool:
    """Make sure that a manifest's tasks are there, and that they and the recipe are as they were.

    Args:
        workspace: The project.
        manifest: The manifest.
        corpus: The project's tasks, split for the manifest's targets.
        allow: Whether changes are only told of.

    Returns:
        Whether all is as it was.

    Raises:
        ManifestMismatch: A selected task is gone; or something has changed, and that is not allowed.
    """
    gone = sorted({entry.name for entry in _selected(manifest)} - {task.name for task in corpus.auxiliary})
    if gone:
        raise ManifestMismatch(
            f"the manifest selects {gone[0]!r}, which is no auxiliary task of this project",
            hint="Run `curator select` again.",
        )
    found = changes_since(manifest, workspace.config, corpus)
    if not found:
        return True
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    words = f"since the manifest was made, {'; '.join(map(str, found[:_NAMED]))}{more}"
    if not allow:
        hint = "Run `curator select` again, or pass --allow-changed to train on what is there now."
        raise ManifestMismatch(words, hint=hint)
    workspace.reporter.warn(words)
    return False


def run_inputs(config: Config, corpus: Corpus, weights: Mapping[str, float], seed: int) -> Inputs:
    """What decides an adapter: recipe, examples, how often each is trained on, and the seed."""
    return {
        "version": _VERSION,
        **measurement_inputs(config, corpus),
        "subset": subset_content(corpus, weights),
        "weights": dict(weights),
        "seed": seed,
    }


def weights_of(manifest: Manifest) -> dict[str, float]:
    """Weight of each selected task."""
    return {entry.name: entry.weight for entry in _selected(manifest)}


def check_folder(folder: Path) -> None:
    """Make sure that nothing is in a folder but what an earlier `apply` left there.

    Raises:
        ConfigError: Something else is there.
    """
    choose = "Choose an empty or a new folder with -o."
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} exists and is no folder", hint=choose)
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted(there - _OURS) or sorted(there if MANIFEST_NAME not in there else ())
    if foreign:
        raise ConfigError(f"{folder} exists and is no applied selection: it holds {foreign[0]!r}", hint=choose)


def apply(
    workspace: Workspace,
    corpus: Corpus,
    manifest: Manifest,
    *,
    seed: int,
    folder: Path,
    work: Path,
    load: LoadModel,
    fresh: bool,
) -> Applied:
    """Fine-tune on a selection, measure, and leave the adapter; an interrupted run is gone on with.

    Args:
        workspace: The project.
        corpus: Its tasks, split for the manifest's targets; the selected ones are among them.
        manifest: The selection.
        seed: Of initialization and order.
        folder: Where the adapter goes; `check_folder` has seen it.
        work: For checkpoints.
        load: Gives the model.
        fresh: Train again, although the adapter is there or half made.

    Raises:
        NumericalError: The loss is not finite.
        DataError: Something cannot be written.
    """
    config, store = workspace.config, workspace.store
    weights = weights_of(manifest)
    inputs = run_inputs(config, corpus, weights, seed)
    key = key_of(inputs)
    kept = None if fresh else store.artifact("apply", key)
    known = None if kept is None else kept.outputs
    source = None if known is None else _holder((folder, Path(known["folder"])), known["sha256"])
    known, source = distributed.from_main((known, source))
    if known is not None and source is not None:
        if source != folder and distributed.is_main():
            with _written(folder) as partial:
                for name in (_ADAPTER, _CONFIG):
                    shutil.copy2(source / name, partial / name)
                _write_manifest(partial, folder, manifest, workspace, corpus, known["loss"])
        distributed.wait()
        workspace.reporter.cached(
            "apply", f"the adapter of {manifest.name!r} is there, seed {seed}: loss {known['loss']:.4f}"
        )
        return Applied(loss=known["loss"], seconds=known["seconds"], folder=folder, cached=True)
    place = work / key
    if fresh and distributed.is_main():
        remove_run(place)
    distributed.wait()
    tuned = load()
    found = fine_tune(
        workspace,
        corpus,
        weights,
        seed=seed,
        tuned=tuned,
        folder=place,
        weights=weights,
        stage="apply",
    )
    if not math.isfinite(found.loss):
        raise NumericalError(f"the loss after training is {found.loss}", hint="Lower train.learning_rate.")
    if distributed.is_main():
        with _written(folder) as partial:
            sha256 = tuned.save_adapter(partial)
            _name_base(partial / _CONFIG, config, corpus)
            _write_manifest(partial, folder, manifest, workspace, corpus, found.loss)
        outputs = {"name": manifest.name, "loss": found.loss, "seconds": found.seconds, "sha256": sha256}
        store.put_artifact("apply", key, inputs, outputs | {"folder": str(folder)})
        remove_run(place)
    distributed.wait()
    return Applied(loss=found.loss, seconds=found.seconds, folder=folder, cached=False)


def keep_measured(
    workspace: Workspace, corpus: Corpus, manifest: Manifest, applied: Applied, *, seed: int, unchanged: bool
) -> None:
    """Keep what was measured where the project looks for it: with its selection, and among the measured subsets.

    What is weighted is no subset, and by the seed of meta-training a run can be meta-training itself, from whose loss
    estimates are made: neither may calibrate them.

    Args:
        workspace: The project.
        corpus: Its tasks.
        manifest: What was applied.
        applied: What came of it.
        seed: By which.
        unchanged: Whether the project is as the manifest says; else its selection is not what was measured.
    """
    store = workspace.store
    weights = weights_of(manifest)
    if seed != workspace.config.train.seed and all(weight == 1.0 for weight in weights.values()):
        content, target = subset_content(corpus, weights), corpus.target_label
        recipe = recipe_key(workspace.config, corpus)
        store.put_measurement(recipe, target, content, seed=seed, loss=applied.loss, seconds=applied.seconds)
    for kept in store.selections() if unchanged else ():
        if kept.name != manifest.name:
            continue
        there = Manifest.model_validate_json(kept.manifest)
        if is_same_selection(there, manifest):
            loss = round(applied.loss, 6)
            store.put_manifest(kept.key, there.model_copy(update={"measured_loss": loss}).model_dump_json())


def report(
    workspace: Workspace, corpus: Corpus, manifest: Manifest, applied: Applied, *, seed: int, manifest_file: Path | None
) -> results.ApplyReport:
    """What `Project.apply` says of a run."""
    weights = weights_of(manifest) | dict.fromkeys(corpus.targets, 1.0)
    counts = example_counts([task for task in corpus.tasks if task.name in weights], weights)
    return results.ApplyReport(
        name=manifest.name,
        target=corpus.targets,
        method=manifest.method,
        seed=seed,
        estimated_loss=manifest.estimated_loss,
        estimated_loss_low=manifest.estimated_loss_low,
        estimated_loss_high=manifest.estimated_loss_high,
        measured_loss=round(applied.loss, 6),
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
    )


def base_model(config: Config, corpus: Corpus) -> str:
    """The base model as an adapter names it: its folder, or its hub id."""
    name, folder = config.model.name_or_path, corpus.model.folder
    # What was downloaded lies in a cache of this machine, and is known everywhere by its id.
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
    """SHA-256 by name; files of one name in several folders are numbered."""
    found: dict[str, str] = {}
    for file in files:
        name, number = PurePath(file.path).name, 2
        while name in found:
            name, number = f"{PurePath(file.path).name} ({number})", number + 1
        found[name] = file.sha256
    return found


def _as_now(entry: EntryT, task: Task) -> EntryT:
    """Return a task's entry with what the project has now; the paths are as in the corpus."""
    present: dict[str, Any] = {
        "examples": len(task.split.train),
        "tokens": task.tokens,
        "left_out": task.split.left_out,
    }
    if isinstance(entry, TargetEntry):
        present["validation_examples"] = len(task.split.validation)
    return with_files(entry.model_copy(update=present), task)


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    try:
        with whole_folder(folder) as partial:
            yield partial
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error}", hint="Is the disk full, or the folder not yours to write?"
        ) from error


def _write_manifest(
    partial: Path, folder: Path, manifest: Manifest, workspace: Workspace, corpus: Corpus, loss: float
) -> None:
    """Write the manifest of the trained adapter: its data and recipe as they are now, and the measured loss."""
    tasks = {task.name: task for task in corpus.tasks}
    config = workspace.config
    present = manifest.model_copy(
        update={
            "model": ModelIdentity(
                name_or_path=config.model.name_or_path,
                revision=config.model.revision,
                sha256=corpus.model.sha256,
                dtype=config.model.dtype,
                quantization=config.model.quantization,
            ),
            "lora": config.lora.model_dump(mode="json"),
            "train": config.train.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json", include={*manifest.data}),
            "targets": tuple(_as_now(e, tasks[e.name]) for e in manifest.targets),
            "tasks": tuple(_as_now(e, tasks[e.name]) for e in manifest.tasks if e.name in tasks),
            "measured_loss": round(loss, 6),
        }
    )
    text = render(rebased(present, workspace.root, folder))
    (partial / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _name_base(path: Path, config: Config, corpus: Corpus) -> None:
    """Say in an adapter's configuration where its base model is to be had."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"base_model_name_or_path": base_model(config, corpus), "revision": config.model.revision or None}
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _holder(folders: Collection[Path], sha256: str) -> Path | None:
    """The first folder that holds the adapter, whole and as it was written."""
    for folder in folders:
        whole = all((folder / name).is_file() for name in (_ADAPTER, _CONFIG, MANIFEST_NAME))
        if whole and sha256_of(folder / _ADAPTER) == sha256:
            return folder
    return None
