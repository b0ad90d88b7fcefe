"""Test which files are tasks: shards, splits, clones of hub data sets, and folders of data sets."""

import json
import os
from pathlib import Path

import datasets
import pytest
from conftest import pair_rows, write_rows

from curator.core.config import DataSection, TaskSource
from curator.core.errors import DataError
from curator.data.discovery import find_tasks, left_out_files
from curator.data.layouts import tasks_of_folder
from curator.data.split_names import HELD_OUT, TRAIN, split_of, unread_shards
from curator.data.task_rows import read_task

README = """\
---
license: mit
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: en/part-*.jsonl
  - split: test
    path: en/held.jsonl
- config_name: de
  data_files:
    train: [de/a.jsonl, de/b.jsonl]
    validation: de/val.jsonl
- config_name: only_test
  data_files:
  - split: test
    path: en/held.jsonl
---
# A data set
"""


def touch(folder: Path, *names: str) -> None:
    for name in names:
        write_rows(folder / name, pair_rows("x", 2))


def found(pattern: str, root: Path, **data: object) -> dict[str, list[str]]:
    """Return the files of each task, relative to the folder."""
    sources = find_tasks(DataSection.model_validate({"tasks": pattern} | data), root)
    return {s.name: [Path(str(f)).relative_to(root).as_posix() for f in s.files] for s in sources}


def held_out(data: DataSection, root: Path) -> list[str]:
    return [Path(str(file)).relative_to(root).as_posix() for file in left_out_files(data, root).held_out]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.jsonl", ("", TRAIN)),
        ("train-00000-of-00002.parquet", ("", TRAIN)),
        ("train-00000-of-00001-0123456789abcdef.parquet", ("", TRAIN)),
        ("Test.csv.gz", ("", HELD_OUT)),
        ("dev.jsonl.zst", ("", HELD_OUT)),
        ("topic_test.jsonl", ("topic", HELD_OUT)),
        ("validation-topic.json", ("topic", HELD_OUT)),
        ("contest.jsonl", ("contest", "")),
        ("testing-ground.v2.jsonl", ("ground.v2", HELD_OUT)),
        ("evaluate.jsonl", ("evaluate", "")),
        ("train_0.jsonl", ("", TRAIN)),
        ("test-12.csv", ("", HELD_OUT)),
    ],
)
def test_split_of_names_gives_rest_and_split(name: str, expected: tuple[str, str]) -> None:
    assert split_of(Path(name)) == expected


def test_tasks_of_folder_readme_has_one_task_for_each_configuration(tmp_path: Path) -> None:
    clone = tmp_path / "plants"
    touch(clone, "en/part-1.jsonl", "en/part-2.jsonl", "en/held.jsonl", "de/a.jsonl", "de/b.jsonl", "de/val.jsonl")
    (clone / "README.md").write_text(README)
    layout = tasks_of_folder(clone)
    assert {task.name: [Path(str(f)).name for f in task.files] for task in layout.tasks} == {
        "plants-en": ["part-1.jsonl", "part-2.jsonl"],
        "plants-de": ["a.jsonl", "b.jsonl"],
    }
    assert [Path(str(file)).name for file in layout.held_out] == ["held.jsonl", "val.jsonl"]
    # A table has one name, so it reads the training rows of all configurations.
    (source,) = find_tasks(DataSection(task=(TaskSource(name="mine", path="plants"),)), tmp_path)
    assert [file.name for file in source.files] == ["a.jsonl", "b.jsonl", "part-1.jsonl", "part-2.jsonl"]


