"""Projects from what a program holds in memory, and the results that go back into a program."""

import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from conftest import MakeProject, make_tokenizer, pair_rows, write_rows
from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM, AutoTokenizer

import curator
from curator import results
from curator.cli.app import app
from curator.core.errors import ConfigError, DataError
from curator.core.files import partial_name
from curator.project.saved_objects import save_rows

QUICK: dict[str, dict[str, Any]] = {
    "lora": {"r": 2, "alpha": 4},
    "data": {"validation": 0.3, "max_length": 64},
    "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
    "gradients": {"projection_dim": 16, "points": [0.5, 1.0]},
    "estimate": {"method": "quadratic"},
    "select": {"subsets": 50},
}
# Commands that print or serve, and are not part of the Python interface. Other names of methods.
NO_METHOD = {"tui", "mcp"}
METHODS = {"init": "create", "selections": "saved_selections"}
# Options of one command that another method takes.
ELSEWHERE: dict[tuple[str, str], Any] = {
    ("check", "store"): curator.Project.check_store,
    ("estimate", "subsets"): curator.Project.estimate_all,
    ("verify", "plot"): curator.plot_verify,
    ("curve", "plot"): curator.plot_curve,
    ("curve", "pareto"): curator.Project.pareto,
    # The report lists the most harmful examples last, with their hashes.
    ("examples", "drop_harmful"): curator.Project.examples,
    ("init", "sources"): curator.Project.create,
    ("apply", "manifests"): curator.Project.apply_all,
    # Each action has a method of its own.
    ("selections", "action"): curator.Project.rename_selection,
    ("selections", "words"): curator.Project.rename_selection,
    ("selections", "target"): curator.Project.rename_selection,
    **{
        (verb, "dry_run"): curator.Project.costs
        for verb in ("train", "gradients", "estimate", "select", "verify", "curve", "apply")
    },
}
# Options that decide how a command prints, or which files it reads instead of an argument.
PRINTING = {"project", "as_json", "quiet", "verbose", "details", "top", "format", "output", "help", "log_file"}
RENAMED = {"tasks": "subset", "folder": "path", "report_only": "report", "of": "task"}


def _memory(tiny_llama_folder: Path) -> dict[str, Any]:
    return {
        "model": AutoModelForCausalLM.from_pretrained(tiny_llama_folder),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_llama_folder),
    }


def _tasks(folder: Path) -> dict[str, Any]:
    return {
        "target": Dataset.from_list(pair_rows("target", 12)),
        "alpha": pair_rows("alpha", 8),
        "beta": write_rows(folder / "elsewhere" / "b.jsonl", pair_rows("beta", 8)),
        "gam/ma": Dataset.from_list(pair_rows("gamma", 8)),
    }


