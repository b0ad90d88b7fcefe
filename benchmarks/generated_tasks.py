"""A project with known ground truth, made from nothing: string and arithmetic tasks, and a character-level Llama.

Used by the benchmarks that need many really fine-tuned subsets: a fine-tuning run takes seconds. The model is
pretrained on exercises (copying, sums) that are none of the tasks. The target is a secret code: every letter stands
for another one. Some tasks teach the same code, whole or in part; some have nothing to do with it; one is noise;
two contradict it.
"""

import json
import random
import string
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = tuple[str, str]
Maker = Callable[[random.Random], Row]

LETTERS = string.ascii_lowercase
ALPHABET = LETTERS + string.digits + " +-*=:"
TARGET = "code"
CONFIG = """\
[project]
name = "secret-code"

[model]
name_or_path = "model"

[lora]
r = 8
alpha = 16

[data]
tasks = "tasks/*.jsonl"
target = "code"
validation = 0.75
max_length = 48

[train]
epochs = 6
learning_rate = 3e-3
batch_size = 8
warmup = 0.1
"""


def _shuffled(seed: int) -> dict[str, str]:
    letters = list(LETTERS)
    random.Random(seed).shuffle(letters)
    return dict(zip(LETTERS, letters, strict=True))


CODE, OTHER_CODE = _shuffled(1), _shuffled(2)
BACK = {code: letter for letter, code in CODE.items()}


def _word(rng: random.Random, letters: str = LETTERS, low: int = 4, high: int = 6) -> str:
    return "".join(rng.choices(letters, k=rng.randint(low, high)))


def _coded(prompt: str, code: dict[str, str], letters: str = LETTERS, low: int = 4, high: int = 6) -> Maker:
    """Rows that write a word in a code."""

    def make(rng: random.Random) -> Row:
        word = _word(rng, letters, low, high)
        return prompt.format(word), "".join(code[letter] for letter in word)

    return make


def _of_word(prompt: str, answer: Callable[[str], str]) -> Maker:
    """Rows that do something else with a word."""

    def make(rng: random.Random) -> Row:
        word = _word(rng)
        return prompt.format(word), answer(word)

    return make


def _sum(rng: random.Random) -> Row:
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    c = rng.randint(0, 9)
    return f"{a}+{b}+{c}=", str(a + b + c)


def _difference(rng: random.Random) -> Row:
    a, b = rng.randint(0, 20), rng.randint(0, 9)
    return f"{a + b}-{b}=", str(a)


TASKS: dict[str, tuple[Maker, int]] = {
    "code-reworded": (_coded("secret of {} is ", CODE), 100),
    "code-long-words": (_coded("code {}: ", CODE, low=7, high=9), 60),
    "code-first-letters": (_coded("code {}: ", CODE, LETTERS[:9]), 80),
    "code-middle-letters": (_coded("code {}: ", CODE, LETTERS[9:18]), 80),
    "code-last-letters": (_coded("code {}: ", CODE, LETTERS[18:]), 80),
    "code-reversed": (_of_word("code backwards {}: ", lambda w: "".join(CODE[c] for c in reversed(w))), 100),
    "decode": (_coded("decode {}: ", BACK), 100),
    "reverse": (_of_word("reverse {}: ", lambda w: w[::-1]), 120),
    "last-letter": (_of_word("last of {}: ", lambda w: w[-1]), 60),
    "sort-letters": (_of_word("sort {}: ", lambda w: "".join(sorted(w))), 100),
    "sums": (_sum, 100),
    "differences": (_difference, 80),
    "random-code": (lambda rng: (f"code {(w := _word(rng))}: ", _word(rng, low=len(w), high=len(w))), 80),
    "other-code": (_coded("code {}: ", OTHER_CODE), 100),
}
EXERCISES: tuple[Maker, ...] = (
    _of_word("copy {}: ", lambda w: w),
    _of_word("again {}: ", lambda w: w),
    _of_word("say {} twice: ", lambda w: w + w),
    _of_word("first of {}: ", lambda w: w[0]),
    _of_word("length of {}: ", lambda w: str(len(w))),
    _of_word("spell {}: ", lambda w: " ".join(w)),
    lambda rng: (f"{(a := rng.randint(0, 9))}+{(b := rng.randint(0, 9))}=", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 9))}*{(b := rng.randint(0, 9))}=", str(a * b)),
)


def make_project(folder: Path, *, seed: int = 0, pretraining_steps: int = 3000) -> None:
    """Write tasks, model and `curator.toml`; a model that is there is kept.

    Args:
        folder: The project.
        seed: Of the rows and of the model.
        pretraining_steps: Steps of 64 exercises each.
    """
    rng = random.Random(seed)
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    for name, (maker, count) in {TARGET: (_coded("code {}: ", CODE), 400), **TASKS}.items():
        rows: dict[str, Row] = {}
        while len(rows) < count:
            row = maker(rng)
            rows.setdefault(row[0], row)
        write_task(folder / "tasks", name, rows.values())
    (folder / "curator.toml").write_text(CONFIG)
    if not (folder / "model" / "model.safetensors").exists():
        make_model(folder / "model", EXERCISES, rng, steps=pretraining_steps)


def write_task(folder: Path, name: str, rows: Iterable[Row]) -> None:
    """Write one task file into a folder."""
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def make_tokenizer(alphabet: str) -> "PreTrainedTokenizerBase":
    """A tokenizer whose tokens are the characters of an alphabet."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=256
    )


def make_model(
    folder: Path, exercises: Sequence[Maker], rng: random.Random, *, steps: int, hidden: int = 96, layers: int = 3,
    alphabet: str = ALPHABET, spread: float = 0.02,
) -> None:  # fmt: skip
    """Pretrain a small character-level Llama on exercises, and save it.

    Args:
        folder: Where to.
        exercises: What it learns.
        rng: Source of the exercises and of the weights.
        steps: Steps of 64 exercises each; 0 leaves the weights random.
        hidden: Width.
        layers: Depth.
        alphabet: Characters that it knows.
        spread: Standard deviation of the random weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(alphabet)
    torch.manual_seed(rng.randrange(2**31))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=spread,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
    begin = time.monotonic()
    for step in range(steps):
        rows = [rng.choice(exercises)(rng) for _ in range(64)]
        ids = [[*tokenizer(prompt + answer)["input_ids"], 1] for prompt, answer in rows]
        width = max(map(len, ids))
        batch = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        loss = model(input_ids=batch, labels=batch.masked_fill(batch == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            left = (time.monotonic() - begin) / (step + 1) * (steps - step)
            print(f"pretraining: step {step}/{steps}, loss {loss:.3f}, {left:.0f} s left", file=sys.stderr)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