def test_tasks_of_folder_readme_with_named_splits_reads_training_only(tmp_path: Path) -> None:
    touch(tmp_path / "chat", "train_sft.jsonl", "test_sft.jsonl", "train_gen.jsonl")
    files = "".join(f"  - split: {n}\n    path: {n}.jsonl\n" for n in ("train_sft", "test_sft", "train_gen"))
    (tmp_path / "chat" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    (task,) = tasks_of_folder(tmp_path / "chat").tasks
    assert (task.name, [Path(str(f)).name for f in task.files]) == ("chat", ["train_sft.jsonl", "train_gen.jsonl"])


@pytest.mark.parametrize("path", ["../secret.jsonl", "/etc/*.json", "data/../../x.jsonl"])
def test_tasks_of_folder_readme_outside_its_folder_raises_data_error(tmp_path: Path, path: str) -> None:
    """A README comes with the data from elsewhere, and must not choose files of the user."""
    touch(tmp_path, "secret.jsonl", "plants/a.jsonl")
    (tmp_path / "plants" / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {path}\n---\n")
    with pytest.raises(DataError, match=r"README\.md names files outside its folder"):
        tasks_of_folder(tmp_path / "plants")


@pytest.mark.parametrize(
    "path",
    [
        *("a**.jsonl", ".", "./"),
        pytest.param("9" * 300, id="a name longer than names of files"),
        pytest.param("a/" * 3000, id="a path longer than paths of files"),
    ],
)
def test_tasks_of_folder_readme_with_invalid_pattern_raises_data_error(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "plants/a.jsonl")
    (tmp_path / "plants" / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {path!r}\n---\n")
    with pytest.raises(DataError, match=r"README\.md has an invalid pattern"):
        tasks_of_folder(tmp_path / "plants")


@pytest.mark.timeout(60)
def test_tasks_of_folder_readme_with_repeated_stars_ends(tmp_path: Path) -> None:
    """With each `**`, Python looks at each folder for each of its parents again: 10^15 times here."""
    deep = "/".join(["d"] * 60)
    touch(tmp_path, f"plants/{deep}/a.jsonl")
    for stars in ("/".join(["**"] * 30), "/".join(["**/d"] * 30)):
        front = f"---\nconfigs:\n- config_name: a\n  data_files: '{stars}/*.jsonl'\n---\n"
        (tmp_path / "plants" / "README.md").write_text(front)
        (task,) = tasks_of_folder(tmp_path / "plants").tasks
        assert [Path(str(file)).name for file in task.files] == ["a.jsonl"]


def test_tasks_of_folder_readme_with_nested_aliases_ends(tmp_path: Path) -> None:
    """The text of these few lines would have 10^24 characters. The README counts as one without configurations."""
    touch(tmp_path, "plants/a.jsonl")
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 25))
    text = f"---\nl0: &l0 x\n{levels}configs:\n- config_name: *l24\n  data_files: a.jsonl\n  data_dir: *l24\n---\n"
    (tmp_path / "plants" / "README.md").write_text(text)
    assert [task.name for task in tasks_of_folder(tmp_path / "plants").tasks] == ["a"]


@pytest.mark.parametrize("front", ["", "---\nconfigs: [\n---\n", "---\nconfigs: 3\n---\n", "---\nlicense: mit\n---\n"])
def test_tasks_of_folder_without_configurations_finds_splits_and_shards(tmp_path: Path, front: str) -> None:
    shards = [f"plants/data/train-0000{n}-of-00002.jsonl" for n in range(2)]
    touch(tmp_path, *shards, "plants/data/test-00000-of-00001.jsonl", "plants/dataset_infos.json")
    (tmp_path / "plants" / "README.md").write_text(f"{front}text")
    layout = tasks_of_folder(tmp_path / "plants")
    assert [(task.name, len(task.files)) for task in layout.tasks] == [("plants", 2)]
    assert [Path(str(file)).name for file in layout.held_out] == ["test-00000-of-00001.jsonl"]
    assert found("plants/data/*.jsonl", tmp_path) == {"plants": shards}


def test_tasks_of_folder_of_other_files_has_one_task_for_each_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl", "train.jsonl", "sub/c.jsonl")
    assert [task.name for task in tasks_of_folder(tmp_path).tasks] == ["a", "b", "train"]


def test_find_tasks_training_file_is_named_after_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"tasks/{n}/{s}.jsonl" for n in ("oak", "fern") for s in ("train", "test", "dev")))
    expected = {"fern": ["tasks/fern/train.jsonl"], "oak": ["tasks/oak/train.jsonl"]}
    left_out = [f"tasks/{n}/{s}.jsonl" for n in ("fern", "oak") for s in ("dev", "test")]
    for pattern in ("tasks/*/train.jsonl", "tasks/*/*.jsonl", "tasks/**/*.jsonl", "tasks/*"):
        assert found(pattern, tmp_path) == expected, pattern
        assert held_out(DataSection(tasks=pattern), tmp_path) == left_out, pattern


