"""Which gradient sets a meta-training run has: one per segment, or one per checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curator.core.config import Config
from curator.core.files import write_whole
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus
from curator.gradients.projection import ProjectionSpec
from curator.gradients.stage import GradientSet, gradient_sets, gradients_inputs
from curator.training.meta_init import MetaInit
from curator.training.trainer import Checkpoint
from curator.workspace.workspace import Workspace

# Increase when the same visits give other sums.
_VERSION = 2


def sketch(config: Config) -> ProjectionSpec:
    """Return the projection of captured gradients: finer than what is kept of each example."""
    section = config.gradients
    return ProjectionSpec(dim=section.captured_dim, seed=section.projection_seed)


def segment_of(share: float, ends: Sequence[float]) -> int:
    """Return the number of the segment that holds a share of the steps.

    Args:
        share: Share of the steps, in (0, 1].
        ends: Ends of the segments, as increasing shares.
    """
    return min(int(np.searchsorted(ends, share - 1e-9)), len(ends) - 1)


def segment_sets(config: Config, meta: MetaInit) -> list[GradientSet]:
    """Return the gradient sets of the segments of a meta-training run, in their order."""
    facts = {
        "train": meta.key,
        "projection": sketch(config).as_dict(),
        "kept": config.gradients.projection_dim,
        "version": _VERSION,
    }
    ends = config.gradients.segments
    parts: dict[int, list[Checkpoint]] = {}
    for checkpoint in meta.checkpoints:
        # A run of few steps has fewer parts, and may have fewer segments.
        parts.setdefault(segment_of(checkpoint.share, ends), []).append(checkpoint)
    return [
        GradientSet(
            key=key_of({**facts, "segment": number, "adapters": [p.sha256 for p in members]}),
            checkpoint=members[-1],
            parts=tuple(members),
        )
        for number, members in sorted(parts.items())
    ]


def sets_in_use(config: Config, meta: MetaInit) -> list[GradientSet]:
    """Return the gradient sets that the configured estimator reads: of segments, or of single checkpoints."""
    return segment_sets(config, meta) if config.captures else gradient_sets(config, meta)


def completeness_inputs(config: Config, sets: Sequence[GradientSet], corpus: Corpus) -> Inputs:
    """Return all inputs that decide whether the gradients of the configured estimator are complete."""
    if not config.captures:
        return gradients_inputs(sets, corpus)
    return {
        "sets": [s.key for s in sets],
        "tasks": {task.name: task.content for task in corpus.tasks},
        "validation": {task.name: hash_of(task.validation_hashes) for task in corpus.target_tasks},
    }


def validation_key(gradient_set: GradientSet) -> str:
    """Return the key of the whole gradients of the validation examples in a segment."""
    return key_of({"set": gradient_set.key, "part": "validation"})


def capture_folder(workspace: Workspace, key: str) -> Path:
    """Return the folder of the visits of a meta-training run."""
    return workspace.adapters / key / "capture"


def captured_examples(corpus: Corpus, folder: Path) -> None:
    """Write task and token hash of each training example, in the order of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[task.name, task.train_hashes] for task in corpus.tasks]
    write_whole(folder / "examples.json", json.dumps(rows).encode())


def run_key(sets: Sequence[GradientSet]) -> str:
    """Return the key of the arrays of a whole run."""
    return key_of({"sets": [s.key for s in sets]})
