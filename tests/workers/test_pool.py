"""Places where parts run, without Ray: order, errors, retries, and what a worker must not do."""

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject

import curator
from curator.core.errors import ConfigError, DataError
from curator.core.events import Event, Note
from curator.workers.gpu_pool import GpuPool
from curator.workers.opening import open_pool
from curator.workers.pool import Perform, Report, ThisProcess, in_order
from curator.workspace.store.held import HeldExamples

Parts = list[tuple[int, int]]


@dataclass(frozen=True)
class Squares:
    """Square numbers. A part is a number and the folder where the first try leaves a file and dies."""

    key: str = "squares"

    def start(self, load: Any) -> Perform:
        def square(part: tuple[int, Path | None], report: Report) -> int:
            number, folder = part
            report(Note(message=f"part {number} with device {os.environ.get('CUDA_VISIBLE_DEVICES')}"))
            if folder is not None and not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if number < 0:
                raise DataError(f"no root of {number}", hint="Use a positive number.")
            return number**2

        return square

    def without_store(self) -> "Squares":
        return self


def test_gpu_pool_killed_process_is_started_again(tmp_path: Path) -> None:
    events: list[tuple[int, Event]] = []
    parts = [(3, None), (4, tmp_path), (5, None), (6, None)]
    found = list(in_order(GpuPool(["7", "8"]).run(Squares(), parts, lambda n, e: events.append((n, e)))))
    assert found == [(0, 9), (1, 16), (2, 25), (3, 36)]
    messages = [event.message for _, event in events if isinstance(event, Note)]
    assert {message.rpartition(" ")[2] for message in messages} == {"7", "8"}
    assert sum(message.startswith("part 4 ") for message in messages) == 2


def test_gpu_pool_error_of_a_part_arrives_unchanged() -> None:
    with pytest.raises(DataError, match="no root of -2") as raised:
        list(GpuPool([""]).run(Squares(), [(-2, None)], lambda _, __: None))
    assert raised.value.hint == "Use a positive number."


def test_in_order_results_of_any_order_arrive_in_the_order_of_the_parts() -> None:
    def ended() -> Any:
        yield from [(2, "c"), (0, "a"), (1, "b"), (3, "d")]

    assert list(in_order(ended())) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_held_examples_refuse_to_open_the_store(make_project: MakeProject) -> None:
    project = curator.Project.open(make_project())
    corpus = project.corpus(("target",))
    key = corpus.tasks[0].version.key
    held = pickle.loads(pickle.dumps(HeldExamples.of(project.store, [key], with_texts=[key])))
    assert held.tokens(key) == project.store.tokens(key)
    assert held.example_texts(key).equals(project.store.example_texts(key))
    uses: list[Callable[[], Any]] = [
        lambda: held.artifacts("train"),
        lambda: held.put_artifact("train", "k", {}, {}),
        lambda: held.gradients("k"),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="must not open"):
            use()


def test_open_pool_ray_address_alone_stays_in_this_process(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    project = curator.Project.open(make_project())
    pool = open_pool("", project.config, project._pipeline.load, project.reporter)
    assert isinstance(pool, ThisProcess)


def test_open_pool_ray_under_torchrun_is_refused(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = curator.Project.open(make_project())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes"):
        open_pool("local", project.config, project._pipeline.load, project.reporter)