def test_find_tasks_old_names_stay(tmp_path: Path) -> None:
    """A glob of one folder names its tasks after the files, and a table has its own name."""
    touch(tmp_path, "tasks/train.jsonl", "tasks/a.jsonl", "tasks/contest.jsonl", "tasks/sub/test.jsonl")
    assert list(found("tasks/*.jsonl", tmp_path)) == ["a", "contest", "train"]
    table = TaskSource(name="mine", path=("tasks/train.jsonl", "tasks/sub/test.jsonl"))
    (source,) = find_tasks(DataSection(task=(table,)), tmp_path)
    assert [file.name for file in source.files] == ["train.jsonl", "test.jsonl"], "a named file is the user's decision"
    assert held_out(DataSection(task=(table,)), tmp_path) == []


def test_find_tasks_held_out_files_next_to_a_task_are_left_out(tmp_path: Path) -> None:
    names = ("topic.jsonl", "topic_test.jsonl", "topic-validation.jsonl", "other_test.jsonl", "test.csv")
    touch(tmp_path, *(f"t/{name}" for name in names))
    assert list(found("t/*", tmp_path)) == ["other_test", "topic"]
    assert held_out(DataSection(tasks="t/*"), tmp_path) == [
        "t/test.csv",
        "t/topic-validation.jsonl",
        "t/topic_test.jsonl",
    ]
    # Files that the user names remain: by a target, as a validation file, and by a plain name at the end of a pattern.
    assert "topic_test" in found("t/*", tmp_path, target="topic_test")
    data = DataSection(tasks="t/*", validation_files={"topic": "t/topic-validation.jsonl"})
    assert held_out(data, tmp_path) == ["t/test.csv", "t/topic_test.jsonl"]
    assert found("*/test.csv", tmp_path) == {"t": ["t/test.csv"]}


def test_find_tasks_only_held_out_files_raises_data_error(tmp_path: Path) -> None:
    touch(tmp_path, "t/test.jsonl")
    with pytest.raises(DataError, match=r"only test and validation splits, such as .*test\.jsonl") as caught:
        found("t/*", tmp_path)
    assert "Name the file itself" in caught.value.hint


def test_find_tasks_shards_belong_together_and_equal_stems_do_not(tmp_path: Path) -> None:
    touch(tmp_path, "t/a-00000-of-00002.jsonl", "t/a-00001-of-00002.jsonl", "t/b.jsonl")
    assert found("t/*", tmp_path) == {"a": ["t/a-00000-of-00002.jsonl", "t/a-00001-of-00002.jsonl"], "b": ["t/b.jsonl"]}
    touch(tmp_path, "t/b.csv")
    with pytest.raises(DataError, match="two files have the same task name: 'b'"):
        found("t/*", tmp_path)


