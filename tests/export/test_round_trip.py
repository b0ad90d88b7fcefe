"""Test that exports come back through `curator init --from` as the same tasks, with the held-out rows apart."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_tokenizer, pair_rows, toml_of, write_rows
from manifests import everything, rows_of

from curator.core.errors import DataError, ManifestMismatch
from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.data.tokens import TokenizedExample
from curator.export import FORMATS, export
from curator.export.plan import RECORD_NAME
from curator.project.new_project import Written, write_project
from curator.project.project import Project
from curator.results.outputs import ExportReport
from curator.select.manifest import MANIFEST_NAME, Manifest, read_manifest

TOOLS_TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for call in m.tool_calls %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}"
    "{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NAMES = ["target", "chats & tools", "Test/evaluation", "one"]


def _chat(number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"question {number:03}?"},
            {"role": "assistant", "content": "unlearned", "train": False},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": f"three {number}"},
        ]
    }


def _tool_chat(number: int) -> dict[str, Any]:
    call = {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": {"x": number, "y": ["z"]}}}
    return {
        "messages": [
            {"role": "user", "content": "call"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_call_id": f"c{number}", "name": "f"},
            {"role": "assistant", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    # Copies of a held-out row in another task must not be exported either.
    "one": [
        *pair_rows("target", 10),
        *pair_rows("one", 4),
        {"text": "the sum is"},
        {"instruction": "i", "output": "o"},
    ],
    "target": [*pair_rows("target", 10), *(_chat(number) for number in range(6))],
    "chats & tools": [*map(_tool_chat, range(4)), *map(_chat, range(10, 14))],
    "Test/evaluation": [
        {"segments": [{"label": False, "text": f"<s>ask {n} "}, {"label": True, "text": "red</s>"}]} for n in range(4)
    ],
}
Selected = tuple[Project, Manifest, Path]


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Selected:
    """Select tasks with rows of every form. Return the project, its manifest and the manifest's folder."""
    folder = tmp_path_factory.mktemp("selected")
    shutil.copytree(tiny_llama_folder, folder / "model")
    make_tokenizer(bos=True, chat_template="{{ raise_exception('the template of the model') }}").save_pretrained(
        folder / "model"
    )
    (folder / "template.jinja").write_text(TOOLS_TEMPLATE)
    values = {
        "model": {"name_or_path": "model"},
        "lora": {"r": 2, "alpha": 4.0},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "warmup": 0.1},
        "gradients": {"projection_dim": 16, "points": [1.0]},
        "data": {
            "target": "target",
            "validation": 0.4,
            "max_length": 180,
            "seed": 5,
            "chat_template": "template.jinja",
        },
    }
    text = toml_of(values)
    for name in NAMES:
        file = f"{name.replace('/', '_')}.jsonl"
        write_rows(folder / file, ROWS[name])
        text += f"[[data.task]]\nname = {json.dumps(name)}\npath = {json.dumps(file)}\n"
    (folder / "curator.toml").write_text(text)
    project = Project.open(folder)
    project.select(include=NAMES[1:], output=folder / MANIFEST_NAME)
    return project, read_manifest(folder / MANIFEST_NAME), folder


def _sources(format: str, out: Path, report: ExportReport) -> list[list[str]]:
    """Return every way to name an export in `--from`."""
    ways = [[str(out)], [str(out / RECORD_NAME)], [str(out / MANIFEST_NAME)], [str(out / n) for n, _ in report.files]]
    ways += [[str(out / name)] for name in report.configs if name.endswith((".yaml", "dataset_info.json"))]
    if format in ("jsonl", "swift"):
        # A glob covers the held-out rows too.
        ways.append([str(out / "*.jsonl")])
        ways.append([str(path) for path in sorted(out.glob("*.jsonl"))])
    return ways


def _examples(project: Project, corpus: Corpus) -> dict[str, tuple[list[TokenizedExample], list[TokenizedExample]]]:
    store = project.store
    return {
        task.name: (training_examples(task, store), validation_examples(task, store) if task.split.validation else [])
        for task in corpus.tasks
    }


