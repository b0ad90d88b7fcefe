"""Write and read notes on tasks, examples and selections."""

from curator import results
from curator.core.errors import ConfigError, DataError
from curator.core.text import is_text
from curator.data.corpus import read_corpus
from curator.workspace.store.notes import Kind
from curator.workspace.workspace import Workspace

_WAYS = "Use --task T, --task T --example HASH, or --selection NAME."


def note(
    workspace: Workspace, text: str | None, *, task: str = "", example: str = "", selection: str = ""
) -> results.NotesReport:
    """Write or read notes. Arguments and errors are those of `Project.note`."""
    if (selection and (task or example)) or (example and not task) or (text is not None and not (task or selection)):
        raise ConfigError("the names do not name one task, example or selection", hint=_WAYS)
    if not all(is_text(word) for word in (text or "", task, example, selection)):
        raise ConfigError("a note or a name is not valid UTF-8", hint="Write it in UTF-8.")
    kind: Kind = "selection" if selection else "example" if example else "task"
    about = (kind, selection or task, example)
    if text is not None:
        _check(workspace, *about)
        workspace.store.put_note(*about, text.strip())
    found = workspace.store.notes()
    if task or selection:
        found = [kept for kept in found if (kept.kind, kept.name, kept.sha256) == about]
    return results.NotesReport(
        notes=tuple(
            results.NoteEntry(
                kind=kept.kind,
                name=kept.name,
                sha256=kept.sha256,
                text=kept.text,
                made=f"{kept.made:%Y-%m-%dT%H:%M:%SZ}",
            )
            for kept in found
        )
    )


def _check(workspace: Workspace, kind: Kind, name: str, example: str) -> None:
    """Check that a task, an example or a selection exists.

    Raises:
        ConfigError: It does not exist.
        DataError: Files are not read yet.
    """
    if kind == "selection":
        names = sorted({kept.name for kept in workspace.store.selections()})
        if name not in names:
            hint = f"Use one of: {', '.join(names)}." if names else "Run `curator select` first."
            raise ConfigError(f"unknown selection: {name!r}", hint=hint)
        return
    corpus = read_corpus(workspace, workspace.config.data.targets, read=False)
    if corpus is None:
        raise DataError("new or changed files are not read yet", hint="Run `curator check`.")
    task = next((task for task in corpus.tasks if task.name == name), None)
    if task is None:
        raise ConfigError(f"unknown task: {name!r}", hint="List the tasks with `curator check`.")
    if example and example not in task.version.index.hashes:
        raise ConfigError(
            f"no example of task {name!r} has the hash {example!r}",
            hint=f"List the hashes with `curator examples {name} --json`.",
        )
