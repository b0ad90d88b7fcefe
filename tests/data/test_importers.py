"""Test that configurations from the documentation of other trainers become projects with the same rows."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHAT_TEMPLATE, make_tokenizer, write_rows
from typer.testing import CliRunner

from curator.cli.app import app
from curator.core.config import Config
from curator.core.errors import CuratorError, DataError
from curator.core.load_config import load_config
from curator.data.chat_templates import find_template
from curator.data.discovery import find_tasks
from curator.data.importers.importer import read_trainer_config
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoder
from curator.project.new_project import Written, write_project


def share(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def migrate(source: Path, folder: Path, **options: Any) -> tuple[Config, dict[str, list[Any]], Written]:
    """Make a project from a configuration. Return its config, the rows of local tasks, and the report."""
    written = write_project(folder, [str(source)], **({"model": None, "target": None} | options))
    config = load_config(written.path)
    assert sorted(written.tasks) == sorted(task.name for task in config.data.task)
    local = tuple(task for task in config.data.task if not task.hub and not str(task.path).startswith("hf://"))
    sources = find_tasks(config.data.model_copy(update={"task": local}), folder) if local else []
    return config, {s.name: [row.content for row in read_task(s)] for s in sources}, written


# -- LLaMA-Factory ------------------------------------------------------------------------------------------------

INFO = {
    "identity": {"file_name": "identity.json"},
    "named": {
        "file_name": "sub/named.jsonl",
        "columns": {
            "prompt": "question",
            "query": "context",
            "response": "answer",
            "system": "role_play",
            "history": "before",
        },
        "num_samples": 100,
    },
    "glaive": {
        "file_name": "glaive.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools"},
    },
    "openai": {
        "file_name": "openai.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
    "strange": {
        "file_name": "strange.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "dialog"},
        "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "customer", "assistant_tag": "agent"},
    },
    "wiki": {"file_name": "wiki.jsonl", "columns": {"prompt": "body"}},
    "alpaca_gpt4": {"hf_hub_url": "llamafactory/alpaca_gpt4_en", "subset": "en", "split": "test", "ms_hub_url": "x/y"},
    "folder": {"hf_hub_url": "owner/many", "folder": "wikipedia/en"},
    "dpo": {"file_name": "identity.json", "ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}},
    "mllm": {
        "file_name": "identity.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
    },
    "scripted": {"script_url": "belle_multiturn"},
    "missing": {"file_name": "missing.json"},
}


@pytest.fixture
def llama_factory(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "identity.json").write_text(
        json.dumps([{"instruction": "hi", "input": "", "output": "I am {{name}}", "system": "unread"}])
    )
    write_rows(
        data / "sub" / "named.jsonl",
        [{"question": "q", "context": "c", "answer": "a", "role_play": "s", "before": [["x", "y"]]}],
    )
    call = [{"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}]
    call += [{"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}]
    (data / "glaive.json").write_text(
        json.dumps([{"conversations": call, "tools": '[{"name": "f", "parameters": {}}]'}])
    )
    write_rows(data / "openai.jsonl", [chat("q", "a")])
    write_rows(data / "strange.jsonl", [{"dialog": [{"who": "customer", "said": "q"}, {"who": "agent", "said": "a"}]}])
    write_rows(data / "wiki.jsonl", [{"body": "b", "text": "unread"}])
    (data / "dataset_info.json").write_text(json.dumps(INFO))
    return data


@pytest.mark.parametrize("comment", ["_comment", "//", "#", "$schema", "__comment__"])
def test_read_dataset_info_comments_and_data_sets_without_file_are_no_rows(tmp_path: Path, comment: str) -> None:
    """The file became a task of its own, whose only row could not be read."""
    write_rows(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a"}])
    info = {comment: "our data", "a": {"file_name": "a.jsonl"}, "b": {"columns": {"prompt": "q"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    _, rows, written = migrate(tmp_path / "dataset_info.json", tmp_path / "project")
    assert list(rows) == ["a"]
    assert written.left_out == ["dataset_info.json: b: names no file and no hub id"]


def test_read_dataset_info_all_kinds_gives_equal_rows(llama_factory: Path, tmp_path: Path) -> None:
    config, rows, written = migrate(llama_factory / "dataset_info.json", tmp_path / "project")
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [{"role": "system", "content": "s"}, *chat("x", "y")["messages"], *chat("q\n\nc", "a")["messages"]]
    asked = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "a"},
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert rows == {
        "identity": [{"instruction": "hi", "response": "I am {{name}}"}],
        "named": [{"messages": turns}],
        "glaive": [{"messages": asked, "tools": [tool]}],
        "openai": [chat("q", "a")],
        "strange": [chat("q", "a")],
        "wiki": [{"text": "b"}],
    }
    hub = next(task for task in config.data.task if task.name == "alpaca_gpt4")
    assert (
        next(task for task in config.data.task if task.name == "folder").path == "hf://datasets/owner/many/wikipedia/en"
    )
    assert (hub.hub, hub.config, hub.split) == ("llamafactory/alpaca_gpt4_en", "en", "test")
    assert [line.partition(":")[2].strip() for line in written.left_out] == [
        "named.num_samples = 100: no equivalent in curator, which selects from all rows",
        "dpo: unsupported preference data",
        "mllm: unsupported images, audio or video (curator trains on text only)",
        "scripted: unsupported place of data: script_url",
        "missing: no such file: missing.json",
    ]
    assert '# "named" of dataset_info.json' in written.path.read_text()
    assert all(not Path(str(task.path)).is_absolute() for task in config.data.task if task.path)


def test_read_run_llama_factory_yaml_gives_recipe_and_tasks(llama_factory: Path, tmp_path: Path) -> None:
    run = {
        "model_name_or_path": "Qwen/Qwen3-4B",
        "stage": "sft",
        "template": "qwen3",
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_target": "all",
        "dataset": "identity, openai",
        "dataset_dir": "data",
        "cutoff_len": 2048,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "learning_rate": "1.0e-4",
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": True,
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(run))
    config, rows, written = migrate(tmp_path / "train.yaml", tmp_path / "project", target="openai")
    assert sorted(rows) == ["identity", "openai"]
    assert config.model.name_or_path == "Qwen/Qwen3-4B"
    assert config.model.dtype == "bfloat16"
    assert (config.lora.r, config.lora.target_modules, config.data.max_length) == (16, "all-linear", 2048)
    train = config.train
    assert (train.batch_size, train.gradient_accumulation, train.learning_rate, train.epochs) == (4, 8, 1e-4, 3)
    assert (train.schedule, train.warmup, config.data.target) == ("cosine", 0.1, "openai")
    assert written.left_out == ["train.yaml: template: no equivalent in curator"]


# -- axolotl ------------------------------------------------------------------------------------------------------

AXOLOTL = """\
base_model: base
load_in_4bit: true
adapter: qlora
datasets:
  - path: alpaca.jsonl
    type: alpaca
  - path: chats
    type: chat_template
    field_messages: talk
    message_property_mappings:
      role: speaker
      content: text
    roles:
      user: [human, customer]
      assistant: [agent]
    roles_to_train: ["assistant"]
  - path: json
    data_files: [open.jsonl, more/open2.jsonl]
    ds_type: json
    type: chat_template
    weight: 0.5
  - path: books.jsonl
    type: completion
    field: body
  - path: own.jsonl
    type:
      field_instruction: ask
      field_output: reply
  - path: Open-Orca/OpenOrca
    type: alpaca_w_system.load_open_orca
    split: train[:1%]
    shards: 10
  - path: mhenrichsen/alpaca_2k_test
    data_files: part.jsonl
    type: alpaca
  - path: segments.jsonl
    type: input_output
  - path: own.jsonl
    type: {field_instruction: ask, field_output: reply, format: "[INST] {instruction}"}
  - path: chats
    type: chat_template
    roles_to_train: ["user"]
