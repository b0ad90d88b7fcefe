"""Test all formats: faithful rows or a note, weights, tokens, and configs in YAML."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import pair_rows, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import everything, manifest_of, rows_of
from typer.testing import CliRunner

from curator.cli.app import app
from curator.core.errors import ConfigError, DataError
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoder
from curator.export import FORMATS, export, plan_export
from curator.export.plan import RECORD_NAME, find_format
from curator.export.yaml import to_yaml
from curator.results.outputs import ExportReport
from curator.select.manifest import MANIFEST_NAME, Manifest, read_manifest, render

TRAINERS = [name for name in FORMATS if find_format(name).trainer]


@pytest.fixture
def data(tmp_path: Path, tiny_llama_folder: Path) -> Path:
    """Write tasks of 8 rows, with the model in the same folder."""
    shutil.copytree(tiny_llama_folder, tmp_path / "data" / "model")
    for name in ("target", "one", "two"):
        write_rows(tmp_path / "data" / f"{name}.jsonl", pair_rows(name, 8))
    return tmp_path / "data"


def manifest(data: Path, *names: str, weights: dict[str, float] | None = None, **changes: Any) -> Manifest:
    made = manifest_of(
        data,
        *(names or ("target", "one", "two")),
        model={"name_or_path": "model", "revision": "", "sha256": "x"},
        data={"max_length": 64, "seed": 3},
        **changes,
    )
    tasks = [task.model_copy(update={"weight": (weights or {}).get(task.name, 1.0)}) for task in made.tasks]
    return made.model_copy(update={"tasks": tuple(tasks)})


def run(made: Manifest, data: Path, format: str) -> ExportReport:
    return export(made, data, format=format, folder=data.parent / "out")


# -- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_export_every_format_is_complete_repeatable_and_replaces_another(data: Path, format: str) -> None:
    out = data.parent / "out"
    report = run(manifest(data), data, format)
    assert [(task.name, task.target, task.rows) for task in report.tasks] == [
        ("target", True, 8),
        ("one", False, 8),
        ("two", False, 8),
    ]
    assert all((out / name).exists() for name, _ in report.files)
    there = {path.name for path in out.iterdir()}
    record = json.loads((out / RECORD_NAME).read_text())
    assert there == {MANIFEST_NAME, RECORD_NAME, *(name.partition("/")[0] for name in record["written"])}
    assert set(report.configs) <= there
    assert read_manifest(out / MANIFEST_NAME).model.name_or_path == "../data/model"
    before = everything(out)
    run(manifest(data), data, format)
    assert everything(out) == before
    run(manifest(data, "target"), data, "jsonl")
    assert {path.name for path in out.iterdir()} == {MANIFEST_NAME, RECORD_NAME, "target.jsonl"}


def test_export_edited_config_is_refused_and_kept(data: Path) -> None:
    run(manifest(data), data, "trl")
    config = data.parent / "out" / "sft.yaml"
    config.write_text(config.read_text().replace("lora_r: 8", "lora_r: 9"))
    with pytest.raises(ConfigError, match=r"edited file: 'sft\.yaml'"):
        run(manifest(data), data, "jsonl")
    assert "lora_r: 9" in config.read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_export_edited_data_or_added_file_is_refused_and_kept(data: Path, format: str) -> None:
    """curator replaces unchanged exports only. A person may have corrected rows in the export."""
    out = data.parent / "out"
    report = run(manifest(data), data, format)
    place = out / report.files[0][0]
    changed = next(path for path in (place, *place.rglob("*")) if path.is_file())
    for path, text, message in ((changed, "mine", "edited file"), (place.parent / "notes.txt", "mine", "holds")):
        before = path.read_bytes() if path.exists() else None
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            run(manifest(data), data, "jsonl")
        assert path.read_text() == text
        path.unlink() if before is None else path.write_bytes(before)
    run(manifest(data), data, "jsonl")


@pytest.mark.parametrize("format", TRAINERS)
def test_export_readme_gives_command_notes_and_rows(data: Path, format: str) -> None:
    report = run(manifest(data, weights={"one": 0.0}), data, format)
    text = (data.parent / "out" / "README.md").read_text(encoding="utf-8")
    assert report.command in text
    assert all(f"- {note}" in text for note in report.notes)
    assert any("leaves no rows" in note for note in report.notes)
    assert "| one | 0 | 0 | 0 | - |" in text
    assert report.rows_differing == 0
    assert not any("not faithful" in note for note in report.notes)


@pytest.mark.parametrize("format", TRAINERS)
def test_export_without_model_fails_for_trainers_only(data: Path, format: str) -> None:
    shutil.rmtree(data / "model")
    with pytest.raises(DataError, match="needs the tokenizer"):
        run(manifest(data), data, format)
    report = run(manifest(data, weights={"one": 0.5}), data, "jsonl")
    assert [task.tokens_are_exact for task in report.tasks] == [True, False, True]


@pytest.mark.parametrize("format", FORMATS)
def test_export_unknown_or_invalid_setting_of_the_manifest_names_it(data: Path, format: str) -> None:
    """A format that does not use a setting checks it too: the export carries the manifest."""
    made = manifest(data, "target")
    invalid: dict[str, Any] = {
        "train.epochz": {"train": {"epochz": 7}},
        "train.seed": {"train": {"seed": "abc"}},
        "lora.rank": {"lora": {"rank": 4}},
        "data.seed": {"data": {"seed": None}},
        "data.maxlength": {"data": {"maxlength": 32}},
        "model.name_or_path": {"model": made.model.model_copy(update={"name_or_path": ""})},
    }
    for name, update in invalid.items():
        with pytest.raises(DataError, match=f"invalid setting in the manifest: {name}: "):
            run(made.model_copy(update=update), data, format)


def test_export_encoder_decoder_is_refused_for_trainers_only(data: Path, tiny_t5_folder: Path) -> None:
    shutil.rmtree(data / "model")
    shutil.copytree(tiny_t5_folder, data / "model")
    with pytest.raises(ConfigError, match="encoder–decoder"):
        run(manifest(data), data, "trl")
    run(manifest(data), data, "hf")


def test_export_tables_hold_every_kind_of_row(data: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "completion": "c"},
        {"text": "t"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    ]
    write_rows(data / "one.jsonl", rows * 700)
    made = manifest(data, "target", "one")
    run(made, data, "parquet")
    found = pq.read_table(data.parent / "out" / "one.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in found] == rows * 700
    run(made, data, "hf")
    loaded = datasets.load_from_disk(str(data.parent / "out"))
    assert {name: len(split) for name, split in loaded.items()} == {"target": 8, "one": 2100}
    assert [{k: v for k, v in row.items() if v is not None} for row in loaded["one"].select(range(3))] == rows
    assert len(datasets.concatenate_datasets(list(loaded.values()))) == 2108


TOOL_ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "type": "function",
                        "id": "c1",
                        "function": {"name": "f", "arguments": {"x": 1, "y": ["z", None]}},
                    },
                    {"type": "function", "function": {"name": "g", "arguments": {"x": {"deep": "text"}}}},
                ],
            },
            {"role": "tool", "content": "3", "name": "f", "tool_call_id": "c1"},
            {"role": "assistant", "content": "no loss here", "train": False},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "integer"}}}}],
    },
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]},
]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "hf"])
def test_export_rows_with_tools_come_back_with_every_key(data: Path, format: str) -> None:
    """An Arrow struct drops keys that its schema lacks. Arguments of calls have a different shape in every row."""
    write_rows(data / "one.jsonl", TOOL_ROWS * 600)
    run(manifest(data), data, format)
    path = data.parent / "out" / {"jsonl": "one.jsonl", "parquet": "one.parquet", "hf": "one"}[format]
    source = Source(name="one", files=(path,)) if path.is_file() else Source(name="one", folder=path, files=())
    read = [row.content for row in read_task(source)]
    assert read == [row.content for row in read_task(Source(name="one", files=(data / "one.jsonl",)))]
    assert read[0] == TOOL_ROWS[0]


def test_export_names_that_would_be_one_file_get_different_files(data: Path) -> None:
    made = manifest(data)
    first, second = made.tasks
    target = made.targets[0]
    made = made.model_copy(
        update={
            "targets": (target, target.model_copy(update={"name": "README.md"})),
            "tasks": (first.model_copy(update={"name": "a/b"}), second.model_copy(update={"name": "A_B"})),
            "target": ("target", "README.md"),
        }
    )
    for format in ("oumi", "hf", "llamafactory"):
        report = run(made, data, format)
        assert len({name.casefold() for name, _ in report.files}) == 4
        assert [task.target for task in report.tasks] == [True, True, False, False]
        assert (data.parent / "out" / "README.md").is_file() == (format != "hf")


def test_export_target_with_validation_file_checks_and_writes_it(data: Path) -> None:
    made = manifest(data, "target", "one")
    held_out = made.targets[0].files[0].model_copy(update={"path": "two.jsonl"})
    wrong = made.targets[0].model_copy(update={"validation_files": (held_out,)})
    with pytest.raises(Exception, match="has changed"):
        run(made.model_copy(update={"targets": (wrong,)}), data, "trl")
    right = held_out.model_copy(update={"sha256": manifest(data, "two").targets[0].files[0].sha256})
    good = made.targets[0].model_copy(update={"validation_files": (right,), "validation_left_out": (0, 3)})
    report = run(made.model_copy(update={"targets": (good,)}), data, "trl")
    assert [(task.name, task.rows, task.validation_rows) for task in report.tasks] == [("target", 8, 6), ("one", 8, 0)]
    wanted = [row for number, row in enumerate(rows_of(data / "two.jsonl")) if number not in (0, 3)]
    assert rows_of(data.parent / "out" / "splits" / "validation.jsonl") == wanted
    assert report.validation == "splits/validation.jsonl"
    record = json.loads((data.parent / "out" / RECORD_NAME).read_text())
    assert record["validation"] == "splits/validation.jsonl"


def test_export_training_rows_that_equal_held_out_rows_are_left_out(data: Path) -> None:
    """A manifest leaves such rows out. After a change of the data, the numbers in the manifest do not help."""
    made = manifest(data, "target", "one")
    same = rows_of(data / "two.jsonl")[2:5]
    write_rows(data / "one.jsonl", [*same, *pair_rows("one", 5)])
    made = made.model_copy(
        update={
            "targets": (
                made.targets[0].model_copy(
                    update={
                        "validation_files": tuple(manifest(data, "two").targets[0].files),
                        "validation_left_out": (),
                    }
                ),
            )
        }
    )
    report = export(made, data, format="jsonl", folder=data.parent / "out", allow_changed=True)
    assert rows_of(data.parent / "out" / "one.jsonl") == pair_rows("one", 5)
    assert report.notes == (
        "changed since the selection, so that left-out rows may be others: one",
        "one: 3 rows equal held-out rows and are left out",
    )


@pytest.mark.parametrize("name", ["train", "my-test", "dev set", "Validation", "evals", "retrained"])
def test_export_trl_task_names_that_look_like_splits_stay_training_data(data: Path, name: str) -> None:
    write_rows(data / f"{name}.jsonl", pair_rows("other", 3))
    made = manifest(data, "target", name)
    held_out = made.targets[0].model_copy(update={"left_out": {"validation": (1, 6)}})
    run(made.model_copy(update={"targets": (held_out,)}), data, "trl")
    config = yaml.safe_load((data.parent / "out" / "sft.yaml").read_text())
    loaded = datasets.load_dataset(str(data.parent / "out" / config["dataset_name"]))
    rows = rows_of(data / "target.jsonl")
    assert list(loaded) == ["train", "validation"]
    assert loaded["validation"].to_list() == [rows[1], rows[6]]
    assert loaded["train"].to_list() == [
        *(row for row in rows if row not in (rows[1], rows[6])),
        *pair_rows("other", 3),
    ]
    assert (config["dataset_test_split"], config["eval_strategy"]) == ("validation", "epoch")


def test_export_without_held_out_rows_configures_no_evaluation(data: Path) -> None:
    for format, name in (("trl", "sft"), ("llamafactory", "train"), ("axolotl", "config"), ("swift", "sft")):
        report = run(manifest(data), data, format)
        text = (data.parent / "out" / f"{name}.yaml").read_text()
        assert (report.validation, "eval" in text, "test_datasets" in text) == ("", False, False)


def test_export_swift_config_reports_nothing_and_forbids_remote_code(data: Path, tmp_path: Path) -> None:
    """ms-swift has no setting against code of the model's repository. The plugin changes what transformers decides."""
    run(manifest(data), data, "swift")
    config = yaml.safe_load((data.parent / "out" / "sft.yaml").read_text())
    assert (config["report_to"], config["external_plugins"]) == ("none", ["no_remote_code.py"])
    (data / "model" / "evil.py").write_text("open('hacked', 'w')")
    described = json.loads((data / "model" / "config.json").read_text()) | {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil"},
    }
    (data / "model" / "config.json").write_text(json.dumps(described))
    program = (
        "import runpy, sys; runpy.run_path(sys.argv[1])\n"
        "from transformers import AutoConfig\n"
        "AutoConfig.from_pretrained(sys.argv[2], trust_remote_code=True)"
    )
    plugin = data.parent / "out" / "no_remote_code.py"
    done = subprocess.run(
        [sys.executable, "-c", program, str(plugin), str(data / "model")],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "contains custom code which must be executed" in done.stderr
    assert not (tmp_path / "hacked").exists()


# -- weights and tokens --------------------------------------------------------------------------------------------


def test_export_weights_are_in_the_files_or_in_the_config(data: Path) -> None:
    made = manifest(data, weights={"one": 0.5, "two": 1.75})
    wanted = {"target": 8, "one": 4, "two": 14}
    encoder = Encoder(_tokenizer(data), max_length=64, encoder_decoder=False)
    for format in ("jsonl", "trl", "axolotl", "llamafactory", "oumi", "swift"):
        report = run(made, data, format)
        assert {task.name: task.rows for task in report.tasks} == wanted
        in_file = {task.name: task.rows_in_file for task in report.tasks}
        native = {"llamafactory": {"one"}, "oumi": {"one", "two"}, "swift": {"one", "two"}}
        for name in wanted:
            assert in_file[name] == (8 if name in native.get(format, set()) else wanted[name])
        exact = {task.name: task.tokens_are_exact for task in report.tasks}
        assert {name for name in wanted if not exact[name]} == native.get(format, set())
        if format == "trl":
            rows = rows_of(data.parent / "out" / "splits" / "train-0002-two.jsonl")
            assert sum(len(encoder.encode(row).input_ids) for row in rows) == report.tasks[2].tokens
        if format == "llamafactory":
            info = json.loads((data.parent / "out" / "dataset_info.json").read_text())
            assert [part.get("num_samples") for part in info.values()] == [None, 4, None]
        if format == "swift":
            config = yaml.safe_load((data.parent / "out" / "sft.yaml").read_text())
            assert config["dataset"] == ["target.jsonl", "one.jsonl#4", "two.jsonl#14"]
            # Without a model type, ms-swift refuses a Llama with an unknown name.
            assert config["model_type"] == "llama"


def _tokenizer(data: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data / "model")


def test_plan_export_weights_give_exact_rows_and_estimated_tokens(data: Path) -> None:
    made = manifest(data, weights={"one": 0.5})
    quick = plan_export(made, data, format="trl", folder=data.parent / "out")
    assert [task.rows for task in quick.tasks] == [8, 4, 8]
    assert [task.tokens_are_exact for task in quick.tasks] == [True, False, True]
    assert quick.configs == ("sft.yaml", "README.md")


# -- configs -------------------------------------------------------------------------------------------------------

PLAIN = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["no", "1e3", "a: b", "- x", "~", "3", "."]
)


