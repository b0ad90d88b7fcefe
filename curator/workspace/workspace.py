"""`Workspace`: one project folder with its configuration, its store and its reporter. Every stage takes one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from curator.core import distributed
from curator.core.config import Config, target_names
from curator.core.errors import ConfigError, DataError, StoreBusy
from curator.core.events import Reporter
from curator.core.files import CONFIG_NAME, find_project, refuse_links, take_lock
from curator.core.load_config import load_config
from curator.workspace.store.tables import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A project folder and what every stage needs of it.

    Attributes:
        root: Folder that holds `curator.toml`.
        config: The project's configuration.
        store: The project's DuckDB store.
        reporter: Receives progress and warnings.
    """

    root: Path
    config: Config
    store: Store
    reporter: Reporter

    @classmethod
    def open(cls, path: Path | str | None = None, *, reporter: Reporter | None = None) -> Self:
        """Open a project folder.

        Args:
            path: The folder. None searches this folder and its parents for `curator.toml`.
            reporter: Receives progress and warnings.

        Raises:
            ConfigError: No project is found, or its configuration is invalid.
            DataError: `.curator/` holds a symbolic link.
        """
        root = find_project(path)
        refuse_links(root / ".curator")
        return cls(
            root=root,
            config=load_config(root / CONFIG_NAME),
            store=Store(root / ".curator" / "store.duckdb"),
            reporter=reporter or Reporter(),
        )

    @property
    def name(self) -> str:
        """The project's name."""
        return self.config.project.name or self.root.name

    @property
    def folder(self) -> Path:
        """Folder of everything that curator makes: `.curator/`."""
        return self.root / ".curator"

    @property
    def adapters(self) -> Path:
        """Folder of checkpoints and adapters."""
        return self.folder / "adapters"

    def reporting_to(self, reporter: Reporter) -> Self:
        """Return the same workspace with another reporter."""
        return replace(self, reporter=reporter)

    def skipping_bad_rows(self) -> Self:
        """Return the same workspace with `data.bad_rows = "skip"`."""
        data = self.config.data.model_copy(update={"bad_rows": "skip"})
        return replace(self, config=self.config.model_copy(update={"data": data}))

    def targets(self, target: str | Sequence[str] | None = None, *, needed: bool = True) -> tuple[str, ...]:
        """Return the names of the targets.

        Args:
            target: One or several names; None or an empty value takes those of the configuration.
            needed: Whether a missing target is an error.

        Raises:
            ConfigError: No target is named, and one is needed.
        """
        targets = target_names(target) or self.config.data.targets
        if needed and not targets:
            raise ConfigError(
                "no target task is named", hint="Set `target` under [data] in curator.toml, or pass --target."
            )
        return targets

    @contextmanager
    def job(self, stage: str) -> Iterator[None]:
        """Hold the lock that keeps two processes from the same long work on one project.

        Args:
            stage: Name of the stage, for the message that another process shows.

        Raises:
            StoreBusy: Another process holds the lock.
            DataError: The lock file cannot be made.
        """
        if not distributed.is_main():
            yield
            return
        path = self.folder / "job.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(f"{path}: cannot be made: {error}", hint="Is the disk full or read-only?") from error
        try:
            if not take_lock(descriptor, path):
                holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace") or "another process"
                raise StoreBusy(
                    f"{self.root}: {holder} is at work on this project",
                    hint="Wait for it, or stop it: what it has done is kept.",
                )
            # A full disk raises its error where something is lost by it.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} (stage {stage})".encode(), 0)
            yield
        finally:
            os.close(descriptor)
