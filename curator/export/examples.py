"""Read the rows of an export from the files in the manifest, and encode them as curator trains on them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator.core.errors import ConfigError, CuratorError, DataError, ManifestMismatch
from curator.core.file_states import FileChanged
from curator.core.files import located
from curator.core.provenance import hash_of
from curator.data.bad_rows import rows_refusal
from curator.data.left_out import TEST, VALIDATION
from curator.data.rows import Row, content_hash, is_empty
from curator.data.task_rows import read_task
from curator.data.tokens import Encoded, Encoder
from curator.export.allowed_files import AllowedPlaces, row_source, validation_source
from curator.export.format import Entry, Plan, PlannedTask
from curator.export.forms import PLAIN, TOKENS, Encoding, Form, is_faithful
from curator.export.plan import dropped, weigh
from curator.export.sections import data_of, model_of
from curator.export.spool import Spool
from curator.select.manifest import TargetEntry, TaskFile

if TYPE_CHECKING:
    from curator.core.events import Reporter


@dataclass(slots=True)
class _Read:
    """Number of rows and tokens of one task."""

    available: int
    """Rows that may be trained on."""
    tokens: list[int] | None
    """Tokens of each row. None without a tokenizer."""


def read_plan(plan: Plan, *, allow_changed: bool, places: AllowedPlaces | None, reporter: "Reporter | None") -> Plan:
    """Read and encode all rows, count rows and tokens, and choose the first form that is faithful to every row.

    Args:
        plan: From `first_plan`.
        allow_changed: Accept a hub data set that has changed.
        places: Places that the model may have. None for any.
        reporter: Receives the progress.

    Returns:
        The completed plan, with its rows in a spool.

    Raises:
        ConfigError: The trainer does not train encoder–decoders, and the model is an encoder–decoder.
        DataError: Rows or the tokenizer cannot be read, or the spool cannot be written.
        ManifestMismatch: A hub data set has changed.
    """
    encoding = _encoding(plan, allow_changed=allow_changed, places=places)
    spool = Spool(plan.folder)
    try:
        return _read_into(spool, replace(plan, allow_changed=allow_changed, encoding=encoding, spool=spool), reporter)
    except BaseException:
        spool.close()
        raise


def _read_into(spool: Spool, plan: Plan, reporter: "Reporter | None") -> Plan:
    stage = None if reporter is None else reporter.stage("export", len(plan.tasks), "tasks")
    candidates = [form for form in plan.format.forms if form is not PLAIN]
    differing = [0] * len(candidates)

    def add(part: PlannedTask, rows: list[Row]) -> _Read:
        if plan.encoding is None:
            spool.add(part.stem, ((row, None) for row in rows))
            return _Read(len(rows), None)
        tokens: list[int] = []
        spool.add(part.stem, _encoded(rows, plan.encoding, candidates, differing, tokens))
        return _Read(len(rows), tokens)

    # The held-out rows of all targets come first: no training row may equal one of them.
    targets = {task.entry.name: read_rows(plan, task.entry) for task in plan.tasks if _is_target(task)}
    held_out = {part.stem: held_out_rows(plan, part, targets[part.entry.name]) for part in plan.validation}
    hashes = {row.hash for rows in held_out.values() for row in rows}
    validation = []
    for part in plan.validation:
        count = add(part, held_out.pop(part.stem)).available
        validation.append(replace(part, available=count, rows=count))
    seen, equal = [], []
    for task in plan.tasks:
        name = task.entry.name
        rows = kept_rows(plan, task, targets.pop(name) if _is_target(task) else read_rows(plan, task.entry))
        kept = [row for row in rows if row.hash not in hashes] if hashes else rows
        if len(kept) < len(rows):
            equal.append(f"{name}: {len(rows) - len(kept):,} rows equal held-out rows and are left out")
        seen.append(add(task, kept))
        if stage is not None:
            stage.advance()
    if stage is not None:
        stage.finish(f"{sum(read.available for read in seen):,} rows")
    chosen, missing = PLAIN, None
    for form, count in zip(candidates, differing, strict=True):
        chosen, missing = form, count
        if not count:
            break
    plan = replace(plan, form=chosen, rows_differing=missing, tasks=_weigh(plan, seen), validation=tuple(validation))
    tasks = tuple(replace(task, native=_is_native(plan, chosen, task)) for task in plan.tasks)
    plan = replace(plan, tasks=tuple(_counted(task, read) for task, read in zip(tasks, seen, strict=True)))
    return replace(plan, notes=(*plan.notes, *_notes(plan), *equal, *plan.format.notes(plan)))


def _is_target(task: PlannedTask) -> bool:
    return isinstance(task.entry, TargetEntry)


def _encoded(
    rows: Sequence[Row], encoding: Encoding, candidates: Sequence[Form], differing: list[int], tokens: list[int]
) -> Iterator[tuple[Row, Encoded]]:
    """Yield each row with its tokens. Add its length to `tokens`, and the forms that change it to `differing`."""
    for row in rows:
        encoded = encode(row, encoding)
        tokens.append(len(encoded.input_ids))
        for n, form in enumerate(candidates):
            # A form that has failed is out. Only the last form is used although it fails.
            if form is not TOKENS and (n == len(candidates) - 1 or not differing[n]):
                differing[n] += not is_faithful(form, row.content, encoded, encoding)
        yield row, encoded


def read_rows(plan: Plan, entry: Entry) -> list[Row]:
    """Read all rows of a task in their order, including rows that are not trained on.

    Raises:
        DataError: The rows cannot be read.
        ManifestMismatch: The hub data set of the rows has changed, or the manifest counts other rows.
    """
    rows = read_task(row_source(entry, plan.here), keep_bad=True, hashes=_known(plan, entry.files))
    _check_count(plan, entry, entry.files, rows)
    if entry.source.get("hub") and not plan.allow_changed:
        found = hash_of(content_hash(row.content) for row in rows)
        if found != entry.files[0].sha256:
            raise ManifestMismatch(
                f"task {entry.name!r}: {entry.source['hub']} has changed: {entry.files[0].sha256[:12]} in the"
                f" manifest, {found[:12]} now",
                hint="Run `curator select` again, or pass --allow-changed.",
            )
    return rows


def _check_count(plan: Plan, entry: Entry, files: Sequence[TaskFile], rows: Sequence[Row]) -> None:
    """Check the number of rows. The manifest leaves rows out by number, so other rows would be left out."""
    counted = sum(file.rows for file in files)
    if counted != len(rows) and not plan.allow_changed:
        raise ManifestMismatch(
            f"task {entry.name!r}: the manifest counts {counted:,} rows in its files, and {len(rows):,} are read",
            hint="Run `curator select` again, or pass --allow-changed.",
        )


def _known(plan: Plan, files: Sequence[TaskFile]) -> dict[str, str] | None:
    """Return the hash that each file must have, by its place. None if changed files are allowed."""
    return None if plan.allow_changed else {str(located(file.path, plan.here)): file.sha256 for file in files}


def kept_rows(plan: Plan, task: PlannedTask, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a task that may be trained on.

    Args:
        plan: The plan.
        task: The task.
        rows: All rows of the task.

    Raises:
        DataError: A row that may be trained on is invalid.
    """
    out = dropped(task.entry)
    kept = [row for row in rows if row.number not in out]
    # In a changed file, another number may hold a row that the selection drops.
    hashes = {row.sha256 for row in plan.manifest.dropped_examples if row.task == task.entry.name}
    return _checked([row for row in kept if row.hash not in hashes] if hashes else kept, task)