val_set_size: 0.05
sequence_len: 4096
lora_r: 32
lora_alpha: 64
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
learning_rate: 2e-4
lr_scheduler: cosine
optimizer: adamw_bnb_8bit
bf16: auto
seed: 7
"""


def test_read_axolotl_full_yaml_gives_recipe_and_tasks(tmp_path: Path) -> None:
    there = tmp_path / "runs"
    (there / "base").mkdir(parents=True)
    write_rows(there / "alpaca.jsonl", [{"instruction": "i", "output": "o", "system": "unread"}])
    write_rows(
        there / "chats" / "a.jsonl",
        [{"talk": [{"speaker": "customer", "text": "q"}, {"speaker": "agent", "text": "a"}]}],
    )
    write_rows(there / "open.jsonl", [chat("q", "a")])
    write_rows(there / "more" / "open2.jsonl", [chat("r", "b")])
    write_rows(there / "books.jsonl", [{"body": "b", "text": "unread"}])
    write_rows(there / "own.jsonl", [{"ask": "q", "reply": "a"}])
    segments = [{"label": False, "text": "<s>q"}, {"label": True, "text": "a</s>"}]
    write_rows(there / "segments.jsonl", [{"segments": segments}])
    (there / "run.yaml").write_text(AXOLOTL)
    config, rows, written = migrate(there / "run.yaml", tmp_path / "project")
    hub = {task.name: task for task in config.data.task if not task.path or str(task.path).startswith("hf://")}
    assert rows == {
        "segments": [{"segments": segments}],
        "alpaca": [{"instruction": "i", "response": "o"}],
        "chats": [chat("q", "a")],
        "open": [chat("q", "a"), chat("r", "b")],
        "books": [{"text": "b"}],
        "own": [{"instruction": "q", "response": "a"}],
    }
    assert (hub["OpenOrca"].hub, hub["OpenOrca"].split) == ("Open-Orca/OpenOrca", "train[:1%]")
    assert hub["OpenOrca"].columns == {"system": "system_prompt", "instruction": "question", "output": "response"}
    assert hub["alpaca_2k_test"].path == "hf://datasets/mhenrichsen/alpaca_2k_test/part.jsonl"
    assert (tmp_path / "project" / config.model.name_or_path).resolve() == (there / "base").resolve()
    assert (config.model.quantization, config.model.dtype, config.data.max_length) == ("4bit", "auto", 4096)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (32, 64, 0.05)
    train = config.train
    assert (train.batch_size, train.gradient_accumulation, train.epochs, train.seed) == (2, 4, 1, 7)
    assert (train.learning_rate, train.schedule) == (2e-4, "cosine")
    skipped = "\n".join(written.left_out)
    for line in (
        "datasets[3] (json).weight = 0.5: no equivalent in curator, which selects from all rows",
        "datasets[6] (Open-Orca/OpenOrca).shards = 10: no equivalent in curator, which selects from all rows",
        "datasets[9] (own.jsonl): unsupported custom prompt format",
        "datasets[10] (chats): roles_to_train ['user']: curator trains on assistant turns only",
        "val_set_size: no equivalent in curator",
        "optimizer: no equivalent in curator",
    ):
        assert line in skipped
    assert len(written.left_out) == 6


# -- TRL ----------------------------------------------------------------------------------------------------------

TRL = """\
model_name_or_path: Qwen/Qwen3-0.6B
dtype: bfloat16
datasets:
  - path: trl-lib/tldr
    split: test
    columns: [prompt, completion]
  - path: json
    data_files: a.jsonl
    split: train
    columns: [messages]
    fraction: 0.6
  - path: json
    data_files: {train: [b.jsonl, c.jsonl], test: a.jsonl}
  - path: csv
    data_files: missing.csv
