"""Read the rows of an export from the files in the manifest, and encode them as curator trains on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curator.core.errors import ConfigError, CuratorError, DataError, ManifestMismatch
from curator.core.files import located
from curator.core.provenance import hash_of
from curator.data.bad_rows import rows_refusal
from curator.data.rows import Row, content_hash
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoded, Encoder
from curator.export.format import Plan, PlannedTask
from curator.export.forms import PLAIN, TOKENS, Encoding, Form, is_faithful
from curator.export.plan import dropped, weigh
from curator.export.recipe import max_length_of, model_section
from curator.export.spool import Spool

if TYPE_CHECKING:
    from curator.core.events import Reporter


@dataclass(slots=True)
class _Read:
    """Number of rows and tokens of one task."""

    available: int
    """Rows that may be trained on."""
    tokens: list[int] | None
    """Tokens of each row. None without a tokenizer."""


def read_plan(plan: Plan, *, allow_changed: bool, reporter: "Reporter | None") -> Plan:
    """Read and encode all rows, count rows and tokens, and choose the first form that is faithful to every row.

    Args:
        plan: From `first_plan`.
        allow_changed: Accept a hub data set that has changed.
        reporter: Receives the progress.

    Returns:
        The completed plan, with its rows in a spool.

    Raises:
        ConfigError: The trainer does not train encoder–decoders, and the model is an encoder–decoder.
        DataError: Rows or the tokenizer cannot be read, or the spool cannot be written.
        ManifestMismatch: A hub data set has changed.
    """
    encoding = _encoding(plan, allow_changed=allow_changed)
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
    seen = []
    for task in plan.tasks:
        rows = kept_rows(plan, task)
        if plan.encoding is None:
            seen.append(_Read(len(rows), None))
            spool.add(task.entry.name, ((row, None) for row in rows))
        else:
            tokens: list[int] = []
            spool.add(task.entry.name, _encoded(rows, plan.encoding, candidates, differing, tokens))
            seen.append(_Read(len(rows), tokens))
        if stage is not None:
            stage.advance()
    if stage is not None:
        stage.finish(f"{sum(read.available for read in seen):,} rows")
    chosen, missing = PLAIN, None
    for form, count in zip(candidates, differing, strict=True):
        chosen, missing = form, count
        if not count:
            break
    plan = replace(plan, form=chosen, rows_differing=missing, tasks=_weigh(plan, seen))
    tasks = tuple(replace(task, native=_is_native(plan, chosen, task)) for task in plan.tasks)
    plan = replace(plan, tasks=tuple(_counted(task, read) for task, read in zip(tasks, seen, strict=True)))
    return replace(plan, notes=(*_notes(plan), *plan.format.notes(plan)))


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


def kept_rows(plan: Plan, task: PlannedTask) -> list[Row]:
    """Read the rows of a task that may be trained on, in their order.

    Raises:
        DataError: The rows cannot be read, or some are invalid.
        ManifestMismatch: The hub data set of the rows has changed.
    """
    entry = task.entry
    files = [located(file.path, plan.here) for file in entry.files]
    rows = read_task(Source.described(entry.name, entry.source, files), keep_bad=True)
    if entry.source.get("hub") and not plan.allow_changed:
        found = hash_of(content_hash(row.content) for row in rows)
        if found != entry.files[0].sha256:
            raise ManifestMismatch(
                f"task {entry.name!r}: {entry.source['hub']} has changed: {entry.files[0].sha256[:12]} in the"
                f" manifest, {found[:12]} now",
                hint="Run `curator select` again, or pass --allow-changed.",
            )
    out = dropped(entry)
    kept = [row for row in rows if row.number not in out]
    bad = [row for row in kept if row.problem]
    if bad:
        raise rows_refusal(bad, len(kept), f"task {entry.name!r}")
    return kept


def encode(row: Row, encoding: Encoding) -> Encoded:
    """Encode a row as curator trains on it.

    Raises:
        DataError: The row does not suit the model, for example a chat without a chat template.
    """
    try:
        return encoding.encoder.encode(row.content)
    except DataError as error:
        raise DataError(f"{row.place}: {error.message}", hint=error.hint) from error


def _encoding(plan: Plan, *, allow_changed: bool) -> Encoding | None:
    """Load the tokenizer, if rows must be encoded to write them or to count their tokens."""
    needed = bool(plan.format.trainer)
    if not needed and not allow_changed and not any(task.about for task in plan.tasks):
        return None
    from curator.data.model_files import find_tokenizer, load_architecture, load_tokenizer

    section = model_section(plan)
    try:
        folder = find_tokenizer(section, plan.here)
        architecture = load_architecture(folder, section)
        tokenizer = load_tokenizer(folder, section)
    except CuratorError as error:
        if not needed:
            return None
        raise DataError(
            f"{plan.format.name} needs the tokenizer of {section.name_or_path!r}: {error.message}",
            hint="Export on a machine that has the model, or export jsonl, parquet or hf.",
        ) from error
    encoder_decoder = bool(architecture.is_encoder_decoder)
    if encoder_decoder and needed:
        raise ConfigError(
            f"{plan.format.trainer} trains causal models only: {section.name_or_path!r} is an encoder–decoder",
            hint="Export jsonl, parquet or hf.",
        )
    length = max_length_of(plan)
    encoder = Encoder(tokenizer, max_length=length, encoder_decoder=encoder_decoder)
    names = architecture.architectures or [""]
    return Encoding(tokenizer, encoder, length, architecture=names[0])


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
    for task in plan.tasks:
        if not task.rows:
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
    if plan.rows_differing:
        total = sum(task.available for task in plan.tasks)
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