def test_left_out_files_texts_about_the_data_are_not_named(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jsonl")
    for name in ("README.md", "LICENSE", "notes.txt", ".hidden"):
        (tmp_path / "t" / name).write_text("x")
    unread = left_out_files(DataSection(tasks="t/*"), tmp_path).unread
    assert [path.name for path in unread] == ["notes.txt"]


def test_find_tasks_remote_splits_are_left_out(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("oak/train.jsonl", "oak/test.jsonl", "fern/train.jsonl"):
        memory.pipe(f"/layouts/{name}", b"{}")
    try:
        data = DataSection(tasks="memory://layouts/*/*.jsonl")
        assert [source.name for source in find_tasks(data, tmp_path)] == ["fern", "oak"]
        assert [str(file) for file in left_out_files(data, tmp_path).held_out] == ["memory:///layouts/oak/test.jsonl"]
    finally:
        memory.rm("/layouts", recursive=True)


@pytest.mark.parametrize(
    ("files", "tasks", "left_out"),
    [
        (("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"), ["plants"], 1),
        (("en/train/0000.parquet", "de/train/0000.parquet", "en/test/0000.parquet"), ["de", "en"], 1),
        (("train/oak.jsonl", "train/fern.jsonl", "test/oak.jsonl"), ["fern", "oak"], 1),
        (("data/train/part-0001.jsonl", "data/test/part-0001.jsonl"), ["plants"], 1),
        (("part-00000-ab12.c000.jsonl", "part-00001-ab12.c000.jsonl"), ["plants"], 0),
        (("train_0.jsonl", "train_1.jsonl", "test_0.jsonl"), ["plants"], 1),
        (("data/train_sft-00000-of-00001.jsonl", "data/test_sft-00000-of-00001.jsonl"), ["train_sft"], 1),
        (("2019.jsonl", "2020.jsonl"), ["2019", "2020"], 0),
    ],
)
def test_tasks_of_folder_numbered_files_and_folders_of_splits_are_shards(
    tmp_path: Path, files: tuple[str, ...], tasks: list[str], left_out: int
) -> None:
    for name in files:
        (tmp_path / "plants" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plants" / name).write_text("")
    layout = tasks_of_folder(tmp_path / "plants")
    assert sorted(task.name for task in layout.tasks) == tasks
    assert sum(len(task.files) for task in layout.tasks) + left_out == len(files)
    assert len(layout.held_out) == left_out


def test_find_tasks_folders_of_test_splits_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jsonl", "t/test/a.jsonl", "m/dev/x.jsonl", "m/auxiliary_train/y.jsonl")
    assert found("t/**/*.jsonl", tmp_path) == {"a": ["t/a.jsonl"]}
    assert found("m/*/*.jsonl", tmp_path) == {"y": ["m/auxiliary_train/y.jsonl"]}
    assert held_out(DataSection(tasks="m/*/*.jsonl"), tmp_path) == ["m/dev/x.jsonl"]


def test_find_tasks_equal_file_names_in_folders_are_named_after_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "t/oak/data.jsonl", "t/fern/data.jsonl")
    assert found("t/*/data.jsonl", tmp_path) == {"fern": ["t/fern/data.jsonl"], "oak": ["t/oak/data.jsonl"]}


def test_find_tasks_saved_data_set_with_splits_is_one_task(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(pair_rows("x", 2))
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "plants"))
    (source,) = find_tasks(DataSection(tasks="plants"), tmp_path)
    assert (source.name, source.folder, source.split) == ("plants", tmp_path / "plants", "train")


def test_left_out_files_in_deeper_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jsonl", "t/more/b.jsonl", "t/more/far/c.csv", "t/oak/train.jsonl", "t/.cache/d.jsonl")
    (tmp_path / "t/mine").mkdir()
    (tmp_path / "t/mine/curator.toml").write_text("")
    touch(tmp_path, "t/mine/e.jsonl")
    for tasks in ("t", "t/*"):
        below = left_out_files(DataSection(tasks=tasks), tmp_path).below
        assert [str(path.relative_to(tmp_path)) for path in below] == ["t/more/b.jsonl", "t/more/far/c.csv"]
    data = DataSection(tasks="t/**/*.jsonl")
    assert not left_out_files(data, tmp_path).below


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("oak-train-v2", "oak-test-v2"),
        ("oak_train_1", "oak_dev_1"),
        ("train.oak.en", "test.oak.en"),
        ("oak", "oak_holdout"),
    ],
)
def test_find_tasks_held_out_word_within_a_name_marks_a_test_split(tmp_path: Path, train: str, test: str) -> None:
    touch(tmp_path, f"t/{train}.jsonl", f"t/{test}.jsonl")
    assert found("t/*", tmp_path) == {train: [f"t/{train}.jsonl"]}
    assert held_out(DataSection(tasks="t/*"), tmp_path) == [f"t/{test}.jsonl"]
    (tmp_path / f"t/{train}.jsonl").unlink()
    assert found("t/*", tmp_path) == {test: [f"t/{test}.jsonl"]}