streaming: false
learning_rate: 2.0e-5
per_device_train_batch_size: 8
use_peft: true
lora_r: 8
lora_target_modules: [q_proj, v_proj]
max_length: 1024
packing: true
trust_remote_code: true
"""


def test_read_trl_mixture_gives_recipe_and_tasks(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [chat("q", "a") | {"text": "unread"}])
    write_rows(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c"}])
    write_rows(tmp_path / "c.jsonl", [{"prompt": [{"role": "user", "content": "q"}], "completion": "a"}])
    (tmp_path / "sft.yml").write_text(TRL)
    config, rows, written = migrate(tmp_path / "sft.yml", tmp_path / "project")
    assert rows == {"a": [chat("q", "a")], "b": [{"prompt": "p", "completion": "c"}, chat("q", "a")]}
    hub = next(task for task in config.data.task if task.hub)
    assert (hub.name, hub.hub, hub.split, hub.streaming) == ("tldr", "trl-lib/tldr", "test", False)
    assert config.model.name_or_path == "Qwen/Qwen3-0.6B"
    assert not config.model.trust_remote_code
    assert config.lora.target_modules == ("q_proj", "v_proj")
    assert (config.train.learning_rate, config.train.batch_size, config.data.max_length) == (2e-5, 8, 1024)
    assert [line.removeprefix("sft.yml: ") for line in written.left_out] == [
        "datasets[2] (json).fraction = 0.6: no equivalent in curator, which selects from all rows",
        "datasets[3] (json).data_files.test: name the file under validation_files or test_files in [data]",
        "datasets[4] (csv): no such file: missing.csv",
        "packing: no equivalent in curator",
        "trust_remote_code = True: set it under [model] if you trust the model's code",
    ]


def test_read_trl_single_data_set_gives_one_task(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(
        "model_name_or_path: m\ndataset_name: trl-lib/Capybara\ndataset_train_split: train\n"
    )
    config, _, _ = migrate(tmp_path / "sft.yaml", tmp_path / "project")
    assert [(task.name, task.hub) for task in config.data.task] == [("Capybara", "trl-lib/Capybara")]


# -- all of them --------------------------------------------------------------------------------------------------

# Configurations that `curator export` writes, each next to the files t_a.jsonl and t_b.jsonl.
EXPORTED = {
    "dataset_info.json": json.dumps(
        {
            name: {
                "file_name": f"{name}.jsonl",
                "formatting": "sharegpt",
                "num_samples": 3,
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "system_tag": "system",
                },
            }
            for name in ("t_a", "t_b")
        }
    ),
    "axolotl.yaml": """\
