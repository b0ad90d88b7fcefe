"""Compare the tokens and labels that trainers read from an export with those of curator.

The tests always run TRL. LLaMA-Factory, axolotl, oumi and ms-swift run in virtual environments of their own if
CURATOR_TEST_TRAINERS is set, to a folder or to 1. With 1, the environments are in pytest's cache.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import CHAT_TEMPLATE, make_tokenizer, pair_rows, write_rows
from manifests import manifest_of

from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoded, Encoder
from curator.export import export
from curator.export.forms import same
from curator.results.outputs import ExportReport

Rows = dict[str, list[dict[str, Any]]]

MAX_LENGTH = 64
# CHAT_TEMPLATE with marks around the text that carries loss.
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLES = {"u": "user", "a": "assistant", "s": "system"}


def chat(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": ROLES[turn[0]], "content": turn[2:]} for turn in turns]}


CASES: dict[str, tuple[dict[str, Any], Rows]] = {
    "pairs": ({"bos": True}, {"target": pair_rows("target", 6), "one": pair_rows("one", 5)}),
    "text": ({"bos": True}, {"target": [{"text": f"the sum {n} is"} for n in range(5)]}),
    "straddling": ({}, {"target": [{"prompt": "the ", "completion": "one"}] * 3, "one": pair_rows("one", 4)}),
    "eos": ({"bos": True, "eos": True}, {"target": pair_rows("target", 3)}),
    "instructions": ({"chat_template": CHAT_TEMPLATE}, {"target": [{"instruction": "q", "output": "a"}] * 3}),
    "chats": (
        {"chat_template": CHAT_TEMPLATE},
        {"target": [chat("s:x", "u:q", "a:a", "u:r", "a:bb")] * 3, "one": [chat("u:q", "a:b")] * 2},
    ),
    "marked": (
        {"chat_template": MARKED},
        {"target": [chat("u:q", "a:a", "u:r", "a:bb")] * 3, "one": [chat("u:q", "a:b")] * 2},
    ),
    "mixed": (
        {"bos": True, "chat_template": CHAT_TEMPLATE},
        {"target": pair_rows("target", 3), "one": [{"text": "red"}] * 2, "two": [chat("u:q", "a:b")] * 2},
    ),
    "cut off": ({}, {"target": pair_rows("target", 3), "one": [{"prompt": "one", "completion": " two" * 90}] * 2}),
}
# Held-out rows of each case, of the same kind as the training rows.
HELD_OUT: Rows = {
    "pairs": pair_rows("held out", 2),
    "text": [{"text": "held out"}],
    "straddling": [{"prompt": "a ", "completion": "one"}],
    "eos": pair_rows("held out", 2),
    "instructions": [{"instruction": "held out", "output": "b"}],
    "chats": [chat("u:held", "a:out", "u:r", "a:bb")],
    "marked": [chat("u:held", "a:out", "u:r", "a:bb")],
    "mixed": pair_rows("held out", 2),
    "cut off": pair_rows("held out", 2),
}
FORMS = {
    "trl": "prompt-completion text prompt-completion tokens prompt-completion tokens messages tokens prompt-completion",
    "llamafactory": "turns turns tokens turns turns tokens turns turns tokens",
    "axolotl": "segments segments tokens segments segments segments segments segments segments",
    "oumi": "tokens " * 9,
    "swift": "answers " * 9,
}
# Rows that a trainer reads with other tokens or labels, by case. docs/reference/export.md gives the reasons.
DIFFERING = {"swift": {"straddling": 3, "chats": 3, "marked": 3, "mixed": 2}}
# The same for the held-out rows.
DIFFERING_HELD_OUT = {"swift": {"straddling": 1, "chats": 1, "marked": 1}}


@dataclass(frozen=True)
class Exported:
    """Hold an export, and the rows as curator encodes them."""

    folder: Path
    report: ExportReport
    wanted: list[Encoded]
    held_out: list[Encoded]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Callable[[str, str], Exported]:
    """Return a function `exported(case, format)`."""
    root = tmp_path_factory.mktemp("exports")

    def get(case: str, format: str) -> Exported:
        options, tasks = CASES[case]
        data, model = root / case, root / case / "model"
        if not data.exists():
            shutil.copytree(tiny_llama_folder, model)
            make_tokenizer(**options).save_pretrained(model)
            for task, rows in tasks.items():
                write_rows(data / f"{task}.jsonl", rows)
            write_rows(data / "held-out.jsonl", HELD_OUT[case])
        held_out = manifest_of(data, "held-out").targets[0].files
        manifest = manifest_of(
            data,
            *tasks,
            model={"name_or_path": "model", "revision": "", "sha256": "x"},
            lora={"r": 2, "alpha": 4.0},
            train={"epochs": 1, "batch_size": 3, "learning_rate": 3e-5, "seed": 5},
            data={"max_length": MAX_LENGTH},
        )
        target = manifest.targets[0].model_copy(update={"validation_files": held_out})
        manifest = manifest.model_copy(update={"targets": (target,)})
        folder = data / format
        report = export(manifest, data, format=format, folder=folder)
        encoder = Encoder(make_tokenizer(**options), max_length=MAX_LENGTH, encoder_decoder=False)

        def encoded(*names: str) -> list[Encoded]:
            sources = [Source(name=name, files=(data / f"{name}.jsonl",)) for name in names]
            return [encoder.encode(row.content) for source in sources for row in read_task(source)]

        return Exported(folder, report, encoded(*tasks), encoded("held-out"))

    return get


def check(found: list[Any], wanted: list[Encoded]) -> None:
    assert len(found) == len(wanted)
    for (ids, labels), encoded in zip(found, wanted, strict=True):
        assert same((list(ids), list(labels)), encoded), (ids, labels, encoded)


def count_differing(found: list[Any], wanted: list[Encoded]) -> int:
    """Count the rows that no found row equals, in any order."""
    assert len(found) == len(wanted)
    left = list(wanted)
    for ids, labels in found:
        partner = next((n for n, encoded in enumerate(left) if same((list(ids), list(labels)), encoded)), None)
        if partner is not None:
            del left[partner]
    return len(left)


@pytest.mark.parametrize("case", CASES)
def test_export_trl_reads_the_tokens_and_labels_of_curator(
    exported: Callable[[str, str], Exported], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use TRL's own parser, mixture and trainer, in the order of TRL's script."""
    from trl import SFTTrainer, get_peft_config
    from trl.scripts.sft import make_parser

    found = exported(case, "trl")
    folder, report = found.folder, found.report
    assert report.form == FORMS["trl"].split()[list(CASES).index(case)]
    assert report.rows_differing == 0
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["sft", "--config", "sft.yaml"])
    script, training, model, data = make_parser().parse_args_and_config(fail_with_unknown_args=True)
    assert not data.datasets
    loaded = datasets.load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)
    mixture, validation = loaded[script.dataset_train_split], loaded[script.dataset_test_split]
    assert [task.rows for task in report.tasks] == [len(rows) for rows in CASES[case][1].values()]
    assert len(mixture) == sum(task.rows for task in report.tasks)
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=mixture,
        eval_dataset=validation,
        peft_config=get_peft_config(model),
    )
    check([(row["input_ids"], row["labels"]) for row in trainer.train_dataset], found.wanted)
    check([(row["input_ids"], row["labels"]) for row in trainer.eval_dataset], found.held_out)
    assert (training.eval_strategy, training.per_device_eval_batch_size) == ("epoch", 1)
    peft = trainer.model.peft_config["default"]
    assert (peft.r, peft.lora_alpha, training.learning_rate, training.seed) == (2, 4, 3e-5, 5)
    assert (training.per_device_train_batch_size, training.num_train_epochs, training.max_length) == (3, 1, MAX_LENGTH)
    # The gradients are those of LoRA on all linear layers.
    adapted = {name.split(".")[-4] for name, _ in trainer.model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.timeout(900)
def test_export_trl_trains_the_sample_model(tmp_path: Path) -> None:
    sample = Path(__file__).parents[2] / "sample_data"
    manifest = manifest_of(
        sample / "tasks",
        "topic",
        "rare_nouns",
        "word_topic",
        model={"name_or_path": "../model", "revision": "", "sha256": "x", "dtype": "float32"},
        train={"batch_size": 8},
        data={"max_length": 128},
    )
    report = export(manifest, sample / "tasks", format="trl", folder=tmp_path / "out")
    assert [task.rows for task in report.tasks] == [300, 120, 130]
    command = [str(Path(sysconfig.get_path("scripts")) / "trl"), *report.command.split()[1:], "--max_steps", "2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, cwd=tmp_path / "out", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "output" / "adapter_model.safetensors").is_file()
    state = json.loads((tmp_path / "out" / "output" / "adapter_config.json").read_text())
    assert state["r"] == 8


# -- in virtual environments of their own --------------------------------------------------------------------------

# Packages that the parsers import. The environment of the tests has the other dependencies.
PACKAGES = {
    "llamafactory": ["llamafactory==0.9.5", "omegaconf==2.3.0", "antlr4-python3-runtime==4.9.3", "torchaudio"],
    "axolotl": [
        *("axolotl==0.21.0", "addict", "colorama", "posthog", "requests", "urllib3", "certifi", "distro", "numba"),
        "llvmlite",
    ],
    "oumi": [
        *("oumi==0.9", "omegaconf==2.4.0.dev4", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"),
        *("wandb", "protobuf", "mlflow", "databricks", "cachetools", "fastapi", "starlette", "importlib-metadata"),
        *("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-proto", "opentelemetry-semantic-conventions"),
        *("sqlparse", "lazy-importer", "jsonlines", "pexpect", "ptyprocess", "tensorboard", "tensorboard-data-server"),
        *("absl-py", "grpcio", "markdown", "werkzeug", "requests", "urllib3", "certifi"),
    ],
    "swift": [
        *("ms-swift==4.6.0", "modelscope", "modelscope-hub", "requests", "urllib3", "certifi", "addict", "json-repair"),
        *("einops", "fastapi", "starlette", "binpacking", "dacite", "cryptography", "cffi", "pycparser"),
    ],
}


@pytest.fixture(scope="module")
def python_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Return a function `python_of(trainer)`: the Python of an environment with the trainer."""
    wanted = os.environ.get("CURATOR_TEST_TRAINERS", "")
    if not wanted:
        pytest.skip("set CURATOR_TEST_TRAINERS=1 to install and test the trainers")
    root = Path(wanted) if os.sep in wanted else Path(request.config.cache.mkdir("trainers"))

    def get(trainer: str) -> Path:
        folder = root / trainer
        python = folder / "bin" / "python"
        if (folder / "complete").is_file():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        # axolotl requires Python 3.12, but its parser runs on 3.11 too.
        command = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--ignore-requires-python"]
        done = subprocess.run([*command, *PACKAGES[trainer]], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{trainer} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        # The compiled library needs CUDA. The Python part is enough here.
        shutil.rmtree(site / "torchaudio" / "lib", ignore_errors=True)
        (site / "zz_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / "complete").touch()
        return python

    return get


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("trainer", PACKAGES)
def test_export_trainer_reads_the_tokens_and_labels_of_curator(
    exported: Callable[[str, str], Exported], python_of: Callable[[str], Path], trainer: str
) -> None:
    """Use the trainer's own parser and tokenization, with all cases in one process."""
    python = python_of(trainer)
    cases = [exported(case, trainer) for case in CASES]
    assert [case.report.form for case in cases] == FORMS[trainer].split()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = Path(__file__).parent / "trainers" / f"read_{trainer}.py"
    done = subprocess.run(
        [str(python), str(script), *(str(case.folder) for case in cases)],
        env=environment | {"CUDA_VISIBLE_DEVICES": "", "AXOLOTL_DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.rpartition("RESULT")[2])
    for case, made, found in zip(CASES, cases, results, strict=True):
        report, wanted = made.report, made.wanted
        differing, held_out = (known.get(trainer, {}).get(case, 0) for known in (DIFFERING, DIFFERING_HELD_OUT))
        assert report.rows_differing == differing + held_out
        assert count_differing(found["validation"], made.held_out) == held_out
        assert found["evaluation"] == ["epoch", 1]
        if trainer == "swift":
            # ms-swift shuffles the rows when it reads them.
            assert count_differing(found["examples"], wanted) == differing
            assert found["tasks"] == {task.file: task.rows for task in report.tasks}
        else:
            check(found["examples"], wanted)
            assert list(found["tasks"].values()) in ([], [task.rows for task in report.tasks])
        assert found["settings"] == [2, 4, 3e-5, 3, 1, MAX_LENGTH, 5]
