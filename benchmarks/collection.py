"""Measure `curator check` on a made collection of task files: seconds, CPU seconds, peak memory and lines.

    python benchmarks/collection.py --work DIR --json FILE [--label NAME] [--files 283 --megabytes 60]
    python benchmarks/collection.py --work DIR --json FILE [--label NAME] --files 2000 --rows 3

The script makes a collection from a seed: files of several formats and shapes, rows of realistic lengths, and rows that
other tasks repeat with one changed word. A byte-level BPE tokenizer with 49,152 tokens belongs to the model. Then the
script runs `curator check` twice in a process of its own: first on new files, then on unchanged files. It reports

    seconds       wall time of the process
    cpu_seconds   CPU time of all processes, user and system
    peak_rss_mb   highest sum of the resident memory of all processes. Shared pages count once for each process
    peak_pss_mb   the same sum, with each shared page divided among its processes
    lines         lines on standard output
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measured import provenance

SEED = 17
VOCABULARY = 49_152
_WORDS = 60_000
# The tokenizer learns from these words alone, so that text takes about as many tokens as real text.
_LEARNED = 30_000
# Share of numbers among the words.
_NUMBERS = 0.04
_POLL_SECONDS = 0.05
# As in SmolLM2-135M-Instruct.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Row = dict[str, Any]


class Words:
    """Draw made-up text whose words follow Zipf's law.

    Args:
        seed: Seed of the words and of the text.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        onsets = [
            "b",
            "br",
            "c",
            "d",
            "f",
            "g",
            "gr",
            "h",
            "j",
            "l",
            "m",
            "n",
            "p",
            "pl",
            "r",
            "s",
            "st",
            "t",
            "v",
            "w",
        ]
        syllables = [
            onset + vowel + coda
            for onset in onsets
            for vowel in "aeiou"
            for coda in ("", "", "n", "r", "s", "t", "l", "nd")
        ]
        made: dict[str, None] = {}
        while len(made) < _WORDS:
            count = 1 + min(int(self._rng.geometric(0.7)), 4)
            made["".join(self._rng.choice(syllables, count))] = None
        self._words = np.array(list(made), dtype=object)
        weights = 1 / np.arange(2, _WORDS + 2) ** 0.9
        self._ends = np.cumsum(weights / weights.sum())

    def text(self, words: int, *, known: int = _WORDS) -> str:
        """Return sentences of about `words` words, drawn from the `known` most frequent words."""
        drawn = self._words[np.searchsorted(self._ends, self._rng.random(max(words, 1))).clip(max=_WORDS - 1) % known]
        numbers = self._rng.random(len(drawn)) < _NUMBERS
        drawn[numbers] = [f"{number:,}" for number in self._rng.integers(0, 10**5, int(numbers.sum()))]
        parts, start = [], 0
        while start < len(drawn):
            end = start + int(self._rng.integers(6, 20))
            parts.append(" ".join(drawn[start:end]).capitalize() + ".")
            start = end
        return " ".join(parts)

    def length(self, median: float) -> int:
        """Draw a number of words. Few texts are many times as long as the median."""
        return int(min(self._rng.lognormal(np.log(median), 0.9), 40 * median))

    def below(self, stop: int) -> int:
        """Draw a whole number below `stop`."""
        return int(self._rng.integers(stop))

    def share(self) -> float:
        """Draw a number between 0 and 1."""
        return float(self._rng.random())


def _messages(words: Words) -> Row:
    turns = [{"role": "system", "content": words.text(12)}] if words.share() < 0.3 else []
    for _ in range(1 + words.below(3)):
        turns.append({"role": "user", "content": words.text(words.length(40))})
        turns.append({"role": "assistant", "content": words.text(words.length(60))})
    return {"messages": turns, "source": "made"}


def _sharegpt(words: Words) -> Row:
    return {
        "conversations": [
            {"from": "human", "value": words.text(words.length(50))},
            {"from": "gpt", "value": words.text(words.length(90))},
        ]
    }


def _prompt(words: Words) -> Row:
    return {"prompt": words.text(words.length(60)) + "\nAnswer:", "completion": " " + words.text(words.length(8))}


def _alpaca(words: Words) -> Row:
    return {
        "instruction": words.text(12),
        "input": words.text(words.length(50)),
        "output": words.text(words.length(50)),
    }


def _flan(words: Words) -> Row:
    return {"inputs": words.text(words.length(80)), "targets": words.text(words.length(5)), "id": words.below(10**6)}


def _text(words: Words) -> Row:
    return {"text": words.text(words.length(150))}


SHAPES: tuple[tuple[Callable[[Words], Row], tuple[str, ...]], ...] = (
    (_prompt, ("jsonl", "csv", "json")),
    (_alpaca, ("json", "jsonl")),
    (_messages, ("jsonl",)),
    (_flan, ("jsonl", "parquet")),
    (_text, ("jsonl",)),
    (_sharegpt, ("json", "jsonl")),
)


def _changed(row: Row, words: Words) -> Row:
    """Return a copy of a row. Half of the copies have another last word in one text."""
    copy: Row = json.loads(json.dumps(row))
    if words.share() < 0.5:
        name = next(n for n in ("prompt", "input", "inputs", "text", "messages", "conversations") if n in copy)
        if isinstance(copy[name], list):
            turn = copy[name][-1]
            key = "content" if "content" in turn else "value"
            turn[key] += " " + words.text(1)
        else:
            copy[name] += " " + words.text(1)
    return copy


