"""Fixtures: tiny random models, and a project on which `select` takes seconds. Tests need no network."""

import gc
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from curator.core.interpreters import SAFE_PATH, SET_BY_CURATOR

# Hypothesis draws the same examples in every session. Set CURATOR_EXPLORE=1 to draw new examples.
settings.register_profile("curator", deadline=None, max_examples=50, derandomize="CURATOR_EXPLORE" not in os.environ)
settings.load_profile("curator")

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ["the", "a", "one", "two", "three", "plus", "minus", "is", "sum", "word", "number", "carry", "digit", "red"]


# A background job of a shell ignores Ctrl-C, and its child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_safe_path() -> Iterator[None]:
    """Remove the safe path that a command sets for its children. Scripts of later tests import their neighbours."""
    yield
    if os.environ.get(SAFE_PATH) == SET_BY_CURATOR:
        del os.environ[SAFE_PATH]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    # Training collects garbage over all imported objects, a fifth of the time of a tiny training.
    for module in ("transformers.trainer", "peft", "datasets", "scipy.stats"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print failures at once: a test session that is cut off prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}\n{report.longreprtext}", file=sys.__stderr__, flush=True)


CHECKPOINTS_AT_ONCE = "from curator.training import trainer\ntrainer._CHECKPOINT_SECONDS = 0.0\n"


def environment_with(folder: Path, program: str) -> dict[str, str]:
    """Return an environment in which Python first runs `program`. The program is stored in `folder`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(program)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def make_tokenizer(*, bos: bool = False, eos: bool = False, chat_template: str | None = None) -> Any:
    """Make a byte-level BPE tokenizer with a few merges, so that tokens can cross a boundary.

    Args:
        bos: Whether to add a BOS token before every text.
        eos: Whether to add an EOS token after every text.
        chat_template: Chat template. None for no template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    if bos or eos:
        single = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=None, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    if chat_template is not None:
        made.chat_template = chat_template
    return made


