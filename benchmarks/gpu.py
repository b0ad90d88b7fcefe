"""Check and measure curator on a CUDA GPU, in about eight minutes, and write one JSON file to commit.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --json /tmp/gpu.json --device cpu      # rehearse on a tiny model, without a GPU

Parts, each of which is left out, with the reason, if the time is up or a package is missing:

    float32     gradient sketches of the GPU against those of the CPU, without TF32
    bfloat16    the same with a base in bfloat16
    4bit, 8bit  sketches of a quantized base against plain autograd, one example at a time, on the same device
    device-map  sketches of a base that is spread over all GPUs against those of one GPU
    capture     time and memory of training steps that capture gradients, relative to plain steps
    passes      tokens per second of gradients in passes of their own, relative to plain training

The script uses no `torch.compile`, because curator does not. Weights are random, so that no model is downloaded. The
exit code is 1 if a check fails. The CPU rehearsal compares the batched sketches with plain autograd.
"""

import argparse
import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curator.core.config import LoraSection, ModelSection, TrainSection
from curator.core.events import Reporter
from curator.core.version import __version__
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.capture import Capture
from curator.gradients.engine import GradientEngine, gradient_of
from curator.gradients.projection import Projection, ProjectionSpec
from curator.training.model import TunedModel, load_model
from curator.training.trainer import train_adapter

# Layers, width, examples, tokens of an example, and steps of a run: of a GPU, and of the rehearsal.
SIZES = {"cuda": (16, 2048, 64, 512, 24), "cpu": (2, 64, 12, 24, 6)}
VOCABULARY = 4096
LORA = LoraSection(r=8, alpha=16)
SPEC = ProjectionSpec(dim=2048, seed=0)
# Largest relative error of an example's sketch.
LIMITS = {"float32": 1e-3, "bfloat16": 0.1, "4bit": 0.05, "8bit": 0.05, "device-map": 1e-3}


class Skipped(Exception):
    """Signal that a part cannot run here."""


