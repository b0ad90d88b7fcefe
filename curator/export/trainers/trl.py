"""Write exports for TRL's `trl sft`. Tested with 1.16.

TRL concatenates all files, so all must have the same columns. TRL tokenizes `prompt` and `completion` together.
The completion begins after the tokens that the whole text shares with the prompt alone. TRL adds an end-of-text token
if the text has none. TRL uses data with `input_ids` and `labels` unchanged.

A list of `datasets` cannot name a validation file. Therefore `dataset_name` names a folder. `datasets` finds the split
of a file by words in the name of the file, such as `train` and `test`. Therefore no task's name may add such a word.

`fraction` is a share of the whole mixture and takes the first rows. Therefore the files hold the weights.
"""

from typing import TYPE_CHECKING, Any

from curator.core.files import folded
from curator.data.rows import Content
from curator.data.tokens import IGNORED, Encoded
from curator.export.data_files import VALIDATION, DataFile
from curator.export.format import Format
from curator.export.forms import MARKED_MESSAGES, TOKENS, Encoding, Form, Labelled
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, evaluation, recipe_of
from curator.export.yaml import to_yaml

if TYPE_CHECKING:
    from curator.export.format import Plan

CONFIG, SPLITS = "sft.yaml", "splits"
# Words by which `datasets` finds the split of a file.
_SPLIT_WORDS = ("train", "valid", "val", "dev", "test", "eval")


def _write_pair(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    """Return prompt and completion as text, or None if other text than the end carries loss."""
    if "text" in content or len(encoded.spans) != 2:
        return None
    start, end = encoded.spans
    return {"prompt": encoded.text[:start], "completion": encoded.text[start:end]}


def _read_pair(row: dict[str, Any], encoding: Encoding) -> Labelled:
    prompt, completion = row["prompt"], row["completion"]
    if not completion.endswith(encoding.eos):
        completion += encoding.eos
    before, ids = encoding.ids(prompt, special=True), encoding.ids(prompt + completion, special=True)
    shared = next((n for n, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids)))
    labels = [IGNORED] * shared + ids[shared:]
    return ids[: encoding.max_length], labels[: encoding.max_length]


def _write_text(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    return {"text": content["text"]} if "text" in content else None


def _read_text(row: dict[str, Any], encoding: Encoding) -> Labelled:
    text = row["text"] if row["text"].endswith(encoding.eos) else row["text"] + encoding.eos
    ids = encoding.ids(text, special=True)[: encoding.max_length]
    return ids, list(ids)


PAIR = Form("prompt-completion", "prompt and completion, as text", _write_pair, _read_pair)
TEXT = Form("text", "plain text", _write_text, _read_text)


def _files(plan: "Plan") -> dict[str, str]:
    recipe, form = recipe_of(plan), plan.form
    assert form is not None
    config: dict[str, Any] = {
        "model_name_or_path": recipe.model,
        **({"model_revision": recipe.revision} if recipe.revision else {}),
        "dtype": recipe.dtype,
        **({f"load_in_{recipe.quantization}": True} if recipe.quantization != "none" else {}),
        "dataset_name": SPLITS,
        "dataset_train_split": "train",
        **({"dataset_test_split": VALIDATION, **evaluation()} if plan.held_out else {}),
        **({"chat_template_path": plan.template} if plan.template else {}),
        "max_length": recipe.max_length,
        "packing": False,
        **({"completion_only_loss": True} if form is PAIR else {}),
        **({"assistant_only_loss": True} if form is MARKED_MESSAGES else {}),
        "use_peft": True,
        "lora_r": recipe.lora.r,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.lora.dropout,
        "lora_target_modules": recipe.targets or ["all-linear"],
        "num_train_epochs": recipe.train.epochs,
        "learning_rate": recipe.train.learning_rate,
        "per_device_train_batch_size": recipe.train.batch_size,
        "gradient_accumulation_steps": recipe.train.gradient_accumulation,
        "lr_scheduler_type": recipe.train.schedule,
        "warmup_steps": recipe.train.warmup,
        "weight_decay": recipe.train.weight_decay,
        "seed": recipe.train.seed,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": recipe.train.report_to,
        "output_dir": OUTPUT,
    }
    return {CONFIG: to_yaml(config, f"In this folder: {plan.format.command}"), NAME: readme(plan)}


def _stem(name: str, number: int, held_out: bool) -> str:
    known = "task" if any(word in folded(name) for word in _SPLIT_WORDS) else name
    return f"{number:04}-{known}" if held_out else f"train-{number:04}-{known}"


FORMAT = Format(
    name="trl",
    trainer="TRL",
    tested="TRL 1.16.0, its own parser, tokens and two steps of training",
    forms=(PAIR, TEXT, MARKED_MESSAGES, TOKENS),
    data_files={
        PAIR.name: DataFile("jsonl", SPLITS),
        TEXT.name: DataFile("jsonl", SPLITS),
        MARKED_MESSAGES.name: DataFile("jsonl", SPLITS),
        TOKENS.name: DataFile("parquet", SPLITS),
    },
    config_names=(CONFIG, NAME),
    stem=_stem,
    files=_files,
    command=f"trl sft --config {CONFIG}",
)
