"""The report of a selection: the answer, its reasons, dropped examples, verified runs, settings and hashes.

The report reads the store and computes no stage.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.core.errors import ConfigError, DataError
from curator.core.figures import correlation, fixed, is_zero, margin, percent, signed
from curator.core.files import write_whole
from curator.core.interval import is_clear
from curator.core.provenance import key_of
from curator.data.corpus import Corpus, read_corpus
from curator.estimate.target import TargetEstimates
from curator.gradients.segment_sets import completeness_inputs, sets_in_use
from curator.results.document import (
    Bars,
    Block,
    Curve,
    Document,
    Scatter,
    Section,
    Sentence,
    Table,
    to_html,
    to_markdown,
)
from curator.results.svg import Bar, Dot
from curator.results.verification import VerifyReport
from curator.select.fitting import fitting_selections
from curator.select.manifest import Manifest, TaskEntry, stored_manifest
from curator.training.meta_init import find_meta_init
from curator.verify.report import report as verified
from curator.workspace.store.notes import Note
from curator.workspace.workspace import Workspace

REPORT_NAME = "curator-report.html"
# Characters of an example that the report shows, and rows of a table of examples.
_LETTERS, _ROWS = 160, 200
_MARKDOWN = (".md", ".markdown")


def last_manifest(workspace: Workspace) -> Manifest:
    """Return the selection that was made or saved last.

    Raises:
        DataError: The selection does not exist.
    """
    for kept in workspace.store.selections():
        return stored_manifest(kept.manifest)
    raise DataError("no selection to report on", hint="Run `curator select` first.")


def write_report(workspace: Workspace, manifest: Manifest, path: Path) -> None:
    """Write the report of a selection as HTML, or as Markdown if the file's name ends in `.md`.

    Args:
        workspace: The project.
        manifest: The selection.
        path: The file.

    Raises:
        DataError: The file cannot be written.
    """
    document = report_document(workspace, manifest)
    text = to_markdown(document) if path.suffix.lower() in _MARKDOWN else to_html(document)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A surrogate half is not valid UTF-8.
        write_whole(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}", hint="Choose another place with -o.") from error


def report_document(workspace: Workspace, manifest: Manifest) -> Document:
    """Build the report of a selection."""
    corpus = _corpus(workspace, manifest)
    estimates = None if corpus is None else _estimates(workspace, corpus)
    notes = workspace.store.notes()
    sections = [
        Section("Answer", [*_stale(workspace, manifest, estimates), *_answer(manifest)]),
        Section("Tasks", _tasks(manifest)),
        *_steps(manifest),
        *_edits(manifest),
        *_dropped(workspace, manifest, corpus),
        *_notes(manifest, notes),
        Section("Verified runs", _verified(estimates)),
        Section("Settings", _settings(manifest)),
        Section("Files and hashes", _hashes(manifest)),
    ]
    target = ", ".join(manifest.target_names)
    return Document(f"{manifest.project}: selection {manifest.name} for {target}", _summary(manifest), sections)


def _corpus(workspace: Workspace, manifest: Manifest) -> Corpus | None:
    """Return the tasks. None if files are not read, or a target is not a task any more."""
    try:
        return read_corpus(workspace, manifest.target_names, read=False)
    except (ConfigError, DataError):
        return None


def _estimates(workspace: Workspace, corpus: Corpus) -> TargetEstimates | None:
    """Return the estimates, or None if a stage before them is missing."""
    meta = find_meta_init(workspace, corpus)
    if meta is None:
        return None
    inputs = completeness_inputs(workspace.config, sets_in_use(workspace.config, meta), corpus)
    if workspace.store.artifact("gradients", key_of(inputs)) is None:
        return None
    return TargetEstimates(workspace, corpus, meta)


def _stale(workspace: Workspace, manifest: Manifest, estimates: TargetEstimates | None) -> list[Block]:
    """Say so if the selection was not made by the present estimates of the project."""
    fitting = () if estimates is None else fitting_selections(workspace.store, estimates)
    made = {(found.name, found.created) for found in (stored_manifest(kept.manifest) for kept in fitting)}
    if (manifest.name, manifest.created) in made:
        return []
    return [Sentence("These estimates are stale: files, settings or measured runs have changed since.")]


def _summary(manifest: Manifest) -> str:
    chosen = [task for task in manifest.tasks if task.selected]
    loss, low, high = manifest.estimated_loss, manifest.estimated_loss_low, manifest.estimated_loss_high
    tokens = sum(task.tokens for task in chosen)
    words = (
        f"{len(chosen)} of {len(manifest.tasks)} tasks, with {tokens:,} tokens, give an estimated loss of {fixed(loss)}"
        f" nats per target token ({fixed(low)} to {fixed(high)})."
    )
    return words + ("" if manifest.measured_loss is None else f" The measured loss is {fixed(manifest.measured_loss)}.")


def _answer(manifest: Manifest) -> list[Block]:
    short = {"target_only": "target alone", "all_tasks": "all tasks", "with_dropped": "with dropped examples"}
    names = short | {"target_only": "the target alone", "with_dropped": "the selection with the dropped examples"}
    bars = [Bar(name=short.get(key, key), value=loss) for key, loss in manifest.reference.items()]
    low, high = manifest.estimated_loss_low, manifest.estimated_loss_high
    bars.append(Bar(name=f"{manifest.name} (estimated)", value=manifest.estimated_loss, low=low, high=high))
    if manifest.measured_loss is not None:
        bars.append(Bar(name=f"{manifest.name} (measured)", value=manifest.measured_loss, measured=True))
    found: list[Block] = [Bars(bars), Sentence("Losses are in nats per target token. Lower is better.")]
    if manifest.estimate.get("interval_accounts_for_selection"):
        found.append(Sentence("The interval accounts for the choice of the subset by its estimate."))
    for key, loss in manifest.reference.items():
        change = manifest.estimated_loss - loss
        found.append(Sentence(_against(names.get(key, key), change, is_noise=key in manifest.indistinguishable)))
    kind = "are calibrated by measured subsets" if manifest.estimate.get("calibrated") else "are not calibrated"
    found.append(Sentence(f"The method is {manifest.method}. The estimates {kind}."))
    return found


def _against(name: str, change: float, *, is_noise: bool) -> str:
    """Compare the estimate with that of a reference."""
    if change == 0:
        return f"The estimate is the same as that of {name}."
    if is_zero(change):
        return f"The estimate differs by {margin(abs(change))} from that of {name}."
    kind, noise = "lower" if change < 0 else "higher", "within" if is_noise else "more than"
    return f"The estimate is {kind} by {fixed(abs(change))} than that of {name}: {noise} the noise."


def _effect(task: TaskEntry) -> str:
    """Say whether a task helps. "" if no sampled subset, or every one, holds the task."""
    error = task.affinity_standard_error
    if error is None:
        return ""
    if not is_clear(task.affinity, error):
        return "no clear effect on average"
    return "helps on average" if task.affinity > 0 else "harms on average"


def _tasks(manifest: Manifest) -> list[Block]:
    order = sorted(manifest.tasks, key=lambda task: (not task.selected, -task.affinity, task.name))
    included, excluded = (set(manifest.options.get(key, ())) for key in ("include", "exclude"))
    added: dict[str, int] = {}
    for number, step in enumerate(manifest.steps, start=1):
        for name in step.get("tasks", ()):
            added[str(name)] = number
    rows = []
    for task in order:
        error = "" if task.affinity_standard_error is None else margin(task.affinity_standard_error)
        reasons = [
            "pinned in" if task.name in included else "",
            "pinned out" if task.name in excluded else "",
            f"step {added[task.name]}" if task.name in added else "",
            _effect(task),
        ]
        rows.append(
            (
                "in" if task.selected else "out",
                task.name,
                signed(task.affinity),
                error,
                f"{task.weight:g}" if task.selected else "",
                f"{task.examples:,}",
                f"{task.tokens:,}",
                ", ".join(filter(None, reasons)),
            )
        )
    columns = ("", "task", "affinity", "± s.e.", "weight", "examples", "tokens", "reasons")
    words = (
        "The affinity is the mean estimated loss of random subsets without the task minus the mean with it.",
        "Below 1.64 standard errors, the effect is not clear.",
    )
    return [Table(columns, rows, ("affinity", "± s.e.", "weight", "examples", "tokens")), *map(Sentence, words)]


def _steps(manifest: Manifest) -> list[Section]:
    steps = [step for step in manifest.steps if isinstance(step.get("loss"), int | float)]
    if len(steps) < 2:
        return []
    labels = [f"{step.get('change', '')} {', '.join(map(str, step.get('tasks', ())))}".strip() for step in steps]
    losses = [float(step["loss"]) for step in steps]
    rows = [(f"{n}", label, fixed(loss)) for n, (label, loss) in enumerate(zip(labels, losses, strict=True), 1)]
    table = Table(("step", "change", "estimated loss"), rows, ("step", "estimated loss"))
    return [Section("Steps of the method", [Curve(losses, labels), table])]


def _edits(manifest: Manifest) -> list[Section]:
    if not manifest.edits:
        return []
    rows = [(edit.task, "in" if edit.selected else "out", edit.by) for edit in manifest.edits]
    return [Section("Edits by hand", [Table(("task", "change", "by"), rows)])]


def _dropped(workspace: Workspace, manifest: Manifest, corpus: Corpus | None) -> list[Section]:
    if not manifest.dropped_examples:
        return []
    keys = {} if corpus is None else {task.name: task.version for task in corpus.tasks}
    texts: dict[str, list[str]] = {}
    rows = []
    for row in manifest.dropped_examples[:_ROWS]:
        version = keys.get(row.task)
        if version is not None and row.task not in texts:
            texts[row.task] = workspace.store.example_texts(version.key).column("text").to_pylist()
        known = version is not None and row.number < len(texts[row.task])
        # In a changed file, the number may mean another row.
        same = known and version is not None and version.index.hashes[row.number] == row.sha256
        text = " ".join(str(texts[row.task][row.number]).split()) if same else ""
        rows.append((row.task, row.place, row.sha256, text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"))
    count = len(manifest.dropped_examples)
    more = f" These are the first {_ROWS}." if count > _ROWS else ""
    words = f"The selection does not train on {count:,} rows of its tasks.{more}"
    return [Section("Dropped examples", [Sentence(words), Table(("task", "place", "hash", "text"), rows)])]


def _notes(manifest: Manifest, notes: Sequence[Note]) -> list[Section]:
    names = {task.name for task in manifest.tasks} | {*manifest.target_names}
    rows = [
        (note.kind, note.name, note.sha256, note.text)
        for note in notes
        if (note.name == manifest.name if note.kind == "selection" else note.name in names)
    ]
    return [Section("Notes", [Table(("about", "name", "hash", "note"), rows)])] if rows else []


def _verified(estimates: TargetEstimates | None) -> list[Block]:
    if estimates is None:
        return [Sentence("The estimates are stale or missing. Run `curator select`, then write the report again.")]
    if not estimates.measured:
        return [Sentence("No subset is measured. `curator verify` fine-tunes on some subsets.")]
    found = verified(estimates)
    dots = [
        Dot(
            name=", ".join(point.subset) or "the target alone",
            estimated=point.estimated_loss,
            low=point.estimated_loss_low,
            high=point.estimated_loss_high,
            measured=point.measured_loss,
        )
        for point in found.points()
    ]
    rows = [
        (fixed(d.measured), fixed(d.estimated), f"{fixed(d.low)} to {fixed(d.high)}", d.name)
        for d in sorted(dots, key=lambda d: d.measured)
    ]
    table = Table(("measured", "estimated", "90 % interval", "subset"), rows, ("measured", "estimated"))
    return [Sentence(_accuracy(found)), Scatter(dots), table]


def _accuracy(found: VerifyReport) -> str:
    """Return the accuracy of the estimates. At least one subset is measured."""
    assert found.relative_error is not None
    assert found.constant_relative_error is not None
    assert found.interval_coverage is not None
    rank = "" if found.spearman is None else f", and the rank correlation is {correlation(found.spearman)}"
    return (
        f"{found.subsets} subsets are measured in {len(found.runs)} runs. The mean error of the estimates is"
        f" {percent(found.relative_error, 2)}, that of a constant guess is"
        f" {percent(found.constant_relative_error, 2)}{rank}."
        f" {percent(found.interval_coverage)} of the measured losses are inside their intervals."
    )


def _settings(manifest: Manifest) -> list[Block]:
    parts: dict[str, Mapping[str, Any]] = {
        "model": manifest.model.model_dump(exclude={"chat_template"}),
        "lora": manifest.lora,
        "train": manifest.train,
        "data": manifest.data,
        "gradients": manifest.gradients,
        "estimate": manifest.estimate,
        "select": {"method": manifest.method} | manifest.options,
    }
    rows = [(f"{part}.{key}", _words(value)) for part, values in parts.items() for key, value in values.items()]
    return [Table(("setting", "value"), [*rows, ("curator", manifest.curator_version), ("created", manifest.created)])]


def _hashes(manifest: Manifest) -> list[Block]:
    files = [(e.name, file) for e in manifest.targets for file in (*e.files, *e.validation_files)]
    files += [(task.name, file) for task in manifest.tasks for file in task.files]
    rows = [(name, file.path, f"{file.rows:,}", file.sha256) for name, file in files]
    return [Table(("task", "file", "rows", "sha256"), rows, ("rows",))]


def _words(value: Any) -> str:
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)
