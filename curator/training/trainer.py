"""Train LoRA adapters with the transformers Trainer.

Meta-training and every other fine-tuning run use the same function, so they share one recipe.
The Trainer and Accelerate provide several GPUs, mixed precision, gradient accumulation and resuming.
The loss is the mean over all completion tokens of a step's examples, over all its batches and processes.
An observer sees every batch of a run. Meta-training captures gradients with it.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from curator.core import distributed
from curator.core.config import TrainSection
from curator.core.errors import CuratorError, DataError, NumericalError
from curator.core.events import Reporter, Stage
from curator.core.figures import fixed
from curator.core.folders import entries_below, remove_folder
from curator.data.model_files import is_of_the_disk
from curator.data.tokens import TokenizedExample
from curator.training.batches import by_length, collate, example_losses, loss_tokens
from curator.training.model import TunedModel
from curator.training.tracking import current_run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from transformers import Trainer

# Largest number of checkpoints of a run, and shortest time between two. They limit the work that a killed run loses.
# The time matters for small models, whose checkpoints take longer than their steps.
_CHECKPOINTS = 20
_CHECKPOINT_SECONDS = 2.0
_COMPLETE = "complete"
_SUMS = "sums.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Describe the saved adapter at one moment of a training run, averaged over the preceding steps."""

    share: float
    """Share of the run's steps, in (0, 1]."""
    step: int
    """Last step of the average."""
    folder: str
    """Name of the folder inside the run's folder."""
    sha256: str
    """SHA-256 of the file of weights."""


class Observer(Protocol):
    """Follow the batches and steps of one training run in this process."""

    def begin(self, done: int, checkpoint: Path | None) -> None:
        """Start, or go on after `done` steps. The run repeats later steps that were observed before a kill.

        Args:
            done: Steps that are done.
            checkpoint: Folder that the run resumes from, or None.
        """

    def batch(
        self, step: int, positions: "torch.Tensor", factor: float, inputs: "Mapping[str, torch.Tensor]"
    ) -> AbstractContextManager[None]:
        """Enclose the forward and backward pass of one batch.

        Args:
            step: Number of the step, from 1.
            positions: Positions of the batch's examples in the run's examples (n,).
            factor: The backward pass differentiates `factor` times the sum of the losses of all completion tokens.
            inputs: The batch, as `collate` made it.
        """

    def step(self, step: int, optimizer: Any) -> None:
        """Take note that the optimizer has made a step."""

    def checkpoint(self, folder: Path) -> None:
        """Write everything to the disk, because the run may resume from this folder. Every process calls it."""

    def save(self, folder: Path) -> None:
        """Write what belongs to an adapter that is saved now into the adapter's folder."""