@pytest.mark.parametrize("format", FORMATS)
def test_init_from_export_of_any_format_gives_the_same_examples(
    selected: Selected, tmp_path: Path, format: str
) -> None:
    project, manifest, here = selected
    out = tmp_path / "exported data"
    report = export(manifest, here, format=format, folder=out)
    assert (report.tasks[0].name, report.tasks[0].target) == ("target", True)
    wanted = _examples(project, project.corpus(("target",)))
    assert len(wanted["target"][1]) == report.tasks[0].validation_rows > 0
    before = everything(out)
    first: list[Any] = []
    for number, sources in enumerate(_sources(format, out, report)):
        written = write_project(tmp_path / f"project-{number}", sources, model=None, target=None)
        assert sorted(written.tasks) == sorted(NAMES)
        assert written.left_out == []
        again = Project.open(tmp_path / f"project-{number}")
        config = again.config
        assert (config.data.targets, config.data.max_length, config.data.seed) == (("target",), 180, 5)
        assert (config.train, config.lora) == (project.config.train, project.config.lora)
        assert (config.gradients, config.estimate) == (project.config.gradients, project.config.estimate)
        if number == 0:
            assert _examples(again, again.corpus(("target",))) == wanted
        tasks = sorted((task.name, task.path) for task in config.data.task)
        first.append((tasks, config.data.validation_files))
        assert first[-1] == first[0]
    assert everything(out) == before


def _training_rows(format: str, out: Path, report: ExportReport) -> list[str]:
    """Return each training row that a trainer reads, as text."""
    tokenizer = make_tokenizer(bos=True)
    found: list[Any] = []
    for name, _ in report.files:
        path = out / name
        if path.suffix == ".jsonl":
            found += rows_of(path)
        elif path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        elif path.suffix == ".arrow":
            found += datasets.load_from_disk(str(path.parent)).to_list()
        else:
            found += datasets.load_from_disk(str(path)).to_list()
    return [tokenizer.decode(row["input_ids"]) if "input_ids" in row else json.dumps(row) for row in found]


@pytest.mark.parametrize("format", FORMATS)
def test_export_of_any_format_keeps_held_out_rows_out_of_training(
    selected: Selected, tmp_path: Path, format: str
) -> None:
    project, manifest, here = selected
    report = export(manifest, here, format=format, folder=tmp_path / "out")
    split = project.corpus(("target",)).target_tasks[0].split
    # The prompt of a pair, or a user's turn, says which row it is.
    held_out = [
        row.get("prompt") or row["messages"][1]["content"] for row in (ROWS["target"][n] for n in split.validation)
    ]
    training = _training_rows(format, tmp_path / "out", report)
    assert len(training) == sum(rows for _, rows in report.files)
    for mark in held_out:
        assert not [row for row in training if mark in row], mark
    record = json.loads((tmp_path / "out" / RECORD_NAME).read_text())
    assert record["validation"] == report.tasks[0].validation
    assert (tmp_path / "out" / record["validation"]).exists()
    of_data = tmp_path / "out" / report.tasks[0].validation_of_data
    if of_data.suffix == ".jsonl":
        assert rows_of(of_data) == [ROWS["target"][n] for n in split.validation]
    assert report.tasks[0].validation_rows == len(split.validation)


def test_export_hf_of_rows_of_every_form_loads_as_printed(selected: Selected, tmp_path: Path) -> None:
    """Turns of one task have keys that turns of another lack. `datasets` joins equal turns only."""
    _, manifest, here = selected
    report = export(manifest, here, format="hf", folder=tmp_path / "out")
    command = [sys.executable, *report.command.split()[1:]]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    training, _, held_out = done.stdout.partition("{'validation'")
    assert f"num_rows: {sum(task.rows for task in report.tasks)}" in " ".join(training.split())
    assert f"num_rows: {report.tasks[0].validation_rows}" in " ".join(held_out.split())