def test_left_out_files_files_missing_from_a_readme_are_named(tmp_path: Path) -> None:
    """A clone that lacks files had fewer rows or tasks, in silence."""
    touch(tmp_path, "t/a.jsonl", "t/de/deep/b.jsonl")
    (tmp_path / "t" / "c.xml").write_text("x")
    configurations = [
        {"config_name": "one", "data_files": ["a.jsonl", "gone.jsonl", "c.xml"]},
        {"config_name": "two", "data_files": "gone-*.parquet"},
        {"config_name": "de", "data_files": "de/**"},
        {"config_name": "test", "data_files": [{"split": "test", "path": ["lost.csv", "hf://datasets/o/n/x.csv"]}]},
    ]
    (tmp_path / "t" / "README.md").write_text(f"---\nconfigs: {json.dumps(configurations)}\n---\n")
    assert found("t", tmp_path) == {"t-one": ["t/a.jsonl"], "t-de": ["t/de/deep/b.jsonl"]}
    left = left_out_files(DataSection(tasks="t"), tmp_path)
    assert left.missing == (
        *(str(tmp_path / "t" / name) for name in ("gone-*.parquet", "gone.jsonl", "lost.csv")),
        "hf://datasets/o/n/x.csv",
    )
    assert left.unread == (tmp_path / "t" / "c.xml",)


def test_find_tasks_pipe_that_a_readme_names_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jsonl")
    os.mkfifo(tmp_path / "t" / "b.jsonl")
    (tmp_path / "t" / "README.md").write_text("---\nconfigs:\n- data_files: [a.jsonl, b.jsonl]\n---\n")
    (source,) = find_tasks(DataSection(tasks="t"), tmp_path)
    with pytest.raises(DataError, match=r"b\.jsonl"):
        read_task(source)


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (["d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet"], []),
        (["d/a.jsonl", "d/part-00000.jsonl", "d/00000-of-00002"], []),
        (["d/train-00001-of-00003.jsonl.gz"], ["reads 1 of the 3 shards of train-*-of-00003.jsonl.gz"]),
        (["s3://b/x-00001-of-00002.json", "s3://b/x-00002-of-00002.json"], []),
        (
            ["d/train-00000-of-00003-0123456789abcdef.parquet", "d/train-00002-of-00003-fedcba9876543210.parquet"],
            ["reads 2 of the 3 shards of train-*-of-00003-*.parquet"],
        ),
        (
            ["a/x-00000-of-00002.csv", "b/x-00001-of-00002.csv", "b/y-00000-of-00001.csv"],
            ["reads 1 of the 2 shards of x-*-of-00002.csv"] * 2,
        ),
    ],
)
def test_unread_shards_counts_numbers_of_each_split(files: list[str], lines: list[str]) -> None:
    assert unread_shards(files) == lines


def test_tasks_of_folder_configuration_with_a_folder_takes_all_its_files(tmp_path: Path) -> None:
    """Files whose names say no split were left out in silence."""
    touch(tmp_path, "t/en/a.jsonl", "t/en/b.jsonl", "t/de/train.jsonl", "t/de/test.jsonl")
    configurations = [{"config_name": name, "data_dir": name} for name in ("en", "de", "fr")]
    (tmp_path / "t" / "README.md").write_text(f"---\nconfigs: {json.dumps(configurations)}\n---\n")
    assert found("t", tmp_path) == {"t-en": ["t/en/a.jsonl", "t/en/b.jsonl"], "t-de": ["t/de/train.jsonl"]}
    left = left_out_files(DataSection(tasks="t"), tmp_path)
    assert left.missing == (str(tmp_path / "t" / "fr"),)
    assert left.held_out == (tmp_path / "t" / "de" / "test.jsonl",)