def held_out_rows(plan: Plan, part: PlannedTask, rows: Sequence[Row]) -> list[Row]:
    """Return the held-out rows of a target.

    Args:
        plan: The plan.
        part: Entry of `plan.validation`.
        rows: All rows of the target. They hold the held-out rows, unless the target has validation files.

    Raises:
        DataError: The validation files cannot be read, or a held-out row is invalid.
        ManifestMismatch: The manifest counts other rows in the validation files.
    """
    entry = part.entry
    assert isinstance(entry, TargetEntry)
    source = validation_source(entry, plan.here)
    if source is None:
        numbers = set(entry.left_out[VALIDATION])
        return _checked([row for row in rows if row.number in numbers], part)
    found = read_task(source, keep_bad=True, hashes=_known(plan, entry.validation_files))
    _check_count(plan, entry, entry.validation_files, found)
    if entry.validation_left_out is None:
        # An early version of curator did not record which rows were used.
        return [row for row in found if not row.problem and not is_empty(row.content) and _carries_loss(row, plan)]
    unused = set(entry.validation_left_out)
    return _checked([row for row in found if row.number not in unused], part)


def _carries_loss(row: Row, plan: Plan) -> bool:
    """Return whether any token of a row carries loss. Without a tokenizer, assume so."""
    return plan.encoding is None or encode(row, plan.encoding).completion_tokens > 0


def _checked(rows: list[Row], task: PlannedTask) -> list[Row]:
    bad = [row for row in rows if row.problem]
    if bad:
        raise rows_refusal(bad, len(rows), f"task {task.entry.name!r}", skippable=False)
    return rows


def encode(row: Row, encoding: Encoding) -> Encoded:
    """Encode a row as curator trains on it.

    Raises:
        DataError: The row does not suit the model, for example a chat without a chat template.
    """
    try:
        return encoding.encoder.encode(row.content)
    except DataError as error:
        raise DataError(f"{row.place}: {error.message}", hint=error.hint) from error


