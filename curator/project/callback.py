"""`CuratorCallback`: capture gradients during the user's own training with `SFTTrainer`.

A run on all tasks together with the project's recipe is a meta-training. The callback follows the run as curator
follows its own (training/trainer.py). Hooks capture the gradient of every visit. A recorder saves averaged adapters.
A batch holds tokens only, so its rows are recognised by their tokens. `Project.select` then needs no training.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback

from curator.core import distributed
from curator.core.errors import ConfigError, CuratorError, NumericalError
from curator.core.events import Stopwatch
from curator.core.provenance import key_of
from curator.data.corpus import training_examples
from curator.data.tokens import IGNORED
from curator.gradients.capture import Capture
from curator.gradients.segment_passes import INITIAL
from curator.gradients.segment_sets import capture_folder, captured_examples, sketch
from curator.training.meta_init import find_meta_init, keep_meta_init, train_inputs
from curator.training.model import TunedModel, layout_of
from curator.training.trainer import Recorder

if TYPE_CHECKING:
    from curator.project.project import Project

_ALL = 'Train on `project.to_datasets()["train"]`, which holds all tasks, and set `max_length=None`.'


class CuratorCallback(TrainerCallback):
    """Capture gradients during a training of all tasks together, so that estimates need no training of their own.

        >>> project = curator.Project.create("work", dataset, task_column="task", target="qa", model="my-model",
        ...     settings=curator.CuratorCallback.settings(args, peft_config))
        >>> trainer = SFTTrainer("my-model", args, train_dataset=project.to_datasets()["train"],
        ...     peft_config=peft_config, callbacks=[curator.CuratorCallback(project)])
        >>> trainer.train()
        >>> project.select()

    The trainer must train one LoRA adapter by the recipe of the project. It must train on every training example of the
    project, and on no other. `on_train_begin` raises an error that names each difference. With several processes under
    `torchrun` or `accelerate launch`, every process needs the callback, and holds the whole model.

    Args:
        project: Project with the tasks of the training.
        target: Target to use instead of the configured one. Its held-out examples must not be trained on.
    """

    def __init__(self, project: "Project", *, target: str | Sequence[str] | None = None) -> None:
        self._project, self._target = project, target
        self._run: _Run | None = None

    @staticmethod
    def settings(args: Any, peft_config: Any) -> dict[str, dict[str, Any]]:
        """Return the recipe of a trainer as `settings` of `Project.create`.

        Args:
            args: `SFTConfig` of the trainer.
            peft_config: `LoraConfig` of the trainer.

        Raises:
            ConfigError: The number of epochs or the warm-up is given in steps.
        """
        if args.max_steps > 0:
            raise ConfigError("curator needs the length of a training in epochs", hint="Set `num_train_epochs`.")
        if args.warmup_steps >= 1:
            raise ConfigError(
                "curator needs the warm-up as a share", hint="Set `warmup_steps` to a share of the steps."
            )
        modules = peft_config.target_modules
        found = {
            "lora": {
                "r": peft_config.r,
                "alpha": peft_config.lora_alpha,
                "dropout": peft_config.lora_dropout,
                "target_modules": modules if isinstance(modules, str) else sorted(modules),
            },
            "train": _recipe(args),
        }
        length = getattr(args, "max_length", None)
        return found | ({"data": {"max_length": length}} if length else {})

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check that the training is a meta-training of the project, and begin to capture."""
        self.close()
        workspace = self._project.workspace
        targets = workspace.targets(self._target)
        corpus = self._project.corpus(targets)
        if state.global_step:
            workspace.reporter.warn("gradients are not captured: the training resumes from a checkpoint")
        elif distributed.from_main(find_meta_init(workspace, corpus) is not None):
            workspace.reporter.warn("gradients are not captured: the project has a meta-initialization that fits")
        else:
            self._run = _Run(self._project, corpus, args, state.max_steps, given["model"], given["train_dataloader"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take note of the number of the step."""
        if self._run is not None:
            self._run.step = state.global_step + 1

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the gradients of a batch whose optimizer step comes later."""
        if self._run is not None:
            self._run.end_batch()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the gradients of the last batch of a step."""
        if self._run is not None:
            self._run.end_batch()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take over the optimizer's metric, and average the adapter."""
        if self._run is not None:
            self._run.end_step(state.global_step, given["optimizer"])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Store the meta-initialization, if the training ran to its end."""
        if self._run is not None and state.global_step < state.max_steps:
            self._project.reporter.warn("gradients are not kept: the training stopped before its last step")
        elif self._run is not None:
            self._run.finish()
        self.close()

    def close(self) -> None:
        """Remove all hooks, and let other processes use the project. Call it if a training fails."""
        if self._run is not None:
            self._run.close()
        self._run = None


class _Run:
    """One training that is captured."""

    def __init__(self, project: "Project", corpus: Any, args: Any, steps: int, model: Any, dataloader: Any) -> None:
        workspace = project.workspace
        self._workspace, self._corpus, self._model = workspace, corpus, model
        self._tuned = TunedModel(model, encoder_decoder=False)
        _check_recipe(project, args, model)
        self._check_layout()
        self._positions = _Positions(corpus, workspace.store)
        self._positions.check(dataloader.dataset)
        self._inputs = train_inputs(workspace.config, corpus)
        key = key_of(self._inputs)
        self._exit = ExitStack()
        self._exit.enter_context(workspace.job("train"))
        try:
            if distributed.from_main(find_meta_init(workspace, corpus) is not None):
                # Its adapters and gradients are in the same folders.
                raise ConfigError(
                    "another training of the project has ended meanwhile",
                    hint="Start the training again. curator then captures nothing.",
                )
            folder = capture_folder(workspace, key)
            if distributed.is_main():
                captured_examples(corpus, folder)
                self._tuned.save_adapter(workspace.adapters / key / INITIAL)
            self._capture = Capture(self._tuned, sketch(workspace.config), folder, workspace.reporter)
            self._capture.begin(0, None)
            self._exit.callback(self._capture.close)
            self._took = Stopwatch()
            self._recorder = Recorder(
                self._tuned,
                workspace.adapters / key,
                self._inputs["points"],
                self._inputs.get("average"),
                None,
                workspace.reporter.with_sink(self._took),
                "train",
                self._capture,
            )
            self._recorder.begin(0, steps, main=distributed.is_main())
            for handle in (
                model.register_forward_pre_hook(self._before, with_kwargs=True),
                model.register_forward_hook(self._after, with_kwargs=True),
            ):
                self._exit.callback(handle.remove)
        except BaseException:
            self._exit.close()
            raise
        self.step = 1
        self._batch: ExitStack | None = None
        self._factor = torch.zeros(())

    def _check_layout(self) -> None:
        config = self._workspace.config
        wanted = layout_of(self._corpus.model.folder, config.model, config.lora)
        if self._tuned.layout != wanted:
            there, here = self._tuned.layout.shapes, wanted.shapes
            names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
            first = names[0] if names else "the order of the parameters"
            raise ConfigError(
                f"the trainer's adapter differs from the project's: {first}",
                hint="Set [model] and [lora] of the project to the trainer's model and `LoraConfig`.",
            )
        if any(p.requires_grad and p.dtype != torch.float32 for p in self._model.parameters()):
            raise ConfigError("the trainer's adapter is not in float32", hint="Convert the adapter to float32.")

    def _before(self, module: Any, given: Any, inputs: dict[str, Any]) -> None:
        """Begin to capture when the model is called with a batch."""
        if not (module.training and torch.is_grad_enabled() and self._capture.complete):
            return
        if self._batch is not None:
            self._capture.give_up("the trainer calls the model more than once for a batch")
            return
        if inputs.get("input_ids") is None or inputs.get("labels") is None:
            self._capture.give_up("the trainer computes the loss outside of the model")
            return
        batch = {name: inputs[name] for name in ("input_ids", "labels")}
        positions = self._positions.of(batch)
        if positions is None:
            self._capture.give_up("a batch has rows that the project does not have")
            return
        self._factor = torch.zeros((), device=self._tuned.device)
        self._batch = ExitStack()
        self._batch.enter_context(self._capture.batch(self.step, positions, self._factor, batch))

    def _after(self, module: Any, given: Any, inputs: dict[str, Any], output: Any) -> None:
        """Find out by what the trainer multiplies the loss of a token, from the gradient of the model's output."""
        if self._batch is None:
            return
        tokens, loss = getattr(output, "log_probs", None), getattr(output, "loss", None)
        if tokens is not None and tokens.requires_grad:
            tokens.register_hook(self._take_factor)
        elif loss is not None and loss.requires_grad:
            count = inputs.get("num_items_in_batch")
            whole = (inputs["labels"][:, 1:] != IGNORED).sum() if count is None else count
            loss.register_hook(lambda gradient: self._factor.copy_(gradient / whole) and None)

    def _take_factor(self, gradient: torch.Tensor) -> None:
        # A loss that weighs tokens differently has no common factor.
        if gradient.numel() and torch.allclose(gradient.min(), gradient.max(), rtol=1e-4, atol=0):
            self._factor.copy_(-gradient.mean())

    def end_batch(self) -> None:
        """Write the gradients of the batch whose backward pass has ended."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if not float(self._factor) > 0:
            self._capture.give_up("the trainer's loss is not the mean over tokens")
        try:
            batch.close()
        except NumericalError as error:
            self._capture.give_up(error.message)

    def end_step(self, step: int, optimizer: Any) -> None:
        """Take over the metric of the optimizer, and average the adapter."""
        self._capture.step(step, optimizer)
        self._recorder.step(step)

    def finish(self) -> None:
        """Store the meta-initialization."""
        reporter = self._workspace.reporter
        self.end_batch()
        self._capture.close()
        was_training = self._model.training
        try:
            self._recorder.finish()
            # The main process may still write the last adapter.
            distributed.wait()
            keep_meta_init(
                self._workspace,
                self._corpus,
                self._tuned,
                self._inputs,
                self._recorder.checkpoints(),
                seconds=self._took.whole,
                captured=all(distributed.gather([self._capture.complete])),
            )
        except CuratorError as error:
            reporter.warn(f"gradients are not kept: {error.message}")
        self._model.train(was_training)

    def close(self) -> None:
        """Remove the hooks, and release the project."""
        if self._batch is not None:
            self._capture.complete = False
            self._batch.close()
            self._batch = None
        self._exit.close()


class _Positions:
    """Recognise training examples by their tokens. Equal examples take turns, in each process from another start."""

    def __init__(self, corpus: Any, store: Any) -> None:
        self._places: dict[bytes, list[int]] = {}
        self._turns: Counter[bytes] = Counter()
        examples = (example for task in corpus.tasks for example in training_examples(task, store))
        for number, example in enumerate(examples):
            self._places.setdefault(_key(example.input_ids, example.labels), []).append(number)

    def check(self, dataset: Any) -> None:
        """Check that a data set holds every example once.

        Raises:
            ConfigError: An example is missing, or the data set has others.
        """
        try:
            there = Counter(_key(row["input_ids"], row["labels"]) for row in dataset)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError("the trainer's data set has no token ids and labels", hint=_ALL) from error
        here = {key: len(places) for key, places in self._places.items()}
        foreign = sum((there - Counter(here)).values())
        missing = sum((Counter(here) - there).values())
        if foreign or missing:
            raise ConfigError(
                f"the trainer's rows differ from the project's: {foreign:,} rows of the trainer are not in the project,"
                f" and {missing:,} training examples of the project are not in the trainer",
                hint=_ALL,
            )

    def of(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the positions of the rows of a batch (n,), or None if a row is unknown."""
        found = []
        rows = zip(batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy(), strict=True)
        for ids, labels in rows:
            key = _key(ids, labels)
            places = self._places.get(key)
            if places is None:
                return None
            found.append(places[(self._turns[key] + distributed.rank()) % len(places)])
            self._turns[key] += 1
        return torch.tensor(found)


def _key(ids: Sequence[int], labels: Sequence[int]) -> bytes:
    """Return a hash of what decides an example's loss: no padding, and no token after the last one with loss."""
    wanted = np.asarray(labels, dtype=np.int32)
    carrying = np.flatnonzero(wanted[1:] != IGNORED)
    end = int(carrying[-1]) + 2 if carrying.size else 0
    known = np.asarray(ids, dtype=np.int32)[:end].tobytes()
    return hashlib.blake2b(known + b"|" + wanted[1:end].tobytes(), digest_size=16).digest()


def _recipe(args: Any) -> dict[str, Any]:
    return {
        "epochs": args.num_train_epochs,
        "learning_rate": args.learning_rate,
        "batch_size": args.per_device_train_batch_size,
        "gradient_accumulation": args.gradient_accumulation_steps,
        "schedule": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        "warmup": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
    }


# Variables by which Accelerate cuts a model among processes.
_SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
# Settings that curator's own runs never change, with the values that the estimates assume.
_FIXED = {
    "max_steps": -1,
    "max_grad_norm": 1.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": None,
    "fp16": False,
    "packing": False,
    "padding_free": False,
}


def _check_recipe(project: "Project", args: Any, model: Any) -> None:
    """Check that a trainer follows the recipe of the project. The seed may differ.

    Raises:
        ConfigError: The recipe differs, or estimates do not support it.
    """
    config = project.config
    if not config.captures:
        raise ConfigError(
            f"estimate.method = {config.estimate.method!r} uses no captured gradients",
            hint='Set method = "trajectory" under [estimate].',
        )
    peft = getattr(model, "peft_config", {}).get("default")
    if peft is None or getattr(peft, "peft_type", None) != "LORA" or len(model.peft_config) > 1:
        raise ConfigError("the trainer does not train one LoRA adapter", hint="Pass `peft_config=LoraConfig(…)`.")
    there: dict[str, Any] = {f"train.{name}": value for name, value in _recipe(args).items() if name != "seed"}
    there |= {"lora.r": peft.r, "lora.alpha": peft.lora_alpha, "lora.dropout": peft.lora_dropout}
    here = {f"{s}.{n}": value for s in ("train", "lora") for n, value in getattr(config, s).model_dump().items()}
    differing = [f"{name} is {here[name]} in the project and {there[name]} in the trainer" for name in there
                 if here[name] != there[name]]  # fmt: skip
    differing += [
        f"{name} is {getattr(args, name)!r}, and estimates assume {value!r}"
        for name, value in _FIXED.items()
        if getattr(args, name, value) != value
    ]
    if not str(getattr(args.optim, "value", args.optim)).startswith("adamw_torch"):
        differing.append(f"optim is {args.optim!s}, and estimates assume AdamW of torch")
    if args.world_size != distributed.world_size() or args.n_gpu > 1:
        differing.append(f"{max(args.world_size, args.n_gpu)} devices share each batch of one process")
    by_launcher = any(os.environ.get(name) == "true" for name in _SHARDING)
    by_model = getattr(model, "is_distributed_loading_by_transformers", False)
    if args.fsdp or args.deepspeed or by_launcher or by_model:
        differing.append("FSDP or DeepSpeed cuts the model, and the callback needs a whole model in each process")
    if peft.use_rslora or peft.use_dora:
        differing.append("the adapter uses rsLoRA or DoRA, and estimates assume LoRA")
    if differing:
        raise ConfigError(
            "the trainer's recipe differs from the project's: " + "; ".join(differing),
            hint="Create the project with `settings=CuratorCallback.settings(args, peft_config)`.",
        )
