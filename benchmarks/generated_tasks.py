"""Generate projects with known ground truth: tasks about numbers and words, and a character-level Llama.

Benchmarks that fine-tune on many subsets use these projects, because one run takes seconds. The model is pretrained on
exercises (copying, sums in other words) that are not among the tasks. The target is to add two numbers of two digits.
Some auxiliary tasks teach addition, some are unrelated. Each difficulty adds a challenge:

- `noisy`: tasks whose answers are partly or wholly random,
- `conflicting`: tasks that give other answers to the target's question,
- `sizes`: tasks of very different sizes, some of them noisy or conflicting.
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
TARGET = "add"
CONFIG = """\
[project]
name = "additions"

[model]
name_or_path = "model"

[lora]
r = 4
alpha = 8
target_modules = "all-linear"

[data]
tasks = "tasks/*.jsonl"
target = "add"
validation_files = { add = "validation.jsonl" }
max_length = 48

[train]
epochs = 6
learning_rate = 5e-3
batch_size = 16
warmup = 0.1
"""


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(4, 6)))


def _of_word(prompt: str, answer: Callable[[str], str]) -> Maker:
    """Make rows from random words."""

    def make(rng: random.Random) -> Row:
        word = _word(rng)
        return prompt.format(word), answer(word)

    return make


def _of_numbers(
    prompt: str,
    answer: Callable[[int, int], int | str],
    low: int = 10,
    high: int = 99,
    *,
    keep: Callable[[int, int], bool] | None = None,
) -> Maker:
    """Make rows from pairs of random numbers.

    Args:
        prompt: Format string of the prompt.
        answer: Computes the answer.
        low: Smallest number.
        high: Largest number.
        keep: Accepts a pair; by default, every pair is accepted.
    """

    def make(rng: random.Random) -> Row:
        while True:
            a, b = rng.randint(low, high), rng.randint(low, high)
            if keep is None or keep(a, b):
                return prompt.format(a, b), str(answer(a, b))

    return make


def _noisy(maker: Maker, share: float) -> Maker:
    """Replace a share of the answers by random numbers with the same number of digits."""

    def make(rng: random.Random) -> Row:
        prompt, answer = maker(rng)
        noise = "".join(rng.choice(string.digits) for _ in answer)
        return prompt, noise if rng.random() < share else answer

    return make


def _sum(a: int, b: int) -> int:
    return a + b


_ADD = _of_numbers("{}+{}=", _sum)
_HELPFUL: dict[str, Maker] = {
    "add-in-words": _of_numbers("sum of {} and {} is ", _sum),
    "add-small": _of_numbers("{}+{}=", _sum, 10, 49),
    "add-tens": _of_numbers("{}+{}=", _sum, keep=lambda a, b: b % 10 == 0),
    "add-carries": _of_numbers("{}+{}=", _sum, keep=lambda a, b: a % 10 + b % 10 > 9),
    "add-three-digits": _of_numbers("{}+{}=", _sum, 100, 499),
    "double": _of_numbers("twice {} is ", lambda a, _: 2 * a),
}
_UNRELATED: dict[str, Maker] = {
    "reverse": _of_word("reverse {}: ", lambda w: w[::-1]),
    "last-letter": _of_word("last of {}: ", lambda w: w[-1]),
    "sort-letters": _of_word("sort {}: ", lambda w: "".join(sorted(w))),
    "smaller": _of_numbers("smaller of {} and {}: ", min),
    "subtract": _of_numbers("{}-{}=", lambda a, b: a - b, keep=lambda a, b: a >= b),
}
_NOISY: dict[str, Maker] = {
    "add-noisy-30": _noisy(_ADD, 0.3),
    "add-noisy-60": _noisy(_ADD, 0.6),
    "small-noisy-50": _noisy(_HELPFUL["add-small"], 0.5),
    "random-numbers": _noisy(_ADD, 1.0),
}
_CONFLICTING: dict[str, Maker] = {
    "one-more": _of_numbers("{}+{}=", lambda a, b: a + b + 1),
    "ten-more": _of_numbers("{}+{}=", lambda a, b: a + b + 10),
    "backwards": _of_numbers("{}+{}=", lambda a, b: str(a + b)[::-1]),
    "first-number": _of_numbers("{}+{}=", lambda a, _: a),
}


def _some(tasks: dict[str, Maker], count: int) -> dict[str, Maker]:
    return dict(list(tasks.items())[:count])


DIFFICULTIES: dict[str, dict[str, tuple[Maker, int]]] = {
    "noisy": {name: (maker, 80) for name, maker in (_some(_HELPFUL, 5) | _some(_UNRELATED, 4) | _NOISY).items()},
    "conflicting": {
        name: (maker, 80) for name, maker in (_some(_HELPFUL, 5) | _some(_UNRELATED, 4) | _CONFLICTING).items()
    },
    "sizes": {
        name: (maker, (30, 200, 60, 120)[number % 4])
        for number, (name, maker) in enumerate(
            (_HELPFUL | _some(_UNRELATED, 4) | _some(_NOISY, 2) | _some(_CONFLICTING, 2)).items()
        )
    },
    # The target has many rows of its own. It is best almost alone, and few tasks change its loss much.
    "flat": {TARGET: (_ADD, 320)}
    | {
        name: (maker, 40)
        for name, maker in (
            _some(_UNRELATED, 2)
            | {"smaller": _UNRELATED["smaller"], "add-small": _HELPFUL["add-small"]}
            | {name: _NOISY[name] for name in ("add-noisy-60", "random-numbers")}
            | {name: _CONFLICTING[name] for name in ("one-more", "backwards")}
        ).items()
    },
}
"""For each difficulty, the maker and the number of rows of each auxiliary task, and of a target of another size."""
TARGET_TRAIN, VALIDATION = 100, 200
EXERCISES: tuple[Maker, ...] = (
    _of_word("copy {}: ", lambda w: w),
    _of_word("first of {}: ", lambda w: w[0]),
    _of_word("spell {}: ", lambda w: " ".join(w)),
    _of_numbers("copy {}: ", lambda a, _: a),
    _of_numbers("{}+{}=", _sum, 0, 9),
    _of_numbers("{} plus {} makes ", _sum, 0, 99),
    _of_numbers("{} plus {} makes ", _sum, 0, 99),
    _of_numbers("{} and one is ", lambda a, _: a + 1, 0, 98),
    _of_numbers("{0}0+{1}0=", lambda a, b: 10 * (a + b), 1, 9),
    _of_numbers("{}-{}=", lambda a, b: a - b, 0, 9, keep=lambda a, b: a >= b),
)


def make_project(folder: Path, difficulty: str, *, seed: int = 0, pretraining_steps: int = 3000) -> None:
    """Write tasks, model and `curator.toml`, but keep an existing model.

    Args:
        folder: The project.
        difficulty: One of `DIFFICULTIES`.
        seed: Seed of the rows and of the model.
        pretraining_steps: Steps of 64 exercises each.
    """
    rng = random.Random(seed)
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    held_out = _draw(rng, _ADD, VALIDATION, set())
    write_task(folder, "validation", held_out.values())
    for name, (maker, count) in {TARGET: (_ADD, TARGET_TRAIN), **DIFFICULTIES[difficulty]}.items():
        write_task(folder / "tasks", name, _draw(rng, maker, count, set(held_out)).values())
    (folder / "curator.toml").write_text(CONFIG)
    if not (folder / "model" / "model.safetensors").exists():
        make_model(folder / "model", EXERCISES, rng, steps=pretraining_steps)


def _draw(rng: random.Random, maker: Maker, count: int, without: set[str]) -> dict[str, Row]:
    """Draw rows with different prompts.

    Args:
        rng: Random numbers.
        maker: Makes one row.
        count: Number of rows; a maker with few different prompts gives fewer.
        without: Prompts to leave out.
    """
    rows: dict[str, Row] = {}
    # Stop after many draws: tasks such as `double` have too few different prompts.
    for _ in range(100 * count):
        row = maker(rng)
        if row[0] not in without:
            rows.setdefault(row[0], row)
        if len(rows) == count:
            break
    return rows


def write_task(folder: Path, name: str, rows: Iterable[Row]) -> None:
    """Write the rows of a task to `NAME.jsonl` in a folder."""
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def make_tokenizer(alphabet: str) -> "PreTrainedTokenizerBase":
    """Make a tokenizer with one token for each character of an alphabet."""
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
        folder: Folder of the saved model.
        exercises: Makers of the training rows.
        rng: Random numbers for exercises and weights.
        steps: Steps of 64 exercises each. Weights stay random with 0 steps.
        hidden: Hidden size.
        layers: Number of layers.
        alphabet: Characters of the tokenizer.
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