KEYS = st.sampled_from(["a", "b_c", "on", "n"])


@settings(max_examples=40)
@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            PLAIN | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2)
        ),
    )
)
def test_to_yaml_any_values_parse_back_unchanged(values: dict[str, Any]) -> None:
    text = to_yaml(values, "a comment\nof two lines — é")
    assert text.startswith("# a comment\n# of two lines — é\n")
    for loader in (yaml.SafeLoader, LoaderOfOmegaConf):
        # Both loaders extend PyYAML's safe loader.
        assert (yaml.load(text, loader) or {}) == values


class LoaderOfOmegaConf(yaml.SafeLoader):
    """Read `1e3` as a number, as OmegaConf 2.3 does."""


LoaderOfOmegaConf.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def test_to_yaml_repeated_lists_and_long_text_stay_readable() -> None:
    columns, text = ["a", "b"], "x " * 200
    written = to_yaml({"datasets": [{"columns": columns}, {"columns": columns}], "text": text, "path": "../Käse"})
    assert "&" not in written
    assert f"text: '{text}'\n" in written
    assert "path: ../Käse\n" in written


@pytest.mark.parametrize("format", TRAINERS)
def test_export_trainer_config_begins_with_its_command(data: Path, format: str) -> None:
    report = run(manifest(data), data, format)
    (name,) = (name for name in report.configs if name.endswith(".yaml"))
    text = (data.parent / "out" / name).read_text(encoding="utf-8")
    assert text.startswith(f"# In this folder: {report.command}\n")
    config = yaml.safe_load(text)
    settings = config["model"] if format == "oumi" else config
    assert "../data/model" in settings.values()


