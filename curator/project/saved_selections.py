"""List, rename, delete and restore the saved selections of a project.

A deleted selection stays in the store until it is restored. Measured losses belong to subsets of tasks, so they stay.
"""

from dataclasses import replace

from curator import results
from curator.core.config import target_label
from curator.core.errors import ConfigError
from curator.core.provenance import key_of
from curator.core.text import is_text
from curator.results.base import rounded
from curator.select.manifest import stored_manifest
from curator.workspace.store.records import StoredSelection
from curator.workspace.workspace import Workspace


def saved_selections(workspace: Workspace) -> results.SavedSelectionsReport:
    """Return the selections of all targets, newest first, then the deleted ones. Of each name, only the newest."""
    store = workspace.store
    notes = {note.name: note.text for note in store.notes() if note.kind == "selection"}
    found: dict[tuple[str, str, bool], results.SavedSelectionEntry] = {}
    kept = [(selection, False) for selection in store.selections()]
    for selection, deleted in [*kept, *((selection, True) for selection, _ in store.deleted_selections())]:
        about = selection.name, selection.target, deleted
        if about not in found:
            manifest = stored_manifest(selection.manifest)
            found[about] = results.SavedSelectionEntry(
                name=selection.name,
                target=selection.target,
                method=selection.method,
                tasks=sum(task.selected for task in manifest.tasks),
                estimated_loss=rounded(selection.loss),
                measured_loss=manifest.measured_loss,
                note=notes.get(selection.name, ""),
                created=f"{selection.created:%Y-%m-%dT%H:%M:%SZ}",
                deleted=deleted,
            )
    return results.SavedSelectionsReport(selections=tuple(found.values()))


def rename_selection(workspace: Workspace, before: str, after: str, targets: tuple[str, ...]) -> None:
    """Rename a selection. Arguments and errors are those of `Project.rename_selection`."""
    target = target_label(targets)
    after = after.strip()
    if not after or not is_text(after):
        raise ConfigError(f"not a name of a selection: {after!r}", hint="Name it with at least one character of UTF-8.")
    there = _named(workspace, before, target)
    if after == before:
        return
    if any(kept.name == after for kept in workspace.store.selections()):
        raise ConfigError(f"a selection is already named {after!r}", hint="Use another name, or delete that selection.")
    renamed = []
    for kept in there:
        artifact = workspace.store.artifact("select", kept.key)
        # The same request under the new name then finds this selection.
        inputs = ({} if artifact is None else artifact.inputs) | {"name": after}
        manifest = stored_manifest(kept.manifest).model_copy(update={"name": after})
        key = key_of(inputs if artifact is not None else inputs | {"renamed": kept.key})
        outputs = {"selected": [task.name for task in manifest.tasks if task.selected]}
        renamed.append(
            (kept.key, replace(kept, key=key, name=after, manifest=manifest.model_dump_json()), inputs, outputs)
        )
    workspace.store.rename_selections(renamed, before)


def delete_selection(workspace: Workspace, name: str, targets: tuple[str, ...]) -> None:
    """Delete a selection. Arguments and errors are those of `Project.delete_selection`."""
    target = target_label(targets)
    _named(workspace, name, target)
    workspace.store.delete_selections(name, target)


def restore_selection(workspace: Workspace, name: str, targets: tuple[str, ...]) -> None:
    """Restore a deleted selection. Arguments and errors are those of `Project.restore_selection`."""
    target, store = target_label(targets), workspace.store
    deleted = sorted({kept.name for kept, _ in store.deleted_selections() if kept.target == target})
    if name not in deleted:
        hint = f"Use one of: {', '.join(deleted)}." if deleted else "List the selections with `curator selections`."
        raise ConfigError(f"no deleted selection is named {name!r}", hint=hint)
    if any(kept.name == name and kept.target == target for kept in store.selections()):
        raise ConfigError(f"a selection is already named {name!r}", hint="Rename that selection first.")
    store.restore_selections(name, target)


def _named(workspace: Workspace, name: str, target: str) -> list[StoredSelection]:
    """Return the selections with a name, newest first. An earlier one with the same name is hidden.

    Raises:
        ConfigError: The target has no selection with this name.
    """
    every = [kept for kept in workspace.store.selections() if kept.target == target]
    found = [kept for kept in every if kept.name == name]
    if not found:
        names = sorted({kept.name for kept in every})
        hint = f"Use one of: {', '.join(names)}." if names else "Run `curator select` first."
        raise ConfigError(f"unknown selection: {name!r}", hint=hint)
    return found
