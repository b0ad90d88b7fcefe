"""Fixtures: tiny random models, and a whole project that `select` runs through in seconds. No network."""

import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# What passed once passes again: CURATOR_EXPLORE=1 draws other examples each time, and finds what these do not.
settings.register_profile("curator", deadline=None, max_examples=50, derandomize="CURATOR_EXPLORE" not in os.environ)
settings.load_profile("curator")

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ["the", "a", "one", "two", "three", "plus", "minus", "is", "sum", "word", "number", "carry", "digit", "red"]


# A shell's background job ignores Ctrl-C, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    # Every training collects garbage, which walks all that is imported: a fifth of the time of a tiny one.
    for module in ("transformers.trainer", "peft", "datasets", "scipy.stats"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed: a run that is cut off has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}\n{report.longreprtext}", file=sys.__stderr__, flush=True)


CHECKPOINTS_AT_ONCE = "from curator.training import trainer\ntrainer._CHECKPOINT_SECONDS = 0.0\n"


def environment_with(folder: Path, program: str) -> dict[str, str]:
    """The environment of a process whose Python runs a program before anything else; the folder holds that."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(program)
    return os.environ | {"PYTHONPATH": str(folder)}


def make_tokenizer(*, bos: bool = False, eos: bool = False, chat_template: str | None = None) -> Any:
    """A byte-level BPE tokenizer with a few merges, so that tokens can straddle a boundary.

    Args:
        bos: Whether it puts a BOS before every text.
        eos: Whether it puts an EOS after every text.
        chat_template: Its chat template, if any.
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
    """A random Llama of two layers. Of all tests: copy it before you change it."""
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
    """A random GPT-2, whose linear layers are transposed `Conv1D`s."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=512, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    return _save(tmp_path_factory.mktemp("models") / "gpt2", GPT2LMHeadModel(config))


@pytest.fixture(scope="session")
def tiny_t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5: an encoder and a decoder."""
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
    """Different short rows, the same for the same task."""
    words = WORDS[len(task) :] + WORDS[: len(task)]
    return [
        {
            "prompt": f"{task} {number} {words[number % len(words)]} =",
            "completion": f" {words[(3 * number) % len(words)]}",
        }
        for number in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def toml_of(values: dict[str, Any]) -> str:
    """A TOML document of tables of plain values; `None` leaves a key out."""
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
    """Make a project folder: `make_project(train={"epochs": 1})`, `make_project("other", tasks={"t": rows})`.

    The target is `target` with 12 rows; `alpha`, `beta` and `gamma` have 8 each.
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
    """Projects with drawn gradients, each kind made once."""
    # Not on the path: a benchmark there has the name of the package `tui`.
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
    """A copy of a project with drawn gradients: `drawn_project("12")` has 12 tasks, `"hostile"` has hostile names."""

    def copy(kind: str = "12") -> Path:
        return Path(shutil.copytree(_drawn(kind), tmp_path / f"drawn-{kind}"))

    return copy