datasets:
  - {path: t_a.jsonl, ds_type: json, type: chat_template, field_messages: messages, weight: 0.5}
  - {path: t_b.jsonl, ds_type: json, type: chat_template, field_messages: messages}
""",
    "sft.yaml": """\
datasets:
  - {path: json, data_files: t_a.jsonl, split: train, columns: [messages], fraction: 0.6}
  - {path: json, data_files: t_b.jsonl, split: train, columns: [messages], fraction: 0.4}
""",
}


@pytest.mark.parametrize("name", EXPORTED)
def test_import_exported_configuration_gives_equal_rows(tmp_path: Path, name: str) -> None:
    rows = {task: [chat(f"{task} {n}", "a") for n in range(3)] for task in ("t_a", "t_b")}
    for task, found in rows.items():
        write_rows(tmp_path / "out" / f"{task}.jsonl", found)
    (tmp_path / "out" / name).write_text(EXPORTED[name])
    assert migrate(tmp_path / "out" / name, tmp_path / "project")[1] == rows


@pytest.mark.parametrize("name", EXPORTED)
def test_init_from_trainer_config_gives_project_that_checks(tmp_path: Path, tiny_llama_folder: Path, name: str) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    for task in ("t_a", "t_b"):
        write_rows(tmp_path / "out" / f"{task}.jsonl", [chat(f"{task} {n}", f"{n}") for n in range(4)])
    (tmp_path / "out" / name).write_text(EXPORTED[name])
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_llama_folder.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    make_tokenizer(bos=True, chat_template=template).save_pretrained(model)
    run = CliRunner()
    project = str(tmp_path / "project")
    made = run.invoke(
        app, ["init", project, "--from", str(tmp_path / "out" / name), "--model", str(model), "--target", "t_a"]
    )
    assert made.exit_code == 0, made.output
    assert "with 2 tasks" in made.stdout
    assert "not imported" not in made.stdout
    assert "not imported:" in made.stderr
    done = run.invoke(app, ["check", "-p", project, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {task["name"]: (task["rows"], task["formats"]) for task in report["tasks"]} == {
        "t_a": (4, {"OpenAI messages": 4}),
        "t_b": (4, {"OpenAI messages": 4}),
    }


def test_read_trainer_config_data_gives_none_and_bad_config_raises(tmp_path: Path) -> None:
    def made(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    for name, text in (
        ("rows.json", '[{"prompt": "a", "completion": "b"}]'),
        ("row.json", '{"prompt": "a", "completion": "b"}'),
        ("lines.json", '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": "b"}'),
        ("broken.json", "{"),
        ("t.jsonl", '{"a": {"file_name": "x"}}'),
    ):
        assert read_trainer_config(made(name, text)) is None
    assert read_trainer_config(tmp_path / "missing.yaml") is None
    for name, text, message in (
        ("broken.yaml", "a: [", "not valid YAML"),
        ("list.yaml", "- a", "not a configuration of LLaMA-Factory, axolotl or TRL"),
        ("other.yaml", "a: 1", "not a configuration of LLaMA-Factory, axolotl or TRL"),
        ("mixer.yaml", "dataset_mixer_list: [a.jsonl, 1.0]", "does not read a mixer of open-instruct"),
        (
            "run.yaml",
            "base_model: m\ndatasets: [{path: missing.jsonl, type: alpaca}]",
            "no usable data set: datasets.1. .missing.jsonl.: no such file or hub id: missing.jsonl",
        ),
        (
            "odd.yaml",
            "base_model: m\ndatasets: [{path: a/b, type: chat_template, roles: [x]}]",
            "unexpected structure",
        ),
        ("bad.yaml", "!!python/object/apply:os.system ['true']", "not valid YAML"),
    ):
        with pytest.raises(DataError, match=message):
            read_trainer_config(made(name, text))


@pytest.mark.parametrize("value", ["lora_r: -1", "learning_rate: fast", "lora_r: 1.5", "sequence_len: 1"])
def test_read_axolotl_invalid_value_is_skipped(tmp_path: Path, value: str) -> None:
    write_rows(tmp_path / "a.jsonl", [chat("q", "a")])
    (tmp_path / "run.yaml").write_text(f"base_model: m\ndatasets: [{{path: a.jsonl, type: chat_template}}]\n{value}\n")
    _, _, written = migrate(tmp_path / "run.yaml", tmp_path / "project")
    assert len(written.left_out) == 1
    assert written.left_out[0].startswith(f"run.yaml: {value.partition(':')[0]} = ")


def test_init_task_column_gives_task_per_value(tmp_path: Path) -> None:
    rows = [chat(f"{n}", "a") | {"kind": kind} for n, kind in enumerate(["x", 'y "z"', "x", 3])]
    write_rows(tmp_path / "all.jsonl", rows)
    run = CliRunner()
    made = run.invoke(
        app, ["init", str(tmp_path / "p"), "--from", str(tmp_path / "all.jsonl"), "--task-column", "kind"]
    )
    assert made.exit_code == 0, made.output
    sources = find_tasks(load_config(tmp_path / "p" / "curator.toml").data, tmp_path / "p")
    assert {s.name: [r.line for r in read_task(s)] for s in sources} == {"3": [4], "x": [1, 3], 'y "z"': [2]}
    with pytest.raises(CuratorError, match="no text or number in the task column 'task'"):
        write_project(tmp_path / "q", [str(tmp_path / "all.jsonl")], model=None, target=None, task_column="task")


# -- oumi, ms-swift and chat templates ----------------------------------------------------------------------------


def test_read_oumi_yaml_gives_recipe_and_tasks(tmp_path: Path) -> None:
    write_rows(tmp_path / "there" / "chats.jsonl", [chat("q", "a")])
    write_rows(tmp_path / "there" / "pairs.jsonl", [{"ask": "q", "reply": "a", "id": 3}])
    run = {
        "model": {
            "model_name": "owner/base",
            "model_max_length": 2048,
            "torch_dtype_str": "bfloat16",
            "trust_remote_code": True,
        },
        "data": {
            "train": {
                "collator_name": "text_with_padding",
                "pack": True,
                "datasets": [
                    {"dataset_name": "text_sft"}
                    | {"dataset_kwargs": {"dataset_path": "chats.jsonl"}, "mixture_proportion": 0.5},
                    {
                        "dataset_name": "PromptResponseDataset",
                        "dataset_kwargs": {
                            "hf_dataset_path": "pairs.jsonl",
                            "prompt_column": "ask",
                            "response_column": "reply",
                        },
                    },
                    {"dataset_name": "yahma/alpaca-cleaned", "split": "train"},
                    {"dataset_name": "vl_sft", "dataset_path": "chats.jsonl"},
                ],
            },
            "validation": {"datasets": [{"dataset_name": "text_sft", "dataset_path": "chats.jsonl"}]},
        },
        "training": {
            "trainer_type": "TRL_SFT",
            "num_train_epochs": 2,
            "learning_rate": 1e-4,
            "optimizer": "adamw_torch",
        },
        "peft": {"lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj"]},
    }
    (tmp_path / "there" / "train.yaml").write_text(yaml.safe_dump(run))
    config, rows, written = migrate(tmp_path / "there" / "train.yaml", tmp_path / "project", target="chats")
    assert rows == {"chats": [chat("q", "a")], "pairs": [{"prompt": "q", "completion": "a"}]}
    assert [task.hub for task in config.data.task if task.hub] == ["yahma/alpaca-cleaned"]
    assert (config.model.name_or_path, config.model.dtype, config.data.max_length) == ("owner/base", "bfloat16", 2048)
    assert (config.train.epochs, config.train.learning_rate, config.lora.r) == (2, 1e-4, 4)
    assert (config.lora.alpha, config.lora.target_modules, config.model.trust_remote_code) == (8, ("q_proj",), False)
    assert written.left_out == [
        "train.yaml: data.train.datasets[1] (text_sft).mixture_proportion = 0.5: no equivalent in curator, which"
        " selects from all rows",
        "train.yaml: data.train.datasets[4] (vl_sft): unsupported data set: vl_sft",
        "train.yaml: trust_remote_code = True: set it under [model] if you trust the model's code",
        "train.yaml: optimizer: no equivalent in curator",
        "train.yaml: data.train.pack = True: no equivalent in curator",
        "train.yaml: data.validation: name the file under validation_files or test_files in [data]",
    ]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            {"base_model": "m", "datasets": [{"path": "chats.jsonl", "type": "chat_template", "roles_to_train": []}]},
            "datasets[1] (chats.jsonl).roles_to_train = []: no equivalent in curator",
        ),
        (
            {
                "model": {},
                "data": {"train": {"datasets": [{"dataset_name": "text_sft", "dataset_path": "chats.jsonl"}]}},
            }
            | {"training": {"trainer_type": "TRL_DPO"}},
            "trainer_type: no equivalent in curator",
        ),
        (
            {"datasets": [{"path": "json", "data_files": {"train": "chats.jsonl", "test": "chats.jsonl"}}]},
            "datasets[1] (json).data_files.test: name the file under validation_files or test_files in [data]",
        ),
        (
            {
                "datasets": [
                    {"path": "chats.jsonl"},
                    {"path": "chats.jsonl", "columns": ["prompt", "chosen", "rejected"]},
                ]
            },
            "datasets[2] (chats.jsonl): unsupported preference data",
        ),
    ],
    ids=["axolotl", "oumi", "splits", "preferences"],
)
def test_read_trainer_config_says_what_it_does_not_take(tmp_path: Path, run: dict[str, Any], said: str) -> None:
    write_rows(tmp_path / "chats.jsonl", [chat("q", "a")])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    imported = read_trainer_config(tmp_path / "run.yaml")
    assert imported is not None
    assert said in imported.left_out
    assert [table.keys["name"] for table in imported.tables] == ["chats"]


def test_read_run_llama_factory_data_set_named_twice_is_said(llama_factory: Path) -> None:
    name = next(iter(json.loads((llama_factory / "dataset_info.json").read_text())))
    run = llama_factory / "twice.yaml"
    run.write_text(f"model_name_or_path: m\ndataset: {name},{name}\ndataset_dir: {llama_factory}\n")
    imported = read_trainer_config(run)
    assert imported is not None
    assert any(line.startswith(f"{name} (named 2 times): read once") for line in imported.left_out)


def test_read_swift_yaml_gives_recipe_and_tasks(tmp_path: Path) -> None:
    write_rows(tmp_path / "chats.jsonl", [chat("q", "a")])
    run = {
        "model": "Qwen/Qwen3-4B",
        "use_hf": True,
        "tuner_type": "lora",
        "dataset": ["chats.jsonl#500", "HF::owner/more:en#20", "missing.jsonl"],
        "val_dataset": ["chats.jsonl"],
        "torch_dtype": "bfloat16",
        "max_length": 1024,
        "lora_rank": 16,
        "target_modules": ["all-linear"],
        "learning_rate": 1e-4,
        "template": "qwen3",
    }
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(run))
    config, rows, written = migrate(tmp_path / "sft.yaml", tmp_path / "project", target="chats")
    assert rows == {"chats": [chat("q", "a")]}
    assert [(task.hub, task.config) for task in config.data.task if task.hub] == [("owner/more", "en")]
    assert (config.model.name_or_path, config.model.dtype) == ("Qwen/Qwen3-4B", "bfloat16")
    assert (config.lora.r, config.lora.target_modules, config.data.max_length) == (16, "all-linear", 1024)
    assert written.left_out == [
        "sft.yaml: dataset[1] (chats.jsonl#500): 500 rows: no equivalent in curator, which selects from all rows",
        "sft.yaml: dataset[2] (HF::owner/more:en#20): 20 rows: no equivalent in curator, which selects from all rows",
        "sft.yaml: dataset[3] (missing.jsonl): no such file or hub id: missing.jsonl",
        "sft.yaml: val_dataset: name the file under validation_files in [data]",
        "sft.yaml: template: no equivalent in curator",
    ]


def test_read_swift_data_set_of_modelscope_is_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "chats.jsonl", [chat("q", "a")])
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"model": "m/n", "dataset": ["chats.jsonl", "AI-ModelScope/x"]}))
    _, _, written = migrate(tmp_path / "sft.yaml", tmp_path / "project")
    assert written.left_out == [
        "sft.yaml: dataset[2] (AI-ModelScope/x): a data set of ModelScope (curator reads the hub of Hugging Face)"
    ]


@pytest.mark.parametrize(
    "run",
    [
        {"datasets": [{"path": "json", "data_files": "chats.jsonl"}], "chat_template_path": "t.jinja"},
        {
            "base_model": "owner/base",
            "datasets": [{"path": "chats.jsonl", "type": "chat_template"}],
            "chat_template": "jinja",
            "chat_template_jinja": CHAT_TEMPLATE,
        },
    ],
    ids=["trl", "axolotl"],
)
def test_read_trainer_config_with_chat_template_sets_it(tmp_path: Path, run: dict[str, Any]) -> None:
    write_rows(tmp_path / "there" / "chats.jsonl", [chat("q", "a")])
    (tmp_path / "there" / "t.jinja").write_text(CHAT_TEMPLATE)
    (tmp_path / "there" / "run.yaml").write_text(yaml.safe_dump(run))
    config, _, written = migrate(tmp_path / "there" / "run.yaml", tmp_path / "project")
    assert written.left_out == []
    assert config.data.chat_template == (CHAT_TEMPLATE if "base_model" in run else "../there/t.jinja")
    assert find_template(config.data.chat_template, tmp_path / "project", tmp_path) == CHAT_TEMPLATE


def test_read_task_segments_carry_loss_where_labelled(tmp_path: Path) -> None:
    """The tokens and labels are those of axolotl: segment by segment, without added tokens."""
    parts = [(False, "<s>the "), (True, "one"), (False, " is "), (True, "two</s>")]
    write_rows(tmp_path / "s.jsonl", [{"segments": [{"label": label, "text": text} for label, text in parts]}])
    tokenizer = make_tokenizer(bos=True)
    (row,) = read_task(Source(name="s", files=(tmp_path / "s.jsonl",)))
    encoded = Encoder(tokenizer, max_length=64, encoder_decoder=False).encode(row.content)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in parts]
    assert list(encoded.input_ids) == [*itertools.chain(*ids)]
    labels = [some if label else [-100] * len(some) for (label, _), some in zip(parts, ids, strict=True)]
    assert list(encoded.labels) == [*itertools.chain(*labels)]
    assert (encoded.text, encoded.spans) == ("<s>the one is two</s>", (7, 10, 14, 21))
    assert row.format == "segments"


@pytest.mark.parametrize("segments", [[], "text", [{"text": "x"}], [{"label": 1, "text": "x"}]])
def test_read_task_damaged_segments_names_the_line(tmp_path: Path, segments: Any) -> None:
    write_rows(tmp_path / "s.jsonl", [{"segments": segments}])
    with pytest.raises(DataError, match=r"s\.jsonl:1: 'segments' must be a list of parts"):
        read_task(Source(name="s", files=(tmp_path / "s.jsonl",)))