def test_create_from_memory_gives_selection_of_equal_files(
    make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    made = curator.Project.create(
        tmp_path / "made", _tasks(tmp_path), target="target", settings=QUICK, **_memory(tiny_llama_folder)
    )
    assert made.config.train.epochs == 1
    assert made.config.gradients.points == (0.5, 1.0)
    assert (made.root / "model" / "model.safetensors").is_file()
    rows = {name: pair_rows(name, 8) for name in ("alpha", "beta")}
    files = make_project(
        tasks={"target": pair_rows("target", 12), "gam_ma": pair_rows("gamma", 8), **rows}, train={"epochs": 1}
    )
    (found, expected) = (made.select(), curator.Project.open(files).select())
    assert {t.name for t in found.tasks} == {"alpha", "beta", "gam/ma"}
    assert found.selected == [name.replace("gam_ma", "gam/ma") for name in expected.selected]
    assert found.estimated_loss == pytest.approx(expected.estimated_loss, abs=1e-5)


def test_create_again_with_same_content_keeps_results(tiny_llama_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"target": "target", "settings": QUICK, **_memory(tiny_llama_folder)}
    curator.Project.create(tmp_path / "p", _tasks(tmp_path), **given).select()
    with pytest.raises(ConfigError, match="exists already"):
        curator.Project.create(tmp_path / "p", _tasks(tmp_path), **given)
    again = curator.Project.create(tmp_path / "p", _tasks(tmp_path), replace=True, **given)
    assert again.select().cached
    fewer = {"target": _tasks(tmp_path)["target"], "alpha": pair_rows("alpha", 8)}
    assert [t.name for t in curator.Project.create(tmp_path / "p", fewer, replace=True, **given).check().tasks] == [
        "alpha",
        "target",
    ]


def test_save_rows_after_a_kill_removes_its_partial_file(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / partial_name("a.parquet").replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    left.write_text("x")
    assert save_rows(Dataset.from_list(pair_rows("a", 3)), tmp_path / "a", "a") == tmp_path / "a.parquet"
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_create_of_rows_with_task_column_makes_a_task_of_each_value(tiny_llama_folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "task": name} for name in ("a", "b", "c") for row in pair_rows(name, 6)]
    held_out = pair_rows("held", 5)
    project = curator.Project.create(
        tmp_path / "p",
        Dataset.from_list(rows),
        task_column="task",
        target="b",
        validation={"b": held_out},
        model=tiny_llama_folder,
    )
    found = {task.name: (task.examples, task.validation) for task in project.check().tasks}
    assert found == {"a": (6, 0), "b": (6, 5), "c": (6, 0)}
    with pytest.raises(ConfigError, match="rows have no task"):
        curator.Project.create(tmp_path / "q", Dataset.from_list(rows), target="b", model=tiny_llama_folder)


def test_create_with_other_tokenizer_joins_it_with_linked_weights(tiny_gpt2_folder: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    project = curator.Project.create(
        tmp_path / "p", {"t": pair_rows("t", 6)}, target="t", model=tiny_gpt2_folder, tokenizer=tokenizer
    )
    assert (project.root / "model" / "model.safetensors").is_symlink()
    assert AutoTokenizer.from_pretrained(project.root / "model").chat_template == tokenizer.chat_template
    assert project.check().tasks[0].examples > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tasks": {"t": [{"prompt": object()}]}}, "row 1 of task 't' has no JSON form"),
        ({"tasks": {"t": ["text"]}}, "row 1 of task 't' is not a mapping"),
        ({"tasks": {"t": DatasetDict()}}, "task 't' is a mapping"),
        ({"tasks": {"t": 7}}, "not a collection of rows"),
        ({"target": "x"}, "unknown target: 'x'"),
        ({"settings": {"trian": {}}}, "unknown section: 'trian'"),
        ({"settings": {"train": {"epoch": 1}}}, r"unknown key of \[train\]: 'epoch'"),
        ({"settings": {"train": {"epochs": -1}}}, "train.epochs: must be greater than 0"),
        ({"model": torch.nn.Linear(1, 1)}, "not a model of transformers"),
    ],
)
def test_create_invalid_argument_says_what_is_wrong_and_leaves_no_project(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    arguments = {"tasks": {"t": pair_rows("t", 6)}, "target": "t", **given}
    with pytest.raises((ConfigError, DataError), match=words) as caught:
        curator.Project.create(tmp_path / "p", **arguments)
    assert caught.value.hint
    assert not (tmp_path / "p" / "curator.toml").exists()


def test_create_model_without_tokenizer_or_with_adapter_is_refused(tiny_llama_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = _memory(tiny_llama_folder)["model"]
    tasks = {"t": pair_rows("t", 6)}
    with pytest.raises(ConfigError, match="has no tokenizer"):
        curator.Project.create(tmp_path / "p", tasks, target="t", model=model)
    with pytest.raises(ConfigError, match="has a peft adapter"):
        curator.Project.create(
            tmp_path / "p",
            tasks,
            target="t",
            model=get_peft_model(model, LoraConfig(target_modules="all-linear")),
            tokenizer=make_tokenizer(),
        )


def test_to_datasets_hold_examples_of_selection_with_curators_tokens(make_project: MakeProject) -> None:
    project = curator.Project.open(make_project(train={"epochs": 1}))
    result = project.select(include=["beta"], exclude=["gamma"])
    data = result.to_datasets()
    assert set(data["train"].unique("task")) == {*result.selected, "target"}
    assert set(data["validation"].unique("task")) == {"target"}
    assert (len(data["train"]) - 8 * len(result.selected), len(data["validation"])) == (8, 4)
    row = data["train"].filter(lambda row: row["task"] == "beta")[0]
    tokenizer = AutoTokenizer.from_pretrained(project.root / "model")
    first = pair_rows("beta", 8)[0]
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == first["prompt"] + first["completion"]
    loss = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(loss, skip_special_tokens=True) == first["completion"]
    assert set(project.to_datasets()["train"].unique("task")) == {"alpha", "beta", "gamma", "target"}
    assert project.to_datasets("forward")["train"].to_dict() == data["train"].to_dict()
    assert pickle.loads(pickle.dumps(result)).to_datasets()["train"].to_dict() == data["train"].to_dict()


def test_to_datasets_with_weights_repeat_examples(make_project: MakeProject) -> None:
    project = curator.Project.open(make_project(train={"epochs": 1}))
    result = project.select(method="mixture")
    counts = dict(zip(*np.unique(result.to_datasets()["train"]["task"], return_counts=True), strict=True))
    applied = {task.name: task.examples for task in project.apply().tasks if task.examples}
    assert {str(name): int(count) for name, count in counts.items()} == applied


def test_to_datasets_train_an_sft_trainer_in_one_line(make_project: MakeProject, tmp_path: Path) -> None:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    project = curator.Project.open(make_project(train={"epochs": 1}))
    data = project.select().to_datasets()
    trainer = SFTTrainer(
        str(project.root / "model"),
        args=SFTConfig(
            str(tmp_path / "out"), max_steps=2, bf16=False, use_cpu=True, report_to="none", save_strategy="no"
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        peft_config=LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"),
    )
    before = trainer.evaluate()["eval_loss"]
    assert np.isfinite(trainer.train().training_loss)
    # The untrained adapter changes nothing, so the loss is that of the base model on curator's tokens.
    corpus = project.corpus(("target",))
    from curator.data.corpus import validation_examples
    from curator.training.trainer import measure_losses

    examples = validation_examples(corpus.target_tasks[0], project.store)
    tuned = project._pipeline.load()
    tuned.reset(0)
    counts = np.array([sum(label != -100 for label in example.labels[1:]) for example in examples])
    expected = (measure_losses(tuned, examples, batch_tokens=4096) * counts).sum() / counts.sum()
    assert before == pytest.approx(expected, rel=1e-4)


def test_repr_of_result_is_one_short_line(make_project: MakeProject) -> None:
    project = curator.Project.open(make_project(train={"epochs": 1}))
    for result in (project.check(), project.select(), project.status(), project.estimate(["alpha"])):
        assert len(repr(result)) < 700, repr(result)
        assert "\n" not in repr(result)
    many = results.EstimateResult(
        subset=tuple(f"\x1b[31mtask {n}" for n in range(1000)),
        estimate=results.Interval(0.5, 0.25, 1 / 3),
        measured_loss=None,
        as_good_as_best=True,
    )
    assert repr(many) == (
        "EstimateResult(subset=['\ufffd[31mtask 0', '\ufffd[31mtask 1', '\ufffd[31mtask 2', '\ufffd[31mtask 3',"
        " … 1000 in all], estimated_loss=0.5, estimated_loss_low=0.25, estimated_loss_high=0.3333, measured_loss=None,"
        " as_good_as_best=True)"
    )
    assert "tasks=<3 rows>" in repr(project.select())
    assert project.select().to_frame()["name"].tolist() == ["alpha", "beta", "gamma"]


def test_store_reports_are_those_of_the_command_line(
    make_project: MakeProject, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from curator.cli.main import main

    folder = make_project(train={"epochs": 1})
    project = curator.Project.open(folder)
    project.check()
    monkeypatch.setattr("sys.argv", ["curator", "check", "--store", "--json", "-p", str(folder)])
    with pytest.raises(SystemExit):
        main()
    assert project.check_store().to_json() == json.loads(capsys.readouterr().out)
    assert project.export_store(tmp_path / "saved").sound
    assert (tmp_path / "saved" / "examples.parquet").is_file()


def test_export_dry_run_counts_rows_and_writes_nothing(make_project: MakeProject, tmp_path: Path) -> None:
    project = curator.Project.open(make_project(train={"epochs": 1}))
    project.select(name="s")
    planned = project.export("s", output=tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert project.export("s", output=tmp_path / "out").to_json() == planned.to_json()


def test_export_push_to_hub_offline_keeps_export_and_says_why(make_project: MakeProject, tmp_path: Path) -> None:
    """The tests have no hub. The upload itself is not tested."""
    project = curator.Project.open(make_project(train={"epochs": 1}))
    project.select(name="s")
    with pytest.raises(ConfigError, match="cannot upload an export in the format 'jsonl'"):
        project.export("s", output=tmp_path / "out", push_to_hub="owner/name")
    with pytest.raises(ConfigError, match="not the name of a hub data set"):
        project.export("s", format="hf", output=tmp_path / "out", push_to_hub="name")
    with pytest.raises(DataError, match=r"cannot upload .* to 'owner/name'"):
        project.export("s", format="hf", output=tmp_path / "out", push_to_hub="owner/name")
    assert (tmp_path / "out" / "dataset_dict.json").is_file()


def test_every_command_and_option_has_a_method_and_a_parameter() -> None:
    group: Any = typer.main.get_command(app)
    missing = []
    for name, command in group.commands.items():
        if name in NO_METHOD:
            continue
        method = getattr(curator.Project, METHODS.get(name, name.replace("-", "_")), None)
        if method is None:
            missing.append(f"curator {name} has no method")
            continue
        taken = {*inspect.signature(method).parameters, *inspect.signature(curator.Project.open).parameters}
        for parameter in command.params:
            known = RENAMED.get(parameter.name, parameter.name)
            if not {parameter.name, known} & (taken | PRINTING) and (name, parameter.name) not in ELSEWHERE:
                missing.append(f"curator {name} {parameter.opts[-1]} has no parameter of Project.{method.__name__}")
    assert missing == []
