"""Test that examples are read once, that every row is counted, and that changed files are read again."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject, pair_rows, write_rows

from curator.core.errors import ConfigError, DataError
from curator.core.events import Event, Reporter, StageFinished
from curator.data import task_rows as data
from curator.data.corpus import Corpus, read_corpus, training_examples, validation_examples
from curator.data.left_out import CUT_OFF, EMPTY, LEAKED, VALIDATION
from curator.data.model_files import hash_files
from curator.data.readers import read_file
from curator.project.project import Project


def read(folder: Path, targets: tuple[str, ...] = ("target",), heard: list[Event] | None = None) -> Corpus:
    project = Project.open(folder)
    reporter = Reporter() if heard is None else Reporter(heard.append)
    corpus = read_corpus(project.workspace.reporting_to(reporter), targets)
    assert corpus is not None
    return corpus


def test_read_corpus_every_row_is_train_held_out_or_left_out(make_project: MakeProject) -> None:
    target = pair_rows("target", 10)
    rows: list[dict[str, Any]] = [
        *target,
        *pair_rows("alpha", 3),
        {"prompt": "x", "completion": ""},
        {"prompt": "x " * 99, "completion": "y"},
        {"prompt": "x", "completion": " y" * 99},
    ]
    corpus = read(make_project(tasks={"target": target, "alpha": rows}))
    task, held = corpus.tasks[0], corpus.tasks[1].split.validation
    assert len(held) == 3
    assert {reason: len(numbers) for reason, numbers in task.split.left_out.items()} == {
        LEAKED: 3,
        EMPTY: 1,
        CUT_OFF: 1,
    }
    assert task.split.left_out[LEAKED] == held
    assert len(task.split.train) == len(rows) - 5
    assert task.truncated == 1
    assert sorted(corpus.problems()) == [
        f"alpha: 1 examples left out: {CUT_OFF}",
        f"alpha: 1 examples left out: {EMPTY}",
        "alpha: 1 examples longer than max_length were truncated",
        f"alpha: 3 examples left out: {LEAKED}",
    ]
    assert set(corpus.tasks[1].split.left_out) == {VALIDATION}


def test_read_corpus_unchanged_files_are_not_read_again(make_project: MakeProject) -> None:
    folder = make_project()
    first = read(folder)
    heard: list[Event] = []
    again = read(folder, heard=heard)
    assert heard == []
    assert [t.content for t in again.tasks] == [t.content for t in first.tasks]
    write_rows(folder / "tasks" / "beta.jsonl", pair_rows("beta", 9))
    changed = read(folder, heard=heard)
    assert [e.summary for e in heard if isinstance(e, StageFinished)] == ["9 examples of 1 tasks"]
    assert [t.name for t, u in zip(first.tasks, changed.tasks, strict=True) if t.content != u.content] == ["beta"]
    shutil.copytree(folder, folder.with_name("moved"))
    heard.clear()
    read(folder.with_name("moved"), heard=heard)
    assert heard == [], "a moved project is read again"


def test_read_corpus_new_files_without_read_returns_none(make_project: MakeProject) -> None:
    project = Project.open(make_project())
    assert read_corpus(project.workspace, (), read=False) is None


def test_training_examples_validation_file_gives_tokens_and_labels(make_project: MakeProject) -> None:
    folder = make_project(tasks={"target": pair_rows("target", 5), "alpha": pair_rows("alpha", 2)})
    write_rows(folder / "val" / "v.jsonl", [*pair_rows("other", 3), {"prompt": "p", "completion": ""}])
    with (folder / "curator.toml").open("a") as file:
        file.write('[data.validation_files]\ntarget = "val/v.jsonl"\n')
    project = Project.open(folder)
    target = read(folder).target_tasks[0]
    assert len(training_examples(target, project.store)) == 5
    assert len(validation_examples(target, project.store)) == 3
    assert all(e.input_ids[0] == 1 and e.labels[-1] == 2 for e in validation_examples(target, project.store))


def test_read_corpus_files_of_equal_name_are_counted_separately(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": None, "target": "t"})
    write_rows(folder / "x" / "a" / "f.jsonl", pair_rows("one", 3))
    write_rows(folder / "x" / "b" / "f.jsonl", pair_rows("two", 5))
    with (folder / "curator.toml").open("a") as file:
        file.write('[[data.task]]\nname = "t"\npath = "x/*/f.jsonl"\n')
    version = read(folder, ("t",)).tasks[0].version
    assert [(Path(path).parent.name, rows) for path, _, rows in version.files] == [("a", 3), ("b", 5)]


def test_read_corpus_column_filter_splits_one_file_into_tasks(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": None, "target": "even"})
    rows = [row | {"kind": n % 2} for n, row in enumerate(pair_rows("x", 11))]
    write_rows(folder / "all.jsonl", rows)
    with (folder / "curator.toml").open("a") as file:
        for value, name in enumerate(("even", "odd")):
            file.write(f'[[data.task]]\nname = "{name}"\npath = "all.jsonl"\ncolumn = "kind"\nvalue = {value}\n')
    even, odd = read(folder, ("even",)).tasks
    assert (len(even.version.index.hashes), len(odd.split.train)) == (6, 5)
    assert even.version.source == {"column": "kind", "value": 0}


def test_read_corpus_task_column_makes_one_task_per_value(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project(data={"tasks": None, "target": "x-even"})
    rows = [row | {"kind": ("even", "odd", "\x1bodd", True, 7)[n % 5]} for n, row in enumerate(pair_rows("x", 25))]
    write_rows(folder / "all.jsonl", rows)
    with (folder / "curator.toml").open("a") as file:
        file.write('[[data.task]]\nname = "x"\npath = "all.jsonl"\ntask_column = "kind"\n')
    opened: list[str] = []
    monkeypatch.setattr(data, "read_file", lambda file, options: opened.append(file.name) or read_file(file, options))
    project = Project.open(folder)
    assert read_corpus(project.workspace, ("x-even",), read=False) is None
    corpus = read(folder, ("x-even",))
    assert {task.name: len(task.version.index.hashes) for task in corpus.tasks} == {
        name: 5 for name in ("x-7", "x-even", "x-odd", "x-true", "x-\ufffdodd")
    }
    assert opened == ["all.jsonl"] * 2, "once for the names, once for the rows of all tasks"
    heard: list[Event] = []
    assert read(folder, ("x-even",), heard).tasks[0].content == corpus.tasks[0].content
    assert (heard, len(opened)) == ([], 2)
    write_rows(folder / "all.jsonl", [*rows, pair_rows("y", 1)[0] | {"kind": "new"}])
    assert "x-new" in [task.name for task in read(folder, ("x-even",)).tasks]
    write_rows(folder / "all.jsonl", [*rows, pair_rows("y", 1)[0]])
    with pytest.raises(DataError, match=r"all\.jsonl:26: no text or number in the task column 'kind'"):
        read(folder, ("x-even",))


def test_read_tasks_over_memory_limit_reads_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "all.jsonl", [row | {"kind": n % 7} for n, row in enumerate(pair_rows("x", 70))])
    sources = [data.Source(name=f"t{n}", files=(path,), column="kind", value=n) for n in range(7)]
    apart = [data.read_task(source) for source in sources]
    opened: list[str] = []
    monkeypatch.setattr(data, "read_file", lambda file, options: opened.append(file.name) or read_file(file, options))
    for most, times in ((10**9, 1), (2000, 3), (0, 7)):
        monkeypatch.setattr(data, "_MOST_HELD", most)
        opened.clear()
        found = dict(data.read_tasks(sources))
        assert [found[n] for n in range(7)] == apart
        assert len(opened) <= times + 1
        assert len(opened) >= times - 1
    monkeypatch.setattr(data, "_MOST_HELD", 10**9)
    read = dict(data.read_tasks([*sources, data.Source(name="none", files=(path,), column="kind", value=9)]))
    assert "holds no rows with kind = 9" in str(read[7])
    assert [read[n] for n in range(7)] == apart, "the other tasks of the file are read"


def test_read_corpus_bad_target_or_rows_raises_error(make_project: MakeProject) -> None:
    folder = make_project()
    with pytest.raises(ConfigError, match="unknown target: 'targte'"):
        read(folder, ("targte",))
    write_rows(folder / "tasks" / "alpha.jsonl", [{"messages": [{"role": "assistant", "content": "x"}]}])
    with pytest.raises(DataError, match=r"alpha\.jsonl:1: the rows are chats, but .* no chat template"):
        read(folder)
    (folder / "tasks" / "alpha.jsonl").write_text("")
    with pytest.raises(DataError, match=r"alpha\.jsonl holds no rows"):
        read(folder)


def test_hash_files_changed_bytes_change_the_hash(make_project: MakeProject) -> None:
    folder = make_project()
    store = Project.open(folder).store
    path = folder / "tasks" / "alpha.jsonl"
    first = hash_files(store, [path])
    assert hash_files(store, [path]) == first
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, ns=(1, 1))
    assert hash_files(store, [path]) != first
    with pytest.raises(DataError, match=r"cannot read .*missing\.jsonl"):
        hash_files(store, [folder / "missing.jsonl"])


def test_check_rows_of_a_validation_file_that_are_not_used_are_noted(make_project: MakeProject) -> None:
    """The loss is measured on fewer or shorter examples than the file holds."""
    folder = make_project(data={"bad_rows": "skip", "max_length": 64})
    rows = [{"prompt": f"held {n}", "completion": f" out {n}"} for n in range(4)]
    rows += [{"prompt": "p " * 200, "completion": " x"}, {"prompt": "q", "completion": ""}]
    rows += [{"prompt": "long", "completion": " x" * 200}]
    write_rows(folder / "held.jsonl", rows)
    with (folder / "held.jsonl").open("a") as file:
        file.write("no row\n")
    with (folder / "curator.toml").open("a") as file:
        file.write('[data.validation_files]\ntarget = "held.jsonl"\n')
    report = Project.open(folder).check()
    notes = {task.name: task.notes for task in report.tasks}["target"]
    assert set(notes) == {
        "validation file: 1 examples left out: completion cut off by max_length",
        "validation file: 1 examples left out: empty",
        "validation file: 1 examples left out: cannot be used",
        "1 validation examples longer than max_length were truncated",
    }