def _save(folder: Path, model: Any, **tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    make_tokenizer(**tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama with two layers. Shared by all tests: copy it before changing it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save(tmp_path_factory.mktemp("models") / "llama", LlamaForCausalLM(config), bos=True)


@pytest.fixture(scope="session")
def tiny_gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random GPT-2. Its linear layers are transposed `Conv1D` layers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=512, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    return _save(tmp_path_factory.mktemp("models") / "gpt2", GPT2LMHeadModel(config))


@pytest.fixture(scope="session")
def tiny_t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random T5, an encoder–decoder model."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=400,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    return _save(tmp_path_factory.mktemp("models") / "t5", T5ForConditionalGeneration(config), eos=True)


def pair_rows(task: str, count: int) -> list[dict[str, str]]:
    """Return `count` different short rows. They depend only on the task and the count."""
    words = WORDS[len(task) :] + WORDS[: len(task)]
    return [
        {
            "prompt": f"{task} {number} {words[number % len(words)]} =",
            "completion": f" {words[(3 * number) % len(words)]}",
        }
        for number in range(count)
    ]


def stored_examples(project: Any) -> dict[str, list[dict[str, Any]]]:
    """Return every value of the examples in a project's store, and the artifacts of its tasks."""
    with project.store.read() as connection:
        found = connection.execute("SELECT * FROM examples ORDER BY ALL")
        names = [column[0] for column in found.description]
        examples = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    tasks = [{"key": a.key, "inputs": a.inputs, "outputs": a.outputs} for a in project.store.artifacts("task")]
    return {"examples": examples, "tasks": sorted(tasks, key=lambda task: task["key"])}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def toml_of(values: dict[str, Any]) -> str:
    """Format tables of plain values as TOML. Keys with the value None are omitted."""
    lines = []
    for table, keys in values.items():
        lines.append(f"[{table}]")
        for key, value in keys.items():
            if isinstance(value, dict):
                inner = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
                lines.append(f"{key} = {{ {inner} }}")
            elif value is not None:
                lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


MakeProject = Callable[..., Path]


@pytest.fixture
def make_project(tmp_path: Path, tiny_llama_folder: Path) -> MakeProject:
    """Return a function that makes a project folder.

    Examples: `make_project(train={"epochs": 1})`, `make_project("other", tasks={"t": rows})`.

    By default the target `target` has 12 rows. The tasks `alpha`, `beta` and `gamma` have 8 rows each.
    """

    def make(
        name: str = "project",
        *,
        model: Path | None = None,
        tasks: dict[str, list[dict[str, Any]]] | None = None,
        **tables: dict[str, Any],
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model or tiny_llama_folder, folder / "model")
        if tasks is None:
            tasks = {"target": pair_rows("target", 12)} | {t: pair_rows(t, 8) for t in ("alpha", "beta", "gamma")}
        for task, rows in tasks.items():
            write_rows(folder / "tasks" / f"{task}.jsonl", rows)
        values: dict[str, dict[str, Any]] = {
            "project": {"name": name},
            "model": {"name_or_path": "model"},
            "lora": {"r": 2, "alpha": 4},
            "data": {"tasks": "tasks/*.jsonl", "target": "target", "validation": 0.3, "max_length": 64},
            "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
            "gradients": {"projection_dim": 16, "points": [0.5, 1.0]},
            # Tests of the trajectory, which is the default, say so.
            "estimate": {"method": "quadratic"},
            "select": {"subsets": 50},
        }
        for table, keys in tables.items():
            values[table] = values.get(table, {}) | keys
        (folder / "curator.toml").write_text(toml_of(values), encoding="utf-8")
        return folder

    return make


HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07",
    "[bold red]markup[/bold red] [/nothing] [@click=app.quit]x[/]",
    "bidi \u202egnp.exe\u202c \u2066x",
    "漢字かな交じり文 🙂👩‍👩‍👧 e\u0301",
    "NUL\x00 BEL\x07 C1\x9b tab\t cr\r",
    "x" * 300,
)


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes projects with random gradients, each kind once."""
    # Loaded by path: a benchmark in that folder has the same name as the package `tui`.
    place = Path(__file__).parents[1] / "benchmarks" / "synthetic_project.py"
    spec = importlib.util.spec_from_file_location("synthetic_project", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    draw = module.make_project

    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("drawn") / kind
            if kind == "hostile":
                draw(folder, len(HOSTILE) + 2, rows=4, dim=16, names=[*HOSTILE])
            else:
                draw(folder, int(kind), rows=4, dim=16)
            made[kind] = folder
        return made[kind]

    return get


@pytest.fixture
def drawn_project(_drawn: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a project with random gradients.

    `drawn_project("12")` has 12 tasks. `drawn_project("hostile")` has hostile names.
    """

    def copy(kind: str = "12") -> Path:
        return Path(shutil.copytree(_drawn(kind), tmp_path / f"drawn-{kind}"))

    return copy


@pytest.fixture(scope="session")
def computed_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample project with every stage computed. No test opens it: each takes a copy, without sessions.

    It has one epoch, one checkpoint and few rows to save time, and the selection `forward`.
    """
    from curator.project.project import Project

    folder = tmp_path_factory.mktemp("computed") / "sample"
    source = Path(__file__).parents[1] / "sample_data"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".curator", "curator-manifest.json", "exports"))
    config = (folder / "curator.toml").read_text()
    config, count = re.subn(r"(?m)^epochs = .*$", "epochs = 1", config)
    assert count == 1
    if "[gradients]" in config:
        config = config.replace("[gradients]", "[gradients]\npoints = [0.7]")
    else:
        config += "\n[gradients]\npoints = [0.7]\n"
    config, count = re.subn(r"(?m)^\[data\]$", "[data]\nmax_examples_per_task = 20", config)
    assert count == 1
    (folder / "curator.toml").write_text(config)
    Project.open(folder).select(name="forward")
    return folder