def test_init_from_edited_config_of_an_export_takes_the_new_setting(selected: Selected, tmp_path: Path) -> None:
    _, manifest, here = selected
    export(manifest, here, format="trl", folder=tmp_path / "out")
    config = tmp_path / "out" / "sft.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"lora_r": 6}))
    written = write_project(tmp_path / "project", [str(config)], model=None, target=None)
    assert Project.open(tmp_path / "project").config.lora.r == 6
    assert any("edited after the export, read from curator-export.json instead" in line for line in written.left_out)
    assert sorted(written.tasks) == sorted(NAMES)


def test_init_from_a_part_of_an_export_takes_its_tasks_only(selected: Selected, tmp_path: Path) -> None:
    _, manifest, here = selected

    def init(*names: str) -> Written:
        sources = [str(tmp_path / "out" / name) for name in names]
        return write_project(tmp_path / f"from {len(list(tmp_path.iterdir()))}", sources, model=None, target=None)

    export(manifest, here, format="jsonl", folder=tmp_path / "out")
    assert init("one.jsonl").tasks == ["one"]
    assert sorted(init("one.jsonl", "target.jsonl", "validation.jsonl").tasks) == ["one", "target"]
    with pytest.raises(DataError, match="no training rows of an export"):
        init("validation.jsonl")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"rows_of_data": "../one.jsonl"}, "outside of its folder"),
        ({"rows_of_data": "missing.jsonl"}, "missing rows"),
        ({"rows_of_data": "9" * 300}, "name too long"),
        ({"name": None}, "does not name the rows"),
        ({"rows_of_data": 3}, "does not name the rows"),
    ],
)
def test_init_from_damaged_export_names_the_fault(
    selected: Selected, tmp_path: Path, damage: dict[str, Any], message: str
) -> None:
    _, manifest, here = selected
    export(manifest, here, format="jsonl", folder=tmp_path / "out")
    (tmp_path / "one.jsonl").write_text('{"text": "secret"}\n')
    record = json.loads((tmp_path / "out" / RECORD_NAME).read_text())
    record["tasks"][1] |= damage
    (tmp_path / "out" / RECORD_NAME).write_text(json.dumps(record))
    with pytest.raises(DataError, match=message):
        write_project(tmp_path / "project", [str(tmp_path / "out")], model=None, target=None)


def test_export_with_another_tokenizer_is_refused(selected: Selected, tmp_path: Path) -> None:
    """Rows were encoded, counted and rendered with a tokenizer that the selection never saw."""
    _, manifest, here = selected
    moved = tmp_path / "project"
    shutil.copytree(here, moved, ignore=shutil.ignore_patterns(".curator"))
    export(manifest, moved, format="trl", folder=tmp_path / "same")
    config = moved / "model" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"extra": 1}))
    with pytest.raises(ManifestMismatch, match="the tokenizer or the configuration of model 'model' has changed"):
        export(manifest, moved, format="trl", folder=tmp_path / "other")
    export(manifest, moved, format="trl", folder=tmp_path / "other", allow_changed=True)
    early = manifest.model_copy(update={"model": manifest.model.model_copy(update={"tokenizer_sha256": ""})})
    export(early, moved, format="trl", folder=tmp_path / "early")


def test_export_of_two_targets_holds_a_validation_file_each(selected: Selected, tmp_path: Path) -> None:
    project, _, _ = selected
    project.select(target=("target", "one"), output=tmp_path / "m" / MANIFEST_NAME)
    manifest = read_manifest(tmp_path / "m" / MANIFEST_NAME)
    report = export(manifest, tmp_path / "m", format="trl", folder=tmp_path / "out")
    assert report.validation == ["splits/validation-0000-target.jsonl", "splits/validation-0001-one.jsonl"] or (
        report.validation == ["splits/validation-0000-target.parquet", "splits/validation-0001-one.parquet"]
    )
    assert any("two targets" in note or "several targets" in note for note in report.notes)
    write_project(tmp_path / "project", [str(tmp_path / "out")], model=None, target=None)
    again = Project.open(tmp_path / "project")
    assert again.config.data.targets == ("target", "one")
    then, now = (_examples(p, p.corpus(("target", "one"))) for p in (project, again))
    assert {name: now[name] for name in ("target", "one")} == {name: then[name] for name in ("target", "one")}
