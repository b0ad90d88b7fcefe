"""Time a training step of the real model on real examples, and choose the number of threads by it.

A step is the forward and backward pass that training makes, with the capture of gradients if training captures them.
The probe changes no weight and stores nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from threadpoolctl import get_cached_controller

from curator.core import distributed
from curator.core.events import Reporter
from curator.core.performance import (
    best_count,
    describe_trial,
    peak_bytes,
    thread_counts,
    try_threads,
    user_sets_threads,
)
from curator.data.corpus import Corpus, training_examples
from curator.data.tokens import TokenizedExample
from curator.gradients.capture import Capture
from curator.gradients.segment_sets import sketch
from curator.project.rates import Rate
from curator.training.batches import collate, example_losses, loss_tokens
from curator.training.model import TunedModel
from curator.workspace.workspace import Workspace

# Most tokens of a probed batch. A larger batch takes longer, and hardly changes the rate.
_MOST_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Result of a probe: the rate of a training step, and one line about the threads if a trial chose them."""

    rate: Rate
    threads: str = ""


def chooses_threads(tuned: TunedModel) -> bool:
    """Return whether a probe chooses the number of threads: on a CPU, if neither user nor launcher decides it."""
    import torch

    undecided = not user_sets_threads() and distributed.world_size() == 1
    return tuned.device.type == "cpu" and undecided and torch.get_num_threads() > 1


def probe(workspace: Workspace, corpus: Corpus, tuned: TunedModel) -> Probed | None:
    """Time a training step. On a CPU, also set torch's number of threads, unless the environment decides it.

    Args:
        workspace: The project.
        corpus: Examples of the project.
        tuned: The project's model.

    Returns:
        The rate per token. None if the corpus has no example.
    """
    import torch

    examples = _batch(workspace, corpus)
    if not examples:
        return None
    most = torch.get_num_threads()
    counts = thread_counts(most) if chooses_threads(tuned) else [most]
    with TemporaryDirectory(prefix="curator-probe-") as folder, _step(workspace, tuned, examples, Path(folder)) as step:
        seconds = try_threads(step, counts, torch.set_num_threads if len(counts) > 1 else _keep)
    chosen = best_count(seconds)
    if len(counts) > 1:
        torch.set_num_threads(chosen)
        # Sums of gradients use NumPy's BLAS, whose threads wait for each other too.
        get_cached_controller().limit(limits=chosen, user_api="blas")
    tuned.model.eval()
    tuned.model.zero_grad(set_to_none=True)
    tokens = sum(example.length for example in examples)
    return Probed(
        rate=Rate(seconds=seconds[chosen] / tokens, peak_bytes=peak_bytes()),
        threads=describe_trial(seconds, chosen) if len(counts) > 1 else "",
    )


def _keep(threads: int) -> None:
    """Leave the number of threads unchanged."""


def _batch(workspace: Workspace, corpus: Corpus) -> list[TokenizedExample]:
    """Return the middle examples of tasks that lie evenly in the corpus: at most a batch."""
    tasks = [task for task in corpus.tasks if task.split.train]
    size = workspace.config.train.batch_size
    chosen, tokens = list[TokenizedExample](), 0
    for task in tasks[:: max(len(tasks) // size, 1)][:size]:
        there = training_examples(task, workspace.store)
        for example in there[len(there) // 2 :][: max(size // len(tasks), 1)]:
            if chosen and (len(chosen) == size or tokens + example.length > _MOST_TOKENS):
                return chosen
            chosen.append(example)
            tokens += example.length
    return chosen


@contextmanager
def _step(
    workspace: Workspace, tuned: TunedModel, examples: list[TokenizedExample], folder: Path
) -> Iterator[Callable[[], None]]:
    """Yield a function that makes one forward and backward pass, and waits for its end."""
    import torch

    batch = collate(examples)
    factor = 1.0 / max(float(loss_tokens(batch, tuned.encoder_decoder).sum()), 1.0)
    positions = torch.arange(len(examples))
    capture = None
    if workspace.config.captures:
        # A model that cannot capture is reported when it trains.
        capture = Capture(tuned, sketch(workspace.config), folder, Reporter())
        capture.open()
    tuned.model.train()

    def passes() -> None:
        losses = example_losses(tuned.model, batch, encoder_decoder=tuned.encoder_decoder)
        counts = loss_tokens(batch, tuned.encoder_decoder).to(losses.device)
        torch.autograd.backward((losses * counts).sum() * factor)

    def step() -> None:
        if capture is None:
            passes()
        else:
            with capture.batch(1, positions, factor, batch):
                passes()
        if tuned.device.type == "cuda":
            torch.cuda.synchronize()

    try:
        yield step
    finally:
        if capture is not None:
            capture.close()
