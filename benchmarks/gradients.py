"""Measure the cost of projected gradients per example, relative to a training step.

    python benchmarks/gradients.py --json FILE [--models NAME ...] [--dims K ...] [--engines NAME ...] [--prompt TOKENS]

One process alternates between the engines, with the same model, examples, batches and threads. Weights are random,
because they do not affect speed.

    floor       forward and backward pass of a LoRA training step, all gradients summed by autograd
    curator     `curator.gradients.engine.GradientEngine`
    vmap+trak   `torch.func.vmap` of per-example gradients, projected by TRAK's BasicProjector (package `traker`)
    vmap+dattri the same, projected by dattri's `random_project` (package `dattri`)
    paper       one backward pass per example, one dense matrix of signs, as in Li et al. 2024 (in float32, not float64)

A time ratio divides an engine's time by the floor's time just before, and is the median over runs. A memory ratio
divides the peak resident set of a process with one engine by that of a process with the floor. The script leaves out a
peer that is not installed, or whose dense matrix needs more than 4 GB, and prints the reason.

Each row is written as soon as it is measured. Rows of other engines, models and dimensions stay in FILE. To resume,
name the remaining ones with `--engines`, `--models` and `--dims`.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curator.core.config import LoraSection, ModelSection
from curator.core.events import Reporter
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.engine import GradientEngine
from curator.gradients.projection import Projection, ProjectionSpec
from curator.training.batches import collate, example_losses
from curator.training.model import TunedModel, load_model

MODELS: dict[str, tuple[dict[str, Any], int]] = {
    # Configuration of a Llama, and number of examples of a run.
    "llama-6x256": (
        {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "vocab_size": 4096,
        },
        64,
    ),
    "smollm2-135m": (
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
        16,
    ),
}
BATCH, LENGTH, RUNS = 16, 64, 5
MOST_BYTES = 4 * 2**30
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
Batches = list[list[TokenizedExample]]
Run = Callable[[], None]


class LeftOut(Exception):
    """Raised with the reason why an engine cannot be measured here."""


def make_model(name: str, folder: Path) -> TunedModel:
    """Make a random model with LoRA (r = 8) on all linear layers, in float32.

    Args:
        name: Key of `MODELS`.
        folder: Folder for saved models.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    place = folder / name
    if not place.exists():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**MODELS[name][0])).save_pretrained(place)
    tuned = load_model(place, ModelSection(name_or_path=str(place), dtype="float32"), LoraSection(r=8, alpha=16))
    torch.manual_seed(1)
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned


def make_batches(name: str, prompt: int) -> Batches:
    """Make batches of 16 random examples of 64 tokens each.

    Args:
        name: Key of `MODELS`.
        prompt: Number of tokens of each example without a loss.
    """
    config, count = MODELS[name]
    rng = np.random.default_rng(0)
    ids = rng.integers(3, config["vocab_size"], size=(count, LENGTH)).tolist()
    examples = [TokenizedExample(row, [IGNORED] * prompt + row[prompt:]) for row in ids]
    return [examples[start : start + BATCH] for start in range(0, count, BATCH)]


def floor(tuned: TunedModel, batches: Batches, dim: int) -> Run:
    """Return a run of plain training steps."""

    def run() -> None:
        for batch in batches:
            tuned.model(**collate(batch)).loss.backward()
            tuned.model.zero_grad(set_to_none=True)

    return run


def curator(tuned: TunedModel, batches: Batches, dim: int) -> Run:
    """Return a run of curator's engine."""
    spec = ProjectionSpec(dim=dim, seed=0)
    engine = GradientEngine(tuned, spec, batch_tokens=BATCH * LENGTH, reporter=Reporter())

    def run() -> None:
        for batch in batches:
            engine.project(batch).arrays()

    return run


def paper(tuned: TunedModel, batches: Batches, dim: int) -> Run:
    """Return a run with one backward pass per example and a dense projection.

    Raises:
        LeftOut: The dense matrix needs more than 4 GB.
    """
    if tuned.layout.size * dim * 4 > MOST_BYTES:
        raise LeftOut("its dense matrix needs more than 4 GB")
    torch.manual_seed(0)
    matrix = torch.randint(0, 2, (tuned.layout.size, dim), dtype=torch.int8).float().mul_(2).sub_(1).div_(dim**0.5)
    trained = [p for p in tuned.model.parameters() if p.requires_grad]

    def run() -> None:
        for batch in batches:
            losses = example_losses(tuned.model, collate(batch), encoder_decoder=False)
            found = [torch.autograd.grad(loss, trained, retain_graph=True) for loss in losses]
            torch.stack([torch.cat([g.reshape(-1) for g in gradient]) for gradient in found]) @ matrix

    return run


def _vmap(tuned: TunedModel, batches: Batches, project: Callable[[dict[str, torch.Tensor]], object]) -> Run:
    trained = {n: p.detach() for n, p in tuned.model.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, torch.Tensor], ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids[None], "labels": labels[None]}
        found = torch.func.functional_call(tuned.model, parameters, (), inputs).loss
        assert isinstance(found, torch.Tensor)
        return found

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def run() -> None:
        for batch in batches:
            made = collate(batch)
            project({n: g.reshape(len(batch), -1) for n, g in each(trained, made["input_ids"], made["labels"]).items()})

    return run


