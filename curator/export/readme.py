"""Write the README.md of an export for a trainer."""

from typing import TYPE_CHECKING

from curator.core.text import clean

if TYPE_CHECKING:
    from curator.export.format import Plan

NAME = "README.md"
_EVALUATION = """\
No training file holds a held-out row. After each epoch, {trainer} reports the loss of the held-out rows. This is the
loss that curator estimates: the mean over examples of the mean over the tokens of an example. {trainer} averages over
batches. Keep one example in each evaluation batch, on one device, so that both means are equal."""


def readme(plan: "Plan") -> str:
    """Describe the files of an export, the command that trains, and differences to curator's estimate."""
    assert plan.form is not None
    manifest, format = plan.manifest, plan.format
    targets = ", ".join(_plain(target.name) for target in manifest.targets)
    lines = [
        f"# {_plain(manifest.project)}: {_plain(manifest.name)}, for {format.trainer}",
        "",
        f"Training data selected by curator {manifest.curator_version} for {targets}. In this folder:",
        "",
        f"    {format.command}",
        "",
        f"Rows are written as {plan.form.words}.",
        "",
        "| task | rows | tokens | weight | file |",
        "|---|---:|---:|---:|---|",
    ]
    for task in plan.tasks:
        about = "about " if task.about else ""
        file = plan.file(task) or "-"
        name = _plain(task.entry.name).replace("|", "\\|")
        lines.append(f"| {name} | {task.rows:,} | {about}{task.tokens:,} | {task.weight:g} | {file} |")
    for part in plan.held_out:
        name = _plain(part.entry.name).replace("|", "\\|")
        lines.append(f"| {name}, held out | {part.rows:,} | - | - | {plan.file(part)} |")
    if plan.held_out:
        lines += ["", *_EVALUATION.format(trainer=format.trainer).splitlines()]
    if plan.template:
        lines += ["", f"The project sets a chat template. {plan.template} holds it."]
    if plan.notes:
        lines += ["", *(f"- {_plain(note)}" for note in plan.notes)]
    lines += ["", f"Tested: {format.tested}. curator's docs/reference/export.md describes each trainer.", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return clean(text)