def make_model(folder: Path, device: str) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width, *_ = SIZES[device]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 2), num_key_value_heads=max(width // 64, 2), pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


def make_examples(device: str) -> list[TokenizedExample]:
    _, _, count, length, _ = SIZES[device]
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, VOCABULARY, size=length - n % 7).tolist() for n in range(count)]
    return [TokenizedExample(row, [IGNORED] * (len(row) // 2) + row[len(row) // 2 :]) for row in rows]


def load(folder: Path, device: str, **section: Any) -> TunedModel:
    tuned = load_model(folder, ModelSection(name_or_path=str(folder), **section), LORA)
    if device == "cpu":
        tuned.model.to("cpu")
    # A new adapter has gradients of zero for half of its weights.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return tuned


def batched(tuned: TunedModel, examples: list[TokenizedExample]) -> npt.NDArray[np.float32]:
    engine = GradientEngine(tuned, SPEC, batch_tokens=8192, reporter=Reporter())
    found = np.zeros((len(examples), SPEC.dim), dtype=np.float32)
    for places in engine.batches(examples):
        found[places] = engine.project([examples[p] for p in places]).arrays()[1]
    return found


def one_by_one(tuned: TunedModel, examples: list[TokenizedExample]) -> npt.NDArray[np.float32]:
    """Project the gradients of plain autograd, one example at a time."""
    tuned.model.eval()
    projection, rows = Projection(SPEC), []
    for example in examples:
        into = torch.zeros(1, SPEC.dim, device=tuned.device)
        for name, gradient in gradient_of(tuned, example)[1].items():
            projection.add(name, gradient.float().reshape(1, -1).to(tuned.device), into)
        rows.append(into.cpu().numpy())
    return np.concatenate(rows)


def error(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def compared(name: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> dict[str, Any]:
    value = error(found, expected)
    return {"largest_relative_error": value, "limit": LIMITS[name], "passed": value <= LIMITS[name]}


def check_dtype(folder: Path, device: str, dtype: str) -> dict[str, Any]:
    few = make_examples(device)[:8]
    tuned = load(folder, device, dtype=dtype)
    torch.set_float32_matmul_precision("highest")
    found = batched(tuned, few)
    if device == "cpu":
        return compared(dtype, found, one_by_one(tuned, few))
    tuned.model.to("cpu")
    return compared(dtype, found, batched(tuned, few))


def check_quantized(folder: Path, device: str, bits: str) -> dict[str, Any]:
    if device == "cpu" or importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("needs a CUDA GPU and bitsandbytes")
    few = make_examples(device)[:8]
    tuned = load(folder, device, quantization=bits)
    return compared(bits, batched(tuned, few), one_by_one(tuned, few))


def check_device_map(folder: Path, device: str) -> dict[str, Any]:
    if device == "cpu" or torch.cuda.device_count() < 2:
        raise Skipped("needs two CUDA GPUs")
    few = make_examples(device)[:8]
    torch.set_float32_matmul_precision("highest")
    spread = load(folder, device, dtype="float32", device_map="balanced")
    found = batched(spread, few)
    places = sorted(map(str, set(spread.devices.values())))
    return compared("device-map", found, batched(load(folder, device, dtype="float32"), few)) | {"devices": places}


def measure_capture(folder: Path, device: str) -> dict[str, Any]:
    examples, (_, _, count, _, steps) = make_examples(device), SIZES[device]
    recipe = TrainSection(epochs=steps * 4 / count, batch_size=4, learning_rate=1e-4)
    tokens = sum(example.length for example in examples) * recipe.epochs
    tuned = load(folder, device)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        # The first run warms up.
        for turn, name in enumerate(("warm up", "plain", "capture", "plain", "capture")):
            run = Path(place) / str(turn)
            capture = Capture(tuned, SPEC, run / "capture", Reporter()) if name == "capture" else None
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            train_adapter(tuned, examples, recipe, folder=run, reporter=Reporter(), stage="train", observer=capture)
            if device == "cuda":
                torch.cuda.synchronize()
            took = time.perf_counter() - began
            if capture is not None:
                capture.close()
            known = rows.get(name, {"tokens_per_second": 0.0})
            best = max(known["tokens_per_second"], tokens / took)
            # The peak of a process on the CPU never falls, so the rehearsal reports no memory.
            rows[name] = {
                "tokens_per_second": best,
                **({"peak_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {}),
            }
    del rows["warm up"]
    plain, captured = rows["plain"], rows["capture"]
    rows["time_ratio"] = plain["tokens_per_second"] / captured["tokens_per_second"]
    if device == "cuda":
        rows["memory_ratio"] = captured["peak_bytes"] / plain["peak_bytes"]
    return rows


def measure_passes(folder: Path, device: str) -> dict[str, Any]:
    examples, tuned = make_examples(device), load(folder, device)
    batched(tuned, examples[:4])
    began = time.perf_counter()
    batched(tuned, examples)
    return {"tokens_per_second": sum(example.length for example in examples) / (time.perf_counter() - began)}


PARTS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "float32": lambda folder, device: check_dtype(folder, device, "float32"),
    "bfloat16": lambda folder, device: check_dtype(folder, device, "bfloat16"),
    "4bit": lambda folder, device: check_quantized(folder, device, "4bit"),
    "8bit": lambda folder, device: check_quantized(folder, device, "8bit"),
    "device-map": check_device_map,
    "capture": measure_capture,
    "passes": measure_passes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses on a tiny model")
    parser.add_argument("--minutes", type=float, default=8, help="start no part after so many minutes")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: pass --device cpu to rehearse", file=sys.stderr)
        return 2
    began = time.monotonic()
    report: dict[str, Any] = {
        "curator": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
        "rehearsal": given.device == "cpu",
        "size": dict(zip(("layers", "width", "examples", "tokens", "steps"), SIZES[given.device], strict=True)),
        "parts": {},
        "left_out": {},
    }
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(Path(place) / "model", given.device)
        for name, run in PARTS.items():
            try:
                if time.monotonic() - began > 60 * given.minutes:
                    raise Skipped("the time is up")
                report["parts"][name] = run(folder, given.device)
            except Skipped as reason:
                report["left_out"][name] = str(reason)
            except torch.OutOfMemoryError:
                report["left_out"][name] = "out of memory"
            print(name, report["parts"].get(name, report["left_out"].get(name)), flush=True)
            if given.device == "cuda":
                torch.cuda.empty_cache()
    report["seconds"] = round(time.monotonic() - began, 1)
    report["passed"] = all(part.get("passed", True) for part in report["parts"].values())
    given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
