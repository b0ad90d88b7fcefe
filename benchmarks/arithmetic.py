"""A project with known ground truth, made from nothing: arithmetic and string tasks, and a character-level Llama.

Used by the benchmarks that need many really fine-tuned subsets: a fine-tuning run takes seconds. The model is
pretrained on string and arithmetic exercises that are none of the tasks; the target is two-digit addition. Around
it stand tasks that help (the same sums in other ranges and words), that are unrelated, that are noise, and that
contradict.
"""

import json
import random
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = tuple[str, str]
Maker = Callable[[random.Random], Row]

ALPHABET = string.ascii_lowercase + string.digits + " +-=*<>?:.,()|"
CONFIG = """\
[project]
name = "arithmetic"

[model]
name_or_path = "model"

[lora]
r = 4
alpha = 8

[data]
tasks = "tasks/*.jsonl"
target = "addition"
validation = 0.857
max_length = 48

[train]
epochs = 6
learning_rate = 3e-3
batch_size = 16
"""


def _two(rng: random.Random) -> tuple[int, int]:
    return rng.randint(10, 99), rng.randint(10, 99)


def _word(rng: random.Random, low: int = 3, high: int = 7) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(low, high)))


def _addition(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"{a}+{b}=", str(a + b)


def _sum_in_words(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"sum of {a} and {b} is ", str(a + b)


def _small_addition(rng: random.Random) -> Row:
    a, b = rng.randint(0, 30), rng.randint(0, 30)
    return f"{a}+{b}=", str(a + b)


def _big_addition(rng: random.Random) -> Row:
    a, b = rng.randint(100, 499), rng.randint(10, 99)
    return f"{a}+{b}=", str(a + b)


def _spaced_addition(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"{a} + {b} = ", str(a + b)


def _three_terms(rng: random.Random) -> Row:
    a, b, c = (rng.randint(1, 33) for _ in range(3))
    return f"{a}+{b}+{c}=", str(a + b + c)


def _subtraction(rng: random.Random) -> Row:
    a, b = sorted(_two(rng), reverse=True)
    return f"{a}-{b}=", str(a - b)


def _larger(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"larger of {a} and {b} is ", str(max(a, b))


def _reverse(rng: random.Random) -> Row:
    word = _word(rng)
    return f"reverse {word}: ", word[::-1]


def _sort_letters(rng: random.Random) -> Row:
    word = _word(rng)
    return f"sort {word}: ", "".join(sorted(word))


def _last_letter(rng: random.Random) -> Row:
    word = _word(rng)
    return f"last of {word}: ", word[-1]


def _random_sum(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"{a}+{b}=", str(rng.randint(20, 198))


def _shifted_sum(rng: random.Random) -> Row:
    a, b = _two(rng)
    return f"{a}+{b}=", str(a + b + 11)


def _multiplication(rng: random.Random) -> Row:
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return f"{a}*{b}=", str(a * b)


def _double(rng: random.Random) -> Row:
    n = rng.randint(10, 99)
    return f"double {n} is ", str(2 * n)


TARGET = "addition"
TASKS: dict[str, tuple[Maker, int]] = {
    "sum-in-words": (_sum_in_words, 120),
    "small-addition": (_small_addition, 100),
    "big-addition": (_big_addition, 100),
    "spaced-addition": (_spaced_addition, 60),
    "three-terms": (_three_terms, 80),
    "double": (_double, 60),
    "subtraction": (_subtraction, 140),
    "multiplication": (_multiplication, 80),
    "larger": (_larger, 100),
    "reverse": (_reverse, 120),
    "sort-letters": (_sort_letters, 100),
    "last-letter": (_last_letter, 60),
    "random-sum": (_random_sum, 80),
    "shifted-sum": (_shifted_sum, 80),
}
EXERCISES: tuple[Maker, ...] = (
    lambda rng: (f"copy {(w := _word(rng))}: ", w),
    lambda rng: (f"first of {(w := _word(rng))}: ", w[0]),
    lambda rng: (f"length of {(w := _word(rng))}: ", str(len(w))),
    lambda rng: (f"after {(n := rng.randint(0, 198))} comes ", str(n + 1)),
    lambda rng: (f"before {(n := rng.randint(1, 199))} comes ", str(n - 1)),
    lambda rng: (f"{(a := rng.randint(0, 9))}+{(b := rng.randint(0, 9))}=", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 99))} and {(b := rng.randint(0, 99))} make ", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 99))} and {(b := rng.randint(0, 99))} make ", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 99))} and {(b := rng.randint(0, 99))} make ", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 99))} and {(b := rng.randint(0, 99))} make ", str(a + b)),
    lambda rng: (f"{(a := rng.randint(0, 99))} less {(b := rng.randint(0, a))} is ", str(a - b)),
    lambda rng: (f"ten more than {(n := rng.randint(0, 189))} is ", str(n + 10)),
    lambda rng: (f"{(a := rng.randint(0, 9))}*{(b := rng.randint(0, 9))}=", str(a * b)),
)


def make_project(folder: Path, *, seed: int = 0, pretraining_steps: int = 4000) -> None:
    """Write tasks, model and `curator.toml`, unless they are there.

    Args:
        folder: The project.
        seed: Of the rows and of the model.
        pretraining_steps: Steps of 64 exercises each.
    """
    rng = random.Random(seed)
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    for name, (maker, count) in {TARGET: (_addition, 350), **TASKS}.items():
        seen: dict[str, Row] = {}
        while len(seen) < count:
            row = maker(rng)
            seen.setdefault(row[0], row)
        lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in seen.values()]
        (folder / "tasks" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "curator.toml").write_text(CONFIG)
    if not (folder / "model" / "model.safetensors").exists():
        make_model(folder / "model", rng, steps=pretraining_steps)


def make_tokenizer(alphabet: str) -> "PreTrainedTokenizerBase":
    """A tokenizer whose tokens are the characters of an alphabet."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call,no-any-return]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=256
    )


def make_model(folder: Path, rng: random.Random, *, steps: int) -> None:
    """Pretrain a 0.3 M-parameter character-level Llama on the exercises, and save it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(ALPHABET)
    torch.manual_seed(rng.randrange(2**31))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
    begin = time.monotonic()
    for step in range(steps):
        rows = [rng.choice(EXERCISES)(rng) for _ in range(64)]
        ids = [[*tokenizer(p + c)["input_ids"], 1] for p, c in rows]
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
