"""Export a saved selection: format, folder, preview, and the equivalent command."""

import json
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from curator.core.errors import CuratorError, DataError
from curator.core.files import read_whole_text
from curator.export import FORMATS, export, plan_export
from curator.results.outputs import ExportReport
from curator.select.manifest import is_same_selection
from tui.dialogs.base import Choices, Dialog
from tui.dialogs.confirm import ConfirmDialog
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

_SHOWN_TASKS = 3
# Largest record of an export that is read, in bytes.
_LARGEST = 2**26


class ExportDialog(Dialog[None]):
    """Asks for format and folder, previews the files, and writes the files.

    Args:
        name: Name of the saved selection.
    """

    title_text = "export"
    keys = (("↑↓", "format"), ("tab", "folder"), ("enter", "export"), ("f3", "copy"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f3", "copy", "copy command", show=False)]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._selection = name
        self._plan: ExportReport | None = None

    def content(self) -> Iterable[Widget]:
        """Return fields for format and folder, and the preview."""
        assert self.app.snapshot is not None
        saved = self.app.snapshot.selection(self._selection)
        assert saved is not None
        self._manifest = saved.manifest
        chosen = [task for task in saved.manifest.tasks if task.selected]
        examples = sum(task.examples for task in chosen)
        self._given = ""
        return [
            Wrapped(
                [
                    [
                        ("selection ", "dim"),
                        (self._selection, "strong"),
                        f"  {len(chosen)} tasks · {examples:,} examples",
                    ],
                ]
            ),
            Choices(
                [(format, format, words) for format, words in FORMATS.items()], id="formats", classes="first-focus"
            ),
            Horizontal(Lines([["folder  "]]), Input(id="folder"), classes="field"),
            Wrapped([[]], id="fit"),
            Wrapped([[]], id="preview"),
        ]

    def on_mount(self) -> None:
        """Offer the folder of the first format."""
        self._offer()

    @property
    def _folder(self) -> Path:
        return Path(self.query_one("#folder", Input).value.strip()).expanduser()

    @property
    def command(self) -> str:
        """Return the equivalent command."""
        format = self.query_one("#formats", Choices).value
        words = [
            "curator",
            "export",
            self._selection,
            "--format",
            format,
            "-o",
            str(self._folder),
            "-p",
            str(self.app.root),
        ]
        return shlex.join(words)

    @on(Rows.Moved, "#formats")
    def _offer(self) -> None:
        """Offer a folder of the format, unless the user has written another one."""
        field = self.query_one("#folder", Input)
        if field.value == self._given:
            assert self.app.snapshot is not None
            name = f"{_plain(self._selection)}-{self.query_one('#formats', Choices).value}"
            self._given = field.value = str(Path(self.app.snapshot.project.root) / "exports" / name)
        self._check()

    @on(Input.Changed, "#folder")
    def _check(self) -> None:
        assert self.app.snapshot is not None
        root = self.app.snapshot.project.root
        notes: Line
        try:
            if not self.query_one("#folder", Input).value.strip():
                raise CuratorError("name a folder")
            format = self.query_one("#formats", Choices).value
            self._plan = plan_export(self._manifest, root, format=format, folder=self._folder)
            notes = self._fit()
        except (CuratorError, OSError) as error:
            self._plan = None
            notes = [("✗ ", "bad"), (str(error), "bad")]
        self.query_one("#fit", Lines).show([["        ", *notes]])
        self.query_one("#preview", Lines).show(self._preview())

    def _fit(self) -> list[Part]:
        existing = next(
            folder for folder in (self._folder.absolute(), *self._folder.absolute().parents) if folder.exists()
        )
        if not os.access(existing, os.W_OK):
            self._plan = None
            return [("✗ ", "bad"), (f"cannot write to {existing}", "bad")]
        words = "not empty: enter asks before it replaces the files" if self._is_taken else "will be created"
        return [
            ("✓ ", "good"),
            f"writable · {numbers.short(shutil.disk_usage(existing).free)}B free · ",
            (words, "dim"),
        ]

    def _preview(self) -> list[Line]:
        lines: list[Line] = []
        if self._plan is not None:
            tasks = self._plan.tasks
            shown = tasks if len(tasks) <= _SHOWN_TASKS + 1 else tasks[:_SHOWN_TASKS]
            rows, tokens = sum(task.rows for task in tasks), sum(task.tokens for task in tasks)
            exact = all(task.tokens_are_exact for task in tasks)
            lines.append([("preview ", "dim"), f"{self._folder.name}/  {_amount(rows, tokens, exact)}"])
            for task in shown:
                amount = _amount(task.rows, task.tokens, task.tokens_are_exact)
                lines.append([f"        ├ {fit(task.file or task.name, 24)}", (f"  {amount}", "dim")])
            rest = [f"{len(tasks) - len(shown)} more"] if len(shown) < len(tasks) else []
            others = [name for name in self._plan.configs if name != "README.md"]
            lines.append([f"        └ {', '.join([*rest, *others, 'curator-manifest.json'])}"])
        lines.append([("same as ", "dim"), self.command])
        return lines

    def action_copy(self) -> None:
        """Copy the command."""
        self.app.copy_to_clipboard(self.command)
        self.app.flash("sent to the terminal: the command")

    @property
    def _is_taken(self) -> bool:
        return self._folder.exists() and any(self._folder.iterdir())

    @on(Input.Submitted, "#folder")
    @on(Rows.Opened, "#formats")
    def _ask(self) -> None:
        """Write the files. Ask first if they replace others."""
        if self._plan is None:
            return
        if not self._is_taken:
            self._begin(True)
            return
        lines: list[Line] = [
            [("! ", "warn"), f"{self._folder} holds {export_in(self._folder) or 'files'}."],
            ["The new export replaces it, and undo does not bring it back."],
        ]
        self.app.push_screen(ConfirmDialog("replace an export", lines), self._begin)

    def _begin(self, is_sure: bool | None) -> None:
        if is_sure and self._plan is not None:
            self.query_one("#fit", Lines).show([["        ", ("writing …", "dim")]])
            self._export(self.query_one("#formats", Choices).value, self._folder)

    @work(thread=True, exclusive=True, group="export", exit_on_error=False)
    def _export(self, format: str, folder: Path) -> None:
        assert self.app.snapshot is not None
        project = self.app.snapshot.project
        try:
            # Another window may have saved another selection under this name.
            found, here = project.manifest(self._selection)
            if not is_same_selection(found, self._manifest):
                raise DataError(
                    f"{self._selection} was saved again meanwhile",
                    hint="Close this dialog and open it again to see its files.",
                )
            report = export(found, here, format=format, folder=folder, reporter=project.reporter)
        except (CuratorError, OSError) as error:
            hint = getattr(error, "hint", "")
            self.app.call_from_thread(self._failed, f"{error} {hint}")
        else:
            self.app.call_from_thread(self._done, report)

    def _failed(self, words: str) -> None:
        if self.is_attached:
            self.query_one("#fit", Lines).show([["        ", ("✗ ", "bad"), (words, "bad")]])

    def _done(self, report: ExportReport) -> None:
        if report.rows_differing:
            words = f"exported to {report.folder}. {report.rows_differing:,} rows are not faithful: see its README.md"
            self.app.flash(words, "warn")
        else:
            self.app.flash(f"exported {len(report.files)} files to {report.folder}", "good")
        if self.is_attached:
            self.dismiss(None)


def export_in(folder: Path) -> str:
    """Describe the export in a folder: its selection and format; "" if the folder holds no export."""
    try:
        found, manifest = (
            json.loads(read_whole_text(folder / name, most=_LARGEST))
            for name in ("curator-export.json", "curator-manifest.json")
        )
        return f"an export of {manifest['name']} as {found['format']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60] or "selection"


def _amount(rows: int, tokens: int, exact: bool) -> str:
    return f"{rows:,} rows, {'' if exact else 'about '}{tokens:,} tokens"
