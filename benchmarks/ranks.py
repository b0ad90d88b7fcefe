"""Measure one process against two: training that captures gradients, and gradients in passes of their own.

    python benchmarks/ranks.py --json FILE [--rounds 2 --examples 96 --layers 6 --width 256]
    python benchmarks/ranks.py --json FILE --part store

Each round starts one process, then two. Two processes measure a base that each holds whole, and a base that is cut
among them (`model.shard`). All use gloo on the CPU and one thread each. The model is random. The script reports

    seconds        wall time of the slowest process, without loading
    cpu_seconds    CPU time of all processes, without loading
    layer_bytes    bytes of the base's layers in each process
    speedup        seconds of one process divided by those of two, the median over the rounds

`--part store` measures how fast the store takes gradients and sums of tasks, and how large they are.

Two processes need two idle cores for a speedup near two. `load_before` is the load of the machine before a round.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

VOCABULARY, LENGTH, BATCH = 4096, 64, 8
# Gradients of one commit, as many as curator commits at once, commits, and tasks with sums.
DIM, ROWS, COMMITS, TASKS = 256, 8192, 8, 1000


def make_model(folder: Path, layers: int, width: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 2), num_key_value_heads=max(width // 64, 2), pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Run a piece of work on all processes at once, and time it."""
    from curator.core import distributed

    distributed.wait()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = distributed.gather([(seconds, cpu)])
    return {
        "seconds": round(max(wall for wall, _ in found), 2),
        "cpu_seconds": round(sum(used for _, used in found), 2),
    }


def rank(work: Path, examples: int) -> None:
    """Measure in this process, which the launcher started with the others."""
    import numpy as np

    from curator.core import distributed
    from curator.core.config import LoraSection, ModelSection, TrainSection
    from curator.core.events import Reporter
    from curator.data.tokens import TokenizedExample
    from curator.gradients.capture import Capture
    from curator.gradients.engine import GradientEngine
    from curator.gradients.projection import ProjectionSpec
    from curator.training.model import load_model
    from curator.training.trainer import train_adapter

    rng = np.random.default_rng(0)
    rows = [rng.integers(3, VOCABULARY, size=LENGTH).tolist() for _ in range(examples)]
    data = [TokenizedExample(row, [-100] * (LENGTH // 2) + row[LENGTH // 2 :]) for row in rows]
    ranks, spec, reporter = distributed.world_size(), ProjectionSpec(dim=2048, seed=0), Reporter()
    recipe = TrainSection(epochs=1, batch_size=BATCH // ranks)
    for shard in ("none", "layers")[:ranks]:
        section = ModelSection.model_validate({"name_or_path": "model", "shard": shard})
        tuned = load_model(work / "model", section, LoraSection(r=8, alpha=16))
        layers: list[Any] = [
            p for name, p in tuned.model.named_parameters() if ".layers." in name and not p.requires_grad
        ]
        held = sum(4 * (p.to_local() if tuned.sharded else p).numel() for p in layers)
        folder = distributed.from_main(work / f"{ranks}-{shard}-{time.time_ns()}")
        capture = Capture(tuned, spec, folder / "capture", reporter)

        def training(tuned: Any = tuned, folder: Path = folder, seen: Any = capture) -> None:
            train_adapter(tuned, data, recipe, folder=folder, reporter=reporter, stage="train", observer=seen)

        def passes(tuned: Any = tuned) -> None:
            engine = GradientEngine(tuned, spec, batch_tokens=BATCH * LENGTH, reporter=reporter)
            batches = engine.batches(data)
            for places in batches[distributed.rank() :: ranks]:
                engine.project([data[p] for p in places]).arrays()
            if 0 < len(batches) % ranks <= distributed.rank():
                engine.stand_by()

        found = {"processes": ranks, "shard": shard, "layer_bytes": held}
        found |= {"training": timed(training), "passes": timed(passes)}
        capture.close()
        if distributed.is_main():
            print(f"RESULT {json.dumps(found)}", flush=True)


def measure_store(work: Path) -> dict[str, Any]:
    """Measure how fast the store takes gradients and sums of random numbers, and how large they are."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curator.core.arrays import SegmentArrays
    from curator.workspace.store.tables import Store

    rng, store = np.random.default_rng(0), Store(work / "store.duckdb")
    seconds = []
    for commit in range(COMMITS):
        hashes = [f"{commit * ROWS + row:064x}" for row in range(ROWS)]
        gradients = rng.standard_normal((ROWS, DIM), dtype=np.float32)
        # CPU time of all threads, because other programs may use the machine.
        start = time.process_time()
        store.put_gradients("set", hashes, np.zeros(ROWS), gradients)
        seconds.append(time.process_time() - start)
    columns = {"token_hash": hashes, "gradient": pa.FixedSizeListArray.from_arrays(gradients.reshape(-1), DIM)}
    pq.write_table(pa.table(columns), work / "part.parquet")
    other, sums = Store(work / "sums.duckdb"), SegmentArrays.empty(TASKS, 8 * DIM, DIM // 4)
    sums.gradient_sums[:] = rng.standard_normal(sums.gradient_sums.shape)
    sums.packed_curvatures[:] = rng.standard_normal(sums.packed_curvatures.shape)
    start = time.process_time()
    other.put_segment_sums("set", [f"{task:064x}" for task in range(TASKS)], sums)
    summing = time.process_time() - start
    return {
        "gradient_entries": DIM,
        "rows_per_cpu_second_first": round(ROWS / seconds[0]),
        "rows_per_cpu_second_last": round(ROWS / seconds[-1]),
        "bytes_per_row": round(store.path.stat().st_size / (COMMITS * ROWS)),
        "parquet_bytes_per_row": round((work / "part.parquet").stat().st_size / ROWS),
        "sums_per_cpu_second": round(TASKS / summing),
        "bytes_per_sum": round(other.path.stat().st_size / TASKS),
    }


def launch(ranks: int, work: Path, examples: int) -> list[dict[str, Any]]:
    # The processes import no file of the working folder, and the launcher neither.
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*command, __file__, "--rank", str(work), "--examples", str(examples)],
        env=os.environ | {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")]


def measure_ranks(work: Path, count: int, examples: int) -> dict[str, Any]:
    """Start one process and two in turn, and compare them."""
    rounds: list[dict[str, Any]] = []
    for _ in range(count):
        load = os.getloadavg()[0]
        rows = [row for ranks in (1, 2) for row in launch(ranks, work, examples)]
        rounds.append({"load_before": round(load, 1), "rows": rows})
    speedup = {
        f"{part}_{shard}": round(
            median(r["rows"][0][part]["seconds"] / r["rows"][n][part]["seconds"] for r in rounds), 2
        )
        for part in ("training", "passes")
        for n, shard in ((1, "whole"), (2, "cut"))
    }
    return {"speedup_of_two": speedup, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("ranks", "store"), default="ranks")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank is not None:
        return rank(given.rank, given.examples)
    from measured import provenance

    found: dict[str, Any] = {}
    origin = provenance(" ".join(["python", *sys.argv])) | {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        if given.part == "store":
            found = measure_store(Path(folder))
        else:
            make_model(Path(folder) / "model", given.layers, given.width)
            found = measure_ranks(Path(folder), given.rounds, given.examples)
    # The other part stays, with its own command and commit.
    kept = json.loads(given.json.read_text()) if given.json is not None and given.json.exists() else {}
    text = json.dumps(kept | {given.part: origin | found}, indent=1) + "\n"
    print(text)
    if given.json is not None:
        given.json.write_text(text)
    return None


if __name__ == "__main__":
    main()
