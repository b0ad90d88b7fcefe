"""Sums over tasks: computed once, for new tasks only, and independent of the way they were computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curator.core.errors import DataError, StoreBusy
from curator.core.events import Event, Note, Reporter, StageFinished, StageProgress, StageStarted
from curator.data.corpus import Corpus
from curator.estimate.estimator import CheckpointSums
from curator.estimate.points import ExampleGroup, fill_sums, read_points, training_groups
from curator.estimate.task_sums import TaskSums
from curator.gradients.stage import GradientSet, gradient_sets
from curator.project.project import Project
from curator.training.meta_init import find_meta_init
from curator.workspace.store.tables import Store

Drawn = tuple[Project, Corpus, list[GradientSet]]


@pytest.fixture
def drawn(drawn_project: Callable[..., Path]) -> Drawn:
    project = Project.open(drawn_project("12"))
    corpus = project.corpus(project.config.data.targets)
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    sets = gradient_sets(project.config, meta)
    # The state of a project from a version without sums.
    with project.store.write() as connection:
        connection.execute("DELETE FROM statistics")
        connection.execute("DELETE FROM triangles")
    return project, corpus, sets


def _without(corpus: Corpus, *names: str) -> Corpus:
    tasks = tuple(task for task in corpus.tasks if task.name not in names)
    return Corpus(tasks=tasks, targets=corpus.targets, model=corpus.model)


def _points(drawn: Drawn, reporter: Reporter | None = None) -> list[CheckpointSums]:
    project, corpus, sets = drawn
    return read_points(project.workspace.reporting_to(reporter or Reporter()), corpus, sets)


def _follow(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record (gradient set, tasks) of every portion that is summed and stored from now on."""
    stored: list[tuple[str, int]] = []
    real = Store.put_sums

    def put(self: Store, set_key: str, contents: list[str], sums: TaskSums) -> None:
        stored.append((set_key, len(contents)))
        real(self, set_key, contents, sums)

    monkeypatch.setattr(Store, "put_sums", put)
    return stored


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return whether sums of every task are stored."""
    monkeypatch.setattr(ExampleGroup, "is_small", lambda *_: False)


def test_read_points_gives_sums_of_examples(drawn: Drawn) -> None:
    project, corpus, sets = drawn
    for point, gradient_set in zip(_points(drawn), sets, strict=True):
        hashes, _, gradients = project.store.gradients(gradient_set.key)
        of = dict(zip(hashes, gradients.astype(float), strict=True))
        for row, tasks in enumerate([*([task] for task in corpus.auxiliary), corpus.target_tasks]):
            pull = sum(
                task.version.index.completion_tokens[n] * of[task.version.index.token_hashes[n]]
                for task in tasks
                for n in task.split.train
            )
            np.testing.assert_allclose(point.sums.gradient_sums[row], pull, rtol=1e-12, atol=1e-12)
        read = TaskSums.of(point.read(range(len(corpus.auxiliary) + 1)))
        np.testing.assert_array_equal(read.packed_curvatures, point.sums.packed_curvatures)
        np.testing.assert_array_equal(read.examples, point.sums.examples)


@pytest.mark.usefixtures("all_large")
def test_read_points_sums_only_new_tasks(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    project, corpus, sets = drawn
    stored = _follow(monkeypatch)
    first, last = corpus.auxiliary[0].name, corpus.auxiliary[-1].name
    before = _points((project, _without(corpus, last), sets))
    assert stored == [(s.key, len(corpus.auxiliary)) for s in sets], "each task but one, and the target"
    stored.clear()
    after = _points(drawn)
    assert stored == [(s.key, 1) for s in sets]
    stored.clear()
    fewer = _points((project, _without(corpus, first), sets))
    assert not stored
    for old, new, less in zip(before, after, fewer, strict=True):
        np.testing.assert_array_equal(new.sums.packed_curvatures[:-2], old.sums.packed_curvatures[:-1])
        np.testing.assert_array_equal(new.sums.packed_curvatures[-1], old.sums.packed_curvatures[-1])
        np.testing.assert_array_equal(less.sums.packed_curvatures, new.sums.packed_curvatures[1:])
        np.testing.assert_array_equal(less.sums.gradient_sums, new.sums.gradient_sums[1:])


@pytest.mark.usefixtures("all_large")
def test_read_points_small_portions_give_same_sums(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    _, corpus, _ = drawn
    stored = _follow(monkeypatch)
    monkeypatch.setattr("curator.estimate.points._EXAMPLES", 1)
    small = _points(drawn)
    assert {count for _, count in stored} == {1}, "a task that is too large is read alone"
    for point in small:
        read = TaskSums.of(point.read(range(len(corpus.auxiliary) + 1)))
        np.testing.assert_array_equal(read.packed_curvatures, point.sums.packed_curvatures)


def test_read_points_one_pass_gives_same_sums(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many examples are read in the order of the store, each once, and not by their hashes."""
    project, corpus, sets = drawn
    expected, rows = _points(drawn), []
    real = Store.gradients_in

    def read(self: Store, set_key: str, part: range) -> Any:
        rows.append((set_key, part))
        return real(self, set_key, part)

    monkeypatch.setattr("curator.estimate.points._EXAMPLES", 50)
    monkeypatch.setattr(Store, "gradients_in", read)
    monkeypatch.setattr(ExampleGroup, "is_small", lambda *_: True)
    with project.store.write() as connection:
        connection.execute("DELETE FROM statistics")
    events: list[Event] = []
    monkeypatch.setattr("curator.estimate.points._PATIENCE", -1.0)
    found = _points(drawn, Reporter(events.append))
    assert len({key for key, _ in rows}) == len(sets)
    assert all(len(part) <= 50 for _, part in rows)
    assert len(rows) == len(set(rows)), "each row once"
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_array_equal(here.sums.packed_curvatures, there.sums.packed_curvatures)
        np.testing.assert_array_equal(here.sums.gradient_sums, there.sums.gradient_sums)
    progress = [event for event in events if isinstance(event, StageProgress)]
    assert progress[-1].done == progress[-1].total == len(sets) * (len(corpus.auxiliary) + 1)
    assert progress[-1].seconds_left == 0