def train_adapter(
    tuned: TunedModel,
    examples: Sequence[TokenizedExample],
    recipe: TrainSection,
    *,
    folder: Path,
    shares: Sequence[float] = (),
    average: float | None = 0.0,
    reporter: Reporter,
    stage: str,
    seed: int | None = None,
    keep_checkpoints: bool = False,
    observer: Observer | None = None,
) -> list[Checkpoint]:
    """Fine-tune the adapter of a model. Resume an interrupted run from its last checkpoint.

    Args:
        tuned: Model. Its adapter is reset first, and holds the trained weights afterwards.
        examples: Training examples (n).
        recipe: Section `[train]` of the configuration.
        folder: Folder of the run, for saved adapters and for checkpoints to resume from.
        shares: Shares of the steps at which to save the adapter, in (0, 1].
        average: Share of the steps to average before each saved adapter. A single step's adapter depends mainly on
            the last few batches. Gradients there describe those batches more than the tasks. None averages over all
            steps since the previous saved adapter.
        reporter: Receives steps, loss and time left.
        stage: Name of the stage in events.
        seed: Seed of the initialization and of the order of examples. Default: the recipe's seed.
        keep_checkpoints: Whether to keep the last checkpoints. A caller that is interrupted before it stores the
            result then need not train again. `remove_run` removes the checkpoints.
        observer: Follows every batch and step.

    Returns:
        Saved adapters in order of their steps. Shares of the same step give one adapter.

    Raises:
        NumericalError: The loss or the adapter is not finite.
        DataError: A checkpoint or adapter cannot be written, or a checkpoint cannot be read.
    """
    import torch

    seed = recipe.seed if seed is None else seed
    tuned.reset(seed)
    tuned.model.train()
    checkpoints = folder / "checkpoints"
    resume_from = _last_complete(checkpoints)
    recorder = Recorder(tuned, folder, shares, average, resume_from, reporter, stage, observer)
    trainer = _trainer(tuned, examples, recipe, checkpoints, seed, recorder, observer)
    try:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    except CuratorError:
        # An observer found the disk full after a part of a checkpoint was written.
        _remove_incomplete(checkpoints)
        raise
    except Exception as error:
        if is_of_the_disk(error):
            _remove_incomplete(checkpoints)
            raise DataError(
                f"cannot write {folder}: {error}",
                hint="Check free disk space and write permissions. Run the same command again to resume.",
            ) from error
        if resume_from is None or recorder.stepped or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot resume from checkpoint {resume_from}: {reason:.200}",
            hint="Delete the folder of the checkpoint, and run the same command again.",
        ) from error
    tuned.model.eval()
    if trainer.is_world_process_zero() and not keep_checkpoints:
        remove_run(checkpoints)
    recorder.finish()
    return recorder.checkpoints()


def training_steps(examples: int, recipe: TrainSection) -> int:
    """Return the number of optimizer steps of a run, as the Trainer counts them.

    Args:
        examples: Number of training examples.
        recipe: Section `[train]` of the configuration.
    """
    batches = math.ceil(math.ceil(examples / recipe.batch_size) / distributed.world_size())
    return math.ceil(recipe.epochs * max(math.ceil(batches / recipe.gradient_accumulation), 1))


def checkpoint_steps(shares: Sequence[float], steps: int) -> dict[int, float]:
    """Return the step of each saved adapter with its share of the steps. Shares of the same step give one adapter."""
    return {max(1, round(share * steps)): share for share in sorted(shares)}


def steps_done(folder: Path) -> int:
    """Return the number of steps after which an interrupted run resumes, or 0. Change nothing.

    Args:
        folder: Folder of the run.
    """
    found = _checkpoints(folder / "checkpoints")
    return max((step for step, path in found.items() if (path / _COMPLETE).exists()), default=0)


def remove_run(folder: Path) -> None:
    """Remove a folder with its checkpoints. After a kill during removal, no run resumes from a partial checkpoint.

    Args:
        folder: Folder that holds the checkpoints, at any depth.
    """
    # Remove the completion markers first, so that a partly removed checkpoint counts as incomplete.
    for path in entries_below(folder) if folder.is_dir() else ():
        if path.name == _COMPLETE:
            path.unlink()
    remove_folder(folder)


def measure_losses(
    tuned: TunedModel, examples: Sequence[TokenizedExample], *, batch_tokens: int
) -> "npt.NDArray[np.float64]":
    """Measure the loss of each example with the current adapter.

    Args:
        tuned: Model.
        examples: Examples to measure (n).
        batch_tokens: Maximum number of tokens of a batch, including padding.

    Returns:
        Losses (n,) in nats per completion token.
    """
    import numpy as np

    tuned.model.eval()
    losses = np.zeros(len(examples))
    with tuned.inference():
        for positions in by_length([e.length for e in examples], batch_tokens):
            batch = collate([examples[p] for p in positions])
            losses[positions] = example_losses(tuned.model, batch, encoder_decoder=tuned.encoder_decoder).cpu()
    return losses