def _write(path: Path, rows: list[Row]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)


def make_model(folder: Path, words: Words) -> None:
    """Save a tiny random Llama with a tokenizer of 49,152 tokens, trained on made-up text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([words.text(2000, known=_LEARNED) for _ in range(500)], trainer)
    wrapped: Any = PreTrainedTokenizerFast
    saved = wrapped(tokenizer_object=tokenizer, pad_token="<|im_end|>", eos_token="<|im_end|>")
    saved.chat_template = _CHAT_TEMPLATE
    saved.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def make_collection(folder: Path, *, files: int, rows: int | None, megabytes: float) -> None:
    """Make the project.

    Args:
        folder: A new folder.
        files: Number of task files.
        rows: Rows of each file. None for files of different sizes.
        megabytes: Size of all files together, if `rows` is None.
    """
    words = Words(SEED)
    (folder / "tasks").mkdir(parents=True)
    make_model(folder / "model", words)
    shares = np.random.default_rng(SEED).lognormal(0, 1, files)
    sizes = megabytes * 1e6 * shares / shares.sum()
    earlier: list[tuple[int, list[Row]]] = []
    for number in range(files):
        make, suffixes = SHAPES[number % len(SHAPES)]
        size, made = 0, list[Row]()
        original: list[Row] | None = None
        # A third of the tasks repeat rows of an earlier task of the same shape.
        candidates = [found for shape, found in earlier if shape == number % len(SHAPES)]
        if candidates and words.share() < 1 / 3:
            original = candidates[words.below(len(candidates))]
        share = words.share() * 0.7
        while (len(made) < rows) if rows is not None else (size < sizes[number] or len(made) < 10):
            if original is not None and words.share() < share:
                row = _changed(original[words.below(len(original))], words)
            else:
                row = make(words)
            made.append(row)
            size += len(json.dumps(row))
        earlier.append((number % len(SHAPES), made[:500]))
        _write(folder / "tasks" / f"task-{number:04}.{suffixes[number // len(SHAPES) % len(suffixes)]}", made)
    (folder / "curator.toml").write_text(
        '[project]\nname = "collection"\n[model]\nname_or_path = "model"\n'
        '[data]\ntasks = "tasks/*"\ntarget = "task-0000"\nmax_length = 2048\n',
        encoding="utf-8",
    )


def run_check(folder: Path) -> dict[str, float | int]:
    """Run `curator check` in a process, and return its row of figures."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "curator", "check", "-p", str(folder), "--quiet"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
        rss = pss = most = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            resident, shared, count = _memory(process.pid)
            rss, pss, most = max(rss, resident), max(pss, shared), max(most, count)
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        errors = process.stderr.read()
        if process.returncode:
            raise SystemExit(errors)
        output.seek(0)
        lines = output.read().splitlines()
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_mb": round(rss / 1e6),
        "peak_pss_mb": round(pss / 1e6),
        "processes": most,
        "lines": len(lines) + len(errors.splitlines()),
        "load_before": round(load, 1),
    }


def _memory(pid: int) -> tuple[int, int, int]:
    """Return resident memory and proportional memory of a process and its children, and the number of processes."""
    rss = pss = count = 0
    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0, 0, 0
    for member in members:
        try:
            found = member.memory_full_info()
        except psutil.Error:
            continue
        rss, pss, count = rss + found.rss, pss + found.pss, count + 1
    return rss, pss, count


def main() -> None:
    """Make the collection unless it exists, measure, and add a row to the file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="keep the collections in DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the row to FILE")
    parser.add_argument("--label", default="now", help="name of the row (default: now)")
    parser.add_argument("--files", type=int, default=283, help="number of task files (default: 283)")
    parser.add_argument("--rows", type=int, help="rows of each file; default: files of different sizes")
    parser.add_argument("--megabytes", type=float, default=60, help="size of all files (default: 60)")
    arguments = parser.parse_args()
    name = f"{arguments.files}-files-" + (
        f"{arguments.rows}-rows" if arguments.rows is not None else f"{arguments.megabytes:g}-mb"
    )
    folder = arguments.work / name
    if not (folder / "curator.toml").exists():
        make_collection(folder, files=arguments.files, rows=arguments.rows, megabytes=arguments.megabytes)
    for file in (folder / ".curator").glob("store.duckdb*"):
        file.unlink()
    # Read the libraries from the disk before the first measurement.
    subprocess.run([sys.executable, "-c", "import torch, transformers, duckdb"], check=True)
    size = sum(path.stat().st_size for path in (folder / "tasks").iterdir())
    row = {
        "label": arguments.label,
        "collection": name,
        "megabytes": round(size / 1e6, 1),
        "cores": os.cpu_count(),
        "first": run_check(folder),
        "unchanged": run_check(folder),
        **provenance("python benchmarks/collection.py " + " ".join(sys.argv[1:])),
    }
    print(json.dumps(row, indent=1))
    if arguments.json:
        rows = json.loads(arguments.json.read_text(encoding="utf-8"))["rows"] if arguments.json.exists() else []
        kept = [r for r in rows if (r["label"], r["collection"]) != (row["label"], name)]
        arguments.json.write_text(json.dumps({"rows": [*kept, row]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