@pytest.mark.usefixtures("all_large")
def test_read_points_unwritable_store_warns_and_continues(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise StoreBusy("held by another process")

    events: list[Event] = []
    with monkeypatch.context() as patched:
        patched.setattr(Store, "put_sums", busy)
        unsaved = _points(drawn, Reporter(events.append))
    assert [event.message for event in events if isinstance(event, Note)] == [
        "cannot store sums over tasks: held by another process"
    ]
    for there, here in zip(_points(drawn), unsaved, strict=True):
        np.testing.assert_array_equal(here.sums.packed_curvatures, there.sums.packed_curvatures)
        np.testing.assert_array_equal(here.sums.weights, there.sums.weights)


def test_fill_sums_stores_only_sums_smaller_than_gradients(drawn: Drawn) -> None:
    project, corpus, sets = drawn
    dim = project.config.gradients.projection_dim
    groups = training_groups(corpus)
    points = _points(drawn)
    large = {g.content for g in groups if len(g.hashes) * dim > dim * (dim + 1) / 2}
    assert 0 < len(large) < len(groups), "both kinds are here"
    for gradient_set in sets:
        assert project.store.stored_sums(gradient_set.key) == large
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExampleGroup, "is_small", lambda *_: False)
        stored = _points(drawn)
    assert project.store.stored_sums(sets[0].key) == {g.content for g in groups}
    for here, there in zip(points, stored, strict=True):
        np.testing.assert_array_equal(here.sums.packed_curvatures, there.sums.packed_curvatures)
        np.testing.assert_array_equal(here.sums.gradient_sums, there.sums.gradient_sums)
        np.testing.assert_array_equal(here.sums.weights, there.sums.weights)


@pytest.mark.usefixtures("all_large")
def test_read_points_recomputes_sums_dropped_meanwhile(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.sums

    def dropped(self: Store, set_key: str, contents: list[str], dim: int) -> TaskSums:
        with self.write() as connection:
            connection.execute("DELETE FROM statistics")
        return real(self, set_key, contents, dim)

    expected = _points(drawn)
    monkeypatch.setattr(Store, "sums", dropped)
    for here, there in zip(_points(drawn), expected, strict=True):
        np.testing.assert_array_equal(here.sums.packed_curvatures, there.sums.packed_curvatures)


@pytest.mark.usefixtures("all_large")
def test_read_points_reads_examples_on_demand(drawn: Drawn) -> None:
    project, corpus, sets = drawn
    (first, *_) = _points(drawn)
    (target,) = first.read([len(corpus.auxiliary)])
    assert len(target.losses) == sum(len(task.split.train) for task in corpus.target_tasks)
    with project.store.write() as connection:
        connection.execute("DELETE FROM gradients WHERE token_hash = ?", [corpus.auxiliary[0].train_hashes[0]])
    with pytest.raises(DataError, match="gradients of 1 examples are not stored"):
        first.read([0])
    # Stored sums identify a task, so its examples are not needed.
    _points(drawn)
    project.store.drop_gradients([s.key for s in sets])
    with pytest.raises(DataError, match="not stored"):
        fill_sums(project.workspace, corpus, sets)


def test_fill_sums_slow_work_shows_progress(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    _, corpus, sets = drawn
    _points(drawn)
    events: list[Event] = []
    monkeypatch.setattr("curator.estimate.points._EXAMPLES", 50)
    monkeypatch.setattr("curator.estimate.points._PATIENCE", 600.0)
    _points(drawn, Reporter(events.append))
    assert not events, "a moment is not worth a word"
    monkeypatch.setattr("curator.estimate.points._PATIENCE", -1.0)
    monkeypatch.setattr("curator.core.events.Stage._interval", 0.0)
    _points(drawn, Reporter(events.append))
    (begun,) = [event for event in events if isinstance(event, StageStarted)]
    done = [event.done for event in events if isinstance(event, StageProgress)]
    assert done == sorted(done)
    assert done[-1] == begun.total == len(sets) * (len(corpus.auxiliary) + 1)
    (finished,) = [event for event in events if isinstance(event, StageFinished)]
    assert finished.summary.endswith(" sums over tasks")


def test_example_group_content_depends_on_examples_only(drawn: Drawn) -> None:
    _, corpus, _ = drawn
    contents = [group.content for group in training_groups(corpus)]
    assert len(set(contents)) == len(contents)