def _trainer(
    tuned: TunedModel,
    examples: Sequence[TokenizedExample],
    recipe: TrainSection,
    checkpoints: Path,
    seed: int,
    recorder: "Recorder",
    observer: Observer | None,
) -> "Trainer":
    import torch
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

    class Examples(torch.utils.data.Dataset[tuple[int, TokenizedExample]]):
        def __len__(self) -> int:
            return len(examples)

        def __getitem__(self, index: int) -> tuple[int, TokenizedExample]:
            return index, examples[index]

    def numbered(items: Sequence[tuple[int, TokenizedExample]]) -> dict[str, torch.Tensor]:
        batch = collate([example for _, example in items])
        return batch | {"positions": torch.tensor([index for index, _ in items])}

    class TokenMeanTrainer(Trainer):
        """Compute the mean loss over the completion tokens of a whole step, and let the observer follow."""

        # `compute_loss` divides by the tokens of all batches of the step, so the Trainer must not divide again.
        loss_is_scaled_for_ga = True

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
            batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            count = sum((loss_tokens(batch, tuned.encoder_decoder).sum() for batch in batches), torch.zeros(()))
            return batches, self.accelerator.gather(count.to(device).reshape(1)).sum()

        def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
            super()._save(output_dir, tuned.trained_state() or state_dict)

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            positions = inputs.pop("positions")
            # Processes average their gradients, so each contributes its sum times their number.
            self.factor = distributed.world_size() / max(float(num_items_in_batch), 1.0)
            step = self.state.global_step + 1
            with nullcontext() if observer is None else observer.batch(step, positions, self.factor, inputs):
                return super().training_step(model, inputs, num_items_in_batch)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            losses = example_losses(model, inputs, encoder_decoder=tuned.encoder_decoder)
            return (losses * loss_tokens(inputs, tuned.encoder_decoder).to(losses.device)).sum() * self.factor

    class Callback(TrainerCallback):
        """Forward the Trainer's calls to the recorder, and decide when to save a checkpoint."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if observer is not None:
                observer.begin(state.global_step, recorder.resume_from)
            recorder.begin(state.global_step, state.max_steps, main=state.is_world_process_zero)
            self.saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if observer is not None:
                observer.step(state.global_step, given["optimizer"])
            recorder.step(state.global_step)
            interval = max(1, state.max_steps // _CHECKPOINTS)
            due = state.global_step % interval == 0 and state.global_step < state.max_steps
            # All processes write a checkpoint together. Their clocks differ, so the main process decides.
            control.should_save = due and distributed.from_main(time.monotonic() - self.saved >= _CHECKPOINT_SECONDS)

        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if "loss" in given["logs"]:
                recorder.loss(given["logs"]["loss"], state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = checkpoints / f"checkpoint-{state.global_step}"
            if observer is not None:
                observer.checkpoint(checkpoint)
            # The marker is written last. A checkpoint without it is incomplete.
            if state.is_world_process_zero:
                recorder.save(checkpoint)
                (checkpoint / _COMPLETE).touch()
            self.saved = time.monotonic()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = False

    run = current_run()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        seed=seed,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=1 if tuned.device.type == "cpu" else 10,
        logging_nan_inf_filter=False,
        report_to=recipe.report_to,
        run_name=None if run is None else run.name,
        # trackio lists runs by this name.
        project="curator" if run is None else run.project,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=tuned.device.type == "cuda",
        use_cpu=tuned.device.type == "cpu",
    )
    trainer = TokenMeanTrainer(
        model=tuned.model,
        args=arguments,
        train_dataset=Examples(),
        data_collator=numbered,
        callbacks=[Callback()],
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    return trainer


class Recorder:
    """Follow a training run: report progress and loss, and save the averaged adapters."""

    def __init__(
        self,
        tuned: TunedModel,
        folder: Path,
        shares: Sequence[float],
        average: float | None,
        resume_from: Path | None,
        reporter: Reporter,
        stage: str,
        observer: Observer | None,
    ) -> None:
        self._tuned, self._folder, self._shares, self._average = tuned, folder, sorted(shares), average
        self.resume_from, self._reporter, self._name = resume_from, reporter, stage
        self._trained = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
        self._observer = observer
        self._stage: Stage | None = None
        self.stepped = False
        """Whether this process has made at least one step."""
        self._main = True
        self._points: dict[int, float] = {}
        self._starts: dict[int, int] = {}
        self._sums: dict[int, torch.Tensor] = {}
        self._last_loss: float | None = None

    def begin(self, done: int, total: int, *, main: bool) -> None:
        """Start a run of `total` steps, of which `done` are done. Only the main process saves adapters."""
        self._main = main
        self._points = checkpoint_steps(self._shares, total)
        ends = sorted(self._points)
        if self._average is None:
            self._starts = dict(zip(ends, [0, *ends], strict=False))
        else:
            window = max(1, round(self._average * total))
            self._starts = {end: max(end - window, 0) for end in ends}
        if self.resume_from is not None:
            from safetensors.torch import load_file

            sums = load_file(self.resume_from / _SUMS)
            self._sums = {int(point): vector.to(self._tuned.device) for point, vector in sums.items()}
        self._stage = self._reporter.stage(self._name, total, "steps", done=done)

    def save(self, checkpoint: Path) -> None:
        """Save the unfinished sums of averaged adapters with a checkpoint."""
        from safetensors.torch import save_file

        save_file({str(point): vector.cpu() for point, vector in self._sums.items()}, checkpoint / _SUMS)

    def step(self, step: int) -> None:
        """Add the adapter after a step to the open means, and save the means that are complete."""
        self.stepped = True
        if self._stage is not None:
            self._stage.advance_to(step, loss=self._last_loss)
        open_windows = [p for p in self._points if self._starts[p] < step <= p]
        if not open_windows:
            return
        here = self._tuned.layout.flatten({n: p.detach() for n, p in self._trained.items()})
        for point in open_windows:
            self._sums[point] = self._sums[point] + here if point in self._sums else here.clone()
        if step in self._points:
            mean = self._sums.pop(step) / (step - self._starts[step])
            if self._main:
                self._put(mean)
                self._tuned.save_adapter(self._folder / _point(step), card=False)
                self._put(here)
                if self._observer is not None:
                    self._observer.save(self._folder / _point(step))

    def _put(self, vector: "torch.Tensor") -> None:
        import torch

        with torch.no_grad():
            for name, values in self._tuned.layout.unflatten(vector).items():
                self._trained[name].copy_(values)

    def loss(self, loss: float, step: int) -> None:
        """Report the training loss.

        Raises:
            NumericalError: The loss is not finite.
        """
        self._last_loss = loss
        if not math.isfinite(loss):
            raise NumericalError(
                f"the training loss became {loss} at step {step}",
                hint="Lower train.learning_rate, or set model.dtype to float32.",
            )

    def finish(self) -> None:
        """Check the adapter at the end of the run, and report the end.

        Raises:
            NumericalError: The adapter is not finite.
        """
        import torch

        for name, parameter in self._tuned.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise NumericalError(f"NaN or infinity in {name} after training", hint="Lower train.learning_rate.")
        if self._stage is not None:
            loss = "" if self._last_loss is None else f"last loss {fixed(self._last_loss, 3)}"
            self._stage.finish(loss)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the saved adapters in order of their steps."""
        import hashlib

        return [
            Checkpoint(
                share=share,
                step=step,
                folder=_point(step),
                sha256=hashlib.sha256(
                    (self._folder / _point(step) / "adapter_model.safetensors").read_bytes()
                ).hexdigest(),
            )
            for step, share in sorted(self._points.items())
        ]


def _point(step: int) -> str:
    return f"step-{step:06d}"


def _last_complete(checkpoints: Path) -> Path | None:
    """Remove incomplete checkpoints, and return the newest complete one, or None."""
    _remove_incomplete(checkpoints)
    found = _checkpoints(checkpoints)
    return found[max(found)] if found else None


def _checkpoints(checkpoints: Path) -> dict[int, Path]:
    """Return the folders of checkpoints by their steps. Folders with other names are not curator's."""
    named = ((path.name.removeprefix("checkpoint-"), path) for path in checkpoints.glob("checkpoint-*"))
    return {int(step): path for step, path in named if step.isascii() and step.isdigit() and len(step) < 20}


def _remove_incomplete(checkpoints: Path) -> None:
    for path in _checkpoints(checkpoints).values():
        if not (path / _COMPLETE).exists():
            remove_folder(path)