def _encoding(plan: Plan, *, allow_changed: bool, places: AllowedPlaces | None) -> Encoding | None:
    """Load the tokenizer, if rows must be encoded to write them or to count their tokens."""
    needed = bool(plan.format.trainer)
    if not needed and not allow_changed and not any(task.about for task in plan.tasks):
        return None
    from curator.data.model_files import find_tokenizer, load_architecture, load_tokenizer

    section = model_of(plan.manifest)
    try:
        download = places is None or places.check_model(section)
        folder = find_tokenizer(section, plan.here, download=download)
        architecture = load_architecture(folder, section)
        tokenizer = load_tokenizer(folder, section, plan.manifest.model.chat_template)
        if not allow_changed:
            _check_tokenizer(plan, folder)
    except ManifestMismatch:
        raise
    except CuratorError as error:
        if not needed:
            return None
        raise DataError(
            f"{plan.format.name} needs the tokenizer of {section.name_or_path!r}: {error.message}",
            hint=f"{error.hint} Or export jsonl, parquet or hf.",
        ) from error
    encoder_decoder = bool(architecture.is_encoder_decoder)
    if encoder_decoder and needed:
        raise ConfigError(
            f"{plan.format.trainer} trains causal models only: {section.name_or_path!r} is an encoder–decoder",
            hint="Export jsonl, parquet or hf.",
        )
    length = data_of(plan.manifest).max_length
    encoder = Encoder(tokenizer, max_length=length, encoder_decoder=encoder_decoder)
    names = architecture.architectures or [""]
    return Encoding(tokenizer, encoder, length, architecture=names[0])


def _check_tokenizer(plan: Plan, folder: Path) -> None:
    """Check that a local tokenizer is that of the selection. Of a hub model, fewer files may be in the cache.

    Raises:
        ManifestMismatch: A file has changed.
    """
    from curator.data.model_files import ModelFiles, check_tokenizer

    model = plan.manifest.model
    if not model.tokenizer_sha256 or not (plan.here / model.name_or_path).is_dir():
        return
    wanted = ModelFiles(
        folder=folder, sha256="", tokenizer_sha256=model.tokenizer_sha256, chat_template=model.chat_template
    )
    try:
        check_tokenizer(wanted)
    except FileChanged as error:
        raise ManifestMismatch(
            f"the tokenizer or the configuration of model {model.name_or_path!r} has changed since the selection",
            hint="Run `curator select` again, or pass --allow-changed.",
        ) from error


def _weigh(plan: Plan, seen: Sequence[_Read]) -> tuple[PlannedTask, ...]:
    tasks = [replace(task, available=read.available) for task, read in zip(plan.tasks, seen, strict=True)]
    return weigh(tasks)


def _is_native(plan: Plan, form: Form, task: PlannedTask) -> bool:
    shards = plan.format.data_file_of(form).folder
    return task.rows not in (0, task.available) and not shards and plan.format.samples(task)


def _counted(task: PlannedTask, read: _Read) -> PlannedTask:
    if read.tokens is None:
        return task
    if task.native:
        # The trainer draws the sample. Only the tokens of whole copies are known.
        exact = task.rows % max(task.available, 1) == 0
        tokens = sum(read.tokens) * task.rows / max(task.available, 1)
        return replace(task, tokens=round(tokens), about=not exact)
    return replace(task, tokens=sum(read.tokens[n] for n in task.sample(task.available)), about=False)


def _notes(plan: Plan) -> Iterator[str]:
    counts = Counter(row.task for row in plan.manifest.dropped_examples)
    for task in plan.tasks:
        if count := counts[task.entry.name]:
            rows = "1 row is" if count == 1 else f"{count:,} rows are"
            yield f"{task.entry.name}: {rows} dropped from the selection"
    for task in plan.tasks:
        if count := len(task.entry.left_out.get(TEST, ())):
            yield f"{task.entry.name}: no file holds the test part (rows: {count:,})"
    for task in plan.tasks:
        if not task.available:
            yield f"{task.entry.name}: all rows are left out, so that it has no file"
        elif not task.rows:
            yield f"{task.entry.name}: a weight of {task.weight:g} leaves no rows and no file"
    weighted = [task for task in plan.training if task.weight != 1.0]
    made = [task.entry.name for task in weighted if not task.native]
    if made:
        yield f"the files hold the weights, as a seeded sample or as repeated rows: {', '.join(made)}"
    if any(task.native for task in weighted):
        names = ", ".join(task.entry.name for task in weighted if task.native)
        yield f"the config holds the weights, and {plan.format.trainer} draws the sample: {names}"
    if not plan.format.trainer:
        return
    if len(plan.held_out) > 1:
        yield (
            f"several targets: {plan.format.trainer} reports one mean over all held-out rows; curator weighs the"
            " targets' means by target_weights"
        )
    if plan.rows_differing:
        total = sum(task.available for task in (*plan.tasks, *plan.validation))
        yield (
            f"not faithful: {plan.format.trainer} reads {plan.rows_differing:,} of {total:,} rows with other tokens or"
            " another loss than curator, and has no form without a difference"
        )
    elif plan.form is TOKENS and len(plan.format.forms) > 1:
        yield (
            f"rows are token ids: {plan.format.trainer} would read the text of some rows with other tokens or another"
            " loss"
        )
    elif plan.form is TOKENS:
        yield f"rows are token ids, the only form that {plan.format.trainer} always reads as curator does"
