"""Make a project of any number of tasks with random gradients and affinities in its store.

Tests and benchmarks use such a project if only the amount of data matters, such as for the speed of the terminal
interface. curator's own code reads, encodes and stores everything. Only the numbers are random. Each task's gradients
point more or less in the direction of the target's gradients.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curator.core.arrays import SegmentArrays
from curator.core.provenance import key_of
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import example_sums
from curator.gradients.example_groups import held_out_group, training_groups
from curator.gradients.segment_sets import completeness_inputs, run_key, sets_in_use, validation_key
from curator.gradients.stage import GradientSet, wanted_hashes
from curator.project.project import Project
from curator.training.meta_init import MetaInit, train_inputs
from curator.training.trainer import Checkpoint

TAGS = ("math", "code", "qa", "chat", "safety")


def make_model(folder: Path) -> None:
    """Save a random Llama of one layer with a byte-level tokenizer."""
    import torch

    torch.manual_seed(0)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=3)}
    tokenizer = Tokenizer(models.BPE(vocab={"<pad>": 0, "<s>": 1, "</s>": 2, **letters}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(letters) + 3,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def make_project(
    folder: Path,
    tasks: int,
    *,
    rows: int = 10,
    dim: int = 256,
    points: int = 3,
    names: list[str] | None = None,
    method: str = "quadratic",
) -> Project:
    """Make the project, with a filled store.

    Args:
        folder: A new folder.
        tasks: Number of auxiliary tasks.
        rows: Rows of each auxiliary task. The target has 60 more.
        dim: Dimension of the projected gradients.
        points: Number of checkpoints of meta-training.
        names: Names of the first tasks, instead of `task0000` and so on.
        method: Method of the estimator: `quadratic`, or `trajectory`, whose segments are those of the default.
    """
    folder.mkdir(parents=True)
    make_model(folder / "model")
    called = [*(names or []), *(f"task{number:04}" for number in range(tasks))][:tasks]
    shared = "".join(
        json.dumps({"prompt": f"{number} of {n}: ", "completion": f"answer {number * 7 % 10}"}) + "\n"
        for n in range(len(called))
        for number in range(rows)
    )
    target = "".join(
        json.dumps({"prompt": f"target {number}: ", "completion": f"word {number}"}) + "\n"
        for number in range(rows + 60)
    )
    (folder / "target.jsonl").write_text(target, encoding="utf-8")
    (folder / "tasks").mkdir()
    lines, entries = shared.splitlines(keepends=True), []
    for n, name in enumerate(called):
        path = f"tasks/{n:05}.jsonl"
        (folder / path).write_text("".join(lines[n * rows : (n + 1) * rows]), encoding="utf-8")
        tag = TAGS[n % len(TAGS)]
        entries.append(
            f'[[data.task]]\nname = {json.dumps(name, ensure_ascii=False)}\npath = "{path}"\ntags = ["{tag}"]\n'
        )
    shares = [round((number + 1) / (points + 1), 3) for number in range(points)]
    shares_line = f"points = {shares}\n" if method == "quadratic" else ""
    config = (
        f'[project]\nname = "synthetic-{tasks}"\n[model]\nname_or_path = "model"\n[lora]\nr = 2\n'
        f'[data]\ntarget = "target"\nvalidation = 0.5\nmax_length = 64\n[gradients]\nprojection_dim = {dim}\n'
        f'{shares_line}[estimate]\nmethod = "{method}"\n'
        f'[[data.task]]\nname = "target"\npath = "target.jsonl"\n{"".join(entries)}'
    )
    (folder / "curator.toml").write_text(config, encoding="utf-8")
    project = Project.open(folder)
    fill_store(project, dim=dim)
    return project


def fill_store(project: Project, *, dim: int) -> None:
    """Store a random meta-initialization, random gradients and random affinities."""
    from curator.estimate.target import TargetEstimates

    corpus = project.corpus(project.config.data.targets)
    config, store, rng = project.config, project.store, np.random.default_rng(0)
    inputs = train_inputs(config, corpus)
    (target,) = corpus.target_tasks
    checkpoints = tuple(
        Checkpoint(share=share, step=step, folder=f"point-{step}", sha256=f"drawn-{step}")
        for step, share in enumerate(config.gradients.segments if config.captures else config.gradients.shares, 1)
    )
    hashes = target.validation_hashes
    final_losses = dict(zip(hashes, rng.uniform(0.8, 1.2, len(hashes)).tolist(), strict=True))
    examples = len(wanted_hashes(corpus))
    outputs = {
        "final_losses": final_losses,
        "snapshots": [asdict(checkpoint) for checkpoint in checkpoints],
        "layout": "drawn",
        "trainable_parameters": 1000,
        "examples": examples,
        "seconds": 1.0,
        "captured": config.captures,
    }
    store.put_artifact("train", key_of(inputs), inputs, outputs)
    meta = MetaInit(
        key=key_of(inputs),
        checkpoints=checkpoints,
        layout="drawn",
        trainable_parameters=1000,
        examples=examples,
        final_losses=final_losses,
        unseen=(),
        seconds=1.0,
        captured=config.captures,
    )
    sets = sets_in_use(config, meta)
    direction = rng.standard_normal(dim) / np.sqrt(dim)
    helps = {task.name: rng.uniform(-1, 1) for task in corpus.auxiliary} | {target.name: 1.0}
    if config.captures:
        _store_segments(project, sets, helps, rng)
    else:
        for gradient_set in sets:
            _store_gradients(project, gradient_set, helps, direction, rng)
    done = completeness_inputs(config, sets, corpus)
    store.put_artifact("gradients", key_of(done), done, {"examples": examples, "seconds": 1.0})
    estimates = TargetEstimates(project.workspace, corpus, meta)
    store.put_affinities(
        estimates.key,
        corpus.target_label,
        [
            (task.name, round(helps[task.name] / 20, 6), round(float(rng.uniform(0.002, 0.01)), 6))
            for task in estimates.tasks
        ],
        inputs=estimates.inputs,
        outputs={},
    )


def _store_gradients(
    project: Project,
    gradient_set: GradientSet,
    helps: dict[str, float],
    direction: np.ndarray,
    rng: np.random.Generator,
) -> None:
    corpus = project.corpus(project.config.data.targets)
    hashes: list[str] = []
    gradients = []
    for task in corpus.tasks:
        own = [*task.train_hashes, *task.validation_hashes]
        hashes += own
        noise = rng.standard_normal((len(own), len(direction))) / np.sqrt(len(direction))
        gradients.append((helps[task.name] * direction + noise).astype(np.float32))
    losses = rng.uniform(0.5, 1.5, len(hashes))
    project.store.put_gradients(gradient_set.key, hashes, losses, np.concatenate(gradients))


def _store_segments(
    project: Project, sets: Sequence[GradientSet], helps: dict[str, float], rng: np.random.Generator
) -> None:
    """Store a random basis, and the sums and validation gradients of each segment."""
    corpus, config, store = project.corpus(project.config.data.targets), project.config, project.store
    dim, kept, rank = config.gradients.captured_dim, config.gradients.projection_dim, config.gradients.basis_dim
    basis = np.linalg.qr(rng.standard_normal((dim, kept)))[0].astype(np.float32)
    store.put_array(run_key(sets), "basis", basis)
    store.put_array(run_key(sets), "moved", (rng.standard_normal((len(sets), dim)) / dim).astype(np.float32))
    groups = training_groups(corpus)
    names = [*(task.name for task in corpus.auxiliary), corpus.target_tasks[0].name]
    direction = rng.standard_normal(dim) / np.sqrt(dim)
    held_out = held_out_group(config, corpus.target_tasks)
    for gradient_set in sets:
        sums = SegmentArrays.empty(len(groups), dim, rank)
        for row, (name, group) in enumerate(zip(names, groups, strict=True)):
            noise = rng.standard_normal((len(group.hashes), dim)) / np.sqrt(dim)
            examples = ExampleSet(
                losses=np.ones(len(noise)),
                gradients=helps[name] * direction + noise,
                weights=np.asarray(group.weights, dtype=np.float64),
            )
            found = example_sums(examples, basis[:, :rank].astype(np.float64))
            sums.weights[row], sums.examples[row], sums.rest[row] = sum(group.weights), len(noise), found.rest
            sums.gradient_sums[row], sums.packed_curvatures[row] = found.gradient_sum, found.curvature
        store.put_segment_sums(gradient_set.key, [group.content for group in groups], sums)
        hashes = sorted(set(held_out.hashes))
        gradients = (direction + rng.standard_normal((len(hashes), dim)) / np.sqrt(dim)).astype(np.float32)
        store.put_gradients(validation_key(gradient_set), hashes, rng.uniform(0.5, 1.5, len(hashes)), gradients)


def main() -> None:
    """Make a project from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--tasks", type=int, default=100, help="number of auxiliary tasks (default: 100)")
    parser.add_argument("--rows", type=int, default=10, help="rows of each auxiliary task (default: 10)")
    parser.add_argument("--dim", type=int, default=256, help="dimension of the projected gradients (default: 256)")
    parser.add_argument("--points", type=int, default=3, help="checkpoints of meta-training (default: 3)")
    parser.add_argument("--method", default="quadratic", help="quadratic or trajectory (default: quadratic)")
    given = parser.parse_args()
    make_project(given.folder, given.tasks, rows=given.rows, dim=given.dim, points=given.points, method=given.method)


if __name__ == "__main__":
    main()
