"""`Workspace`: a project folder with its configuration, store and reporter. Every stage takes a `Workspace`."""

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
from curator.core.files import CHECK_DISK, CONFIG_NAME, check_results_folder, find_project, take_lock
from curator.core.load_config import load_config
from curator.core.performance import wait_passively
from curator.workspace.store.held import HeldExamples
from curator.workspace.store.tables import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Hold a project folder with its configuration, store and reporter.

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
            DataError: `.curator/` holds a symbolic link, a pipe, a socket or a device.
        """
        # Every use of torch starts with a project, so torch has not loaded yet.
        wait_passively()
        root = find_project(path)
        check_results_folder(root / ".curator")
        return cls(
            root=root,
            config=load_config(root / CONFIG_NAME),
            store=Store(root / ".curator" / "store.duckdb"),
            reporter=reporter or Reporter(),
        )

    @property
    def name(self) -> str:
        """Name of the project: `project.name`, or the name of the folder."""
        return self.config.project.name or self.root.name

    @property
    def folder(self) -> Path:
        """Folder of all results: `.curator/`."""
        return self.root / ".curator"

    @property
    def adapters(self) -> Path:
        """Folder of checkpoints and adapters."""
        return self.folder / "adapters"

    def reporting_to(self, reporter: Reporter) -> Self:
        """Return the same workspace with another reporter."""
        return replace(self, reporter=reporter)

    def away(self, examples: HeldExamples) -> Self:
        """Return the workspace of a worker, which other processes can receive. It has no store and no reporter.

        Args:
            examples: Examples that stand in for the store.
        """
        return replace(self, store=examples, reporter=Reporter())

    @property
    def is_away(self) -> bool:
        """Return whether this is the workspace of a worker."""
        return isinstance(self.store, HeldExamples)

    def skipping_bad_rows(self) -> Self:
        """Return the same workspace with `data.bad_rows = "skip"`."""
        data = self.config.data.model_copy(update={"bad_rows": "skip"})
        return replace(self, config=self.config.model_copy(update={"data": data}))

    def targets(self, target: str | Sequence[str] | None = None, *, needed: bool = True) -> tuple[str, ...]:
        """Return the names of the targets.

        Args:
            target: One or several names. None or an empty value selects the configured targets.
            needed: Whether a missing target is an error.

        Raises:
            ConfigError: No target is named, and one is needed.
        """
        targets = target_names(target) or self.config.data.targets
        if needed and not targets:
            raise ConfigError(
                "no target task is set", hint="Set `target` under [data] in curator.toml, or pass --target."
            )
        return targets

    @contextmanager
    def job(self, stage: str) -> Iterator[None]:
        """Hold the job lock, so that only one process at a time computes stages of the project.

        Args:
            stage: Name of the stage, for the error message of other processes.

        Raises:
            StoreBusy: Another process holds the lock.
            DataError: The lock file cannot be created, or the file system has no locks.
        """
        if not distributed.is_main():
            yield
            return
        path = self.folder / "job.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(f"cannot create {path}: {error}", hint=CHECK_DISK) from error
        try:
            if not take_lock(descriptor, path):
                holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace") or "another process"
                raise StoreBusy(
                    f"project {self.root} is in use: {holder}",
                    hint="Wait for that process, or stop it. Its finished work is kept.",
                )
            # The name of the holder is optional. A full disk is reported where data would be lost.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} (stage {stage})".encode(), 0)
            yield
        finally:
            os.close(descriptor)