def test_export_rounded_settings_are_in_the_notes(data: Path) -> None:
    made = manifest(data, lora={"r": 4, "alpha": 12.6, "target_modules": ["q_proj"]}, train={"epochs": 1.5})
    report = run(made, data, "llamafactory")
    assert any("12.6 is rounded to 13" in note for note in report.notes)
    config = yaml.safe_load((data.parent / "out" / "train.yaml").read_text())
    assert (config["lora_alpha"], config["lora_target"], config["num_train_epochs"]) == (13, "q_proj", 1.5)
    report = run(made, data, "axolotl")
    config = yaml.safe_load((data.parent / "out" / "config.yaml").read_text())
    # 24 rows in batches of 32 are one step for each epoch.
    assert (config["num_epochs"], config["max_steps"], config["lora_target_modules"]) == (2, 2, ["q_proj"])


def test_export_axolotl_constant_schedule_has_no_warmup_as_in_curator(data: Path) -> None:
    for schedule, wanted in (("constant", (None, 0)), ("linear", (0.25, None))):
        run(manifest(data, train={"schedule": schedule, "warmup": 0.25}), data, "axolotl")
        config = yaml.safe_load((data.parent / "out" / "config.yaml").read_text())
        assert (config.get("warmup_ratio"), config.get("warmup_steps")) == wanted


def test_export_swift_optimizer_is_that_of_curator(data: Path) -> None:
    """ms-swift has another default of `adam_beta2` than transformers, with which curator trains."""
    run(manifest(data), data, "swift")
    assert yaml.safe_load((data.parent / "out" / "sft.yaml").read_text())["adam_beta2"] == 0.999


# -- the command ---------------------------------------------------------------------------------------------------


def test_export_command_shows_rows_and_tokens_before_writing(data: Path) -> None:
    path = data / "best.json"
    path.write_text(render(manifest(data, weights={"two": 1.5})))
    out = data.parent / "out"
    words = ["export", str(path), "--format", "trl", "-o", str(out), "-q"]
    shown = CliRunner().invoke(app, [*words, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"two\s+12\s+\d+\s+1\.5\s+splits/train-0002-two\.jsonl", shown.stdout)
    assert "nothing is written" in shown.stdout
    assert not out.exists()
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [task["rows"] for task in document["tasks"]] == [8, 8, 12]
    assert (document["form"], document["rows_differing"], document["dry_run"]) == ("prompt-completion", 0, False)
    assert document["files"][2] == {"name": "splits/train-0002-two.jsonl", "rows": 12}
    assert (out / "sft.yaml").is_file()