def trak(tuned: TunedModel, batches: Batches, dim: int) -> Run:
    """Return a run of TRAK's projector for CPUs.

    The whole matrix is one block. Otherwise the projector makes its matrix again for each batch.

    Raises:
        LeftOut: traker is not installed, or the dense matrix needs more than 4 GB.
    """
    if importlib.util.find_spec("trak") is None:
        raise LeftOut("traker is not installed")
    from trak.projectors import BasicProjector, ProjectionType

    if tuned.layout.size * dim * 4 > MOST_BYTES:
        raise LeftOut("its dense matrix needs more than 4 GB")
    projector = BasicProjector(
        grad_dim=tuned.layout.size,
        proj_dim=dim,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=torch.device("cpu"),
        block_size=dim,
    )
    return _vmap(
        tuned, batches, lambda gradients: projector.project(torch.cat([*gradients.values()], dim=1), model_id=0)
    )


def dattri(tuned: TunedModel, batches: Batches, dim: int) -> Run:
    """Return a run of dattri's projection for CPUs.

    Raises:
        LeftOut: dattri is not installed, or the dense matrix needs more than 4 GB.
    """
    if importlib.util.find_spec("dattri") is None:
        raise LeftOut("dattri is not installed")
    from dattri.func.projection import random_project

    if tuned.layout.size * dim * 4 > MOST_BYTES:
        raise LeftOut("its dense matrix needs more than 4 GB")

    def project(gradients: dict[str, torch.Tensor]) -> object:
        whole = torch.cat([*gradients.values()], dim=1)
        return random_project(
            whole, BATCH, proj_dim=dim, proj_max_batch_size=16, proj_seed=0, proj_type="rademacher", device="cpu"
        )(whole)

    return _vmap(tuned, batches, project)


ENGINES: dict[str, Callable[[TunedModel, Batches, int], Run]] = {
    "curator": curator,
    "vmap+trak": trak,
    "vmap+dattri": dattri,
    "paper": paper,
}


def seconds(run: Run) -> float:
    """Measure the seconds of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def projection_bytes() -> int:
    """Measure how many bytes a projection of 16 gradients adds to the peak resident set of this process.

    The gradients have 40 million coordinates, and the projection has 1,024.
    """
    gradients, into = torch.randn(16, 400_000), torch.zeros(16, 1024)
    projection = Projection(ProjectionSpec(dim=1024, seed=0))
    names = [f"parameter {number}" for number in range(100)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in names:
        projection.draw(name, gradients.shape[1], into.device)
    for name in names:
        projection.add(name, gradients, into)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * RSS_UNIT


def peak_bytes(engine: str, model: str, dim: int, arguments: argparse.Namespace) -> int:
    """Measure the peak resident set, in bytes, of a process that runs only one engine."""
    command = [sys.executable, __file__, "--alone", engine, "--models", model, "--dims", str(dim)]
    options = ["--work", str(arguments.work), "--prompt", str(arguments.prompt), "--threads", str(arguments.threads)]
    return int(subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout.split()[-1])


def alone(arguments: argparse.Namespace) -> None:
    """Run one engine twice and print the peak memory of this process in bytes, or that of a projection."""
    if arguments.alone == "projection":
        print(projection_bytes())
        return
    (model,), (dim,) = arguments.models, arguments.dims
    tuned, batches = make_model(model, arguments.work), make_batches(model, arguments.prompt)
    run = {"floor": floor, **ENGINES}[arguments.alone](tuned, batches, dim)
    run()
    run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT)


def measure(model: str, dim: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all engines on one model and dimension, and return their rows."""
    tuned, batches = make_model(model, arguments.work), make_batches(model, arguments.prompt)
    base, floor_bytes = floor(tuned, batches, dim), peak_bytes("floor", model, dim, arguments)
    rows = []
    for engine in arguments.engines:
        make = ENGINES[engine]
        row: dict[str, Any] = {"engine": engine, "model": model, "projection_dim": dim}
        try:
            run = make(tuned, batches, dim)
            base()
            run()
            times = np.array([(seconds(base), seconds(run)) for _ in range(arguments.runs)])
        except (LeftOut, ImportError, RuntimeError) as error:
            print(f"left out {engine} on {model} with dimension {dim}: {error}", file=sys.stderr)
            continue
        row |= {
            "ratio_to_floor": round(float(np.median(times[:, 1] / times[:, 0])), 3),
            "peak_memory_ratio": round(peak_bytes(engine, model, dim, arguments) / floor_bytes, 3),
            "floor_s": round(float(np.median(times[:, 0])), 3),
            "engine_s": round(float(np.median(times[:, 1])), 3),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, and write each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE, and keep its other rows")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="measure on these models (default: all)"
    )
    parser.add_argument(
        "--dims", type=int, nargs="+", default=[256, 512, 1024], help="dimensions (default: 256 512 1024)"
    )
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="measure these engines (default: all)"
    )
    parser.add_argument("--prompt", type=int, default=1, help="tokens of each example without a loss (default: 1)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"runs of each engine (default: {RUNS})")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: number of CPU cores)")
    parser.add_argument("--work", type=Path, help="keep the models in this folder; default: a temporary folder")
    parser.add_argument("--alone", choices=["floor", "projection", *ENGINES], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        alone(arguments)
        return
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    if arguments.json and arguments.json.exists():
        rows = {_place(row): row for row in json.loads(arguments.json.read_text(encoding="utf-8"))["rows"]}
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        projecting = peak_bytes("projection", arguments.models[0], 1024, arguments)
        for model in arguments.models:
            for dim in arguments.dims:
                rows |= {_place(row): row for row in measure(model, dim, arguments)}
                if arguments.json:
                    document = {
                        "command": f"python benchmarks/gradients.py --prompt {arguments.prompt}",
                        "machine": f"{arguments.threads} × {platform.machine()}, Python {platform.python_version()}",
                        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
                        "batch": f"{BATCH} examples of {LENGTH} tokens",
                        "projection_bytes_40_million_to_1024": projecting,
                        "rows": list(rows.values()),
                    }
                    arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _place(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["engine"], row["model"], row["projection_dim"]


if __name__ == "__main__":
    main()
