"""Write exports for ms-swift. Tested with 4.6.

ms-swift has its own chat template for each kind of model. The template `dummy` adds only the special tokens that the
tokenizer adds to a text. It also adds an end-of-text token to an answer without one. A row is one question and one
answer.

`path#N` repeats the whole file and draws the rest without replacement, by `data_seed`.
"""

from typing import TYPE_CHECKING, Any

from curator.data.rows import Content
from curator.data.tokens import IGNORED, Encoded, special_tokens
from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import Encoding, Form, Labelled
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, evaluation, recipe_of, rounding_notes, template_notes
from curator.export.yaml import to_yaml

if TYPE_CHECKING:
    from curator.export.format import Plan, PlannedTask

CONFIG, PLUGIN = "sft.yaml", "no_remote_code.py"
_PLUGIN = '''\
"""Keep ms-swift from running Python code of the model's repository.

ms-swift loads models with `trust_remote_code=True`, and has no setting for it. ms-swift imports this file, which
`external_plugins` in sft.yaml names, before it loads the model. Remove that line if you trust the model's authors.
"""

import importlib
import pkgutil

from transformers import dynamic_module_utils
from transformers.models import auto

resolve = dynamic_module_utils.resolve_trust_remote_code


def refuse(trust_remote_code, *arguments, **named):
    """Decide as transformers decides with `trust_remote_code=False`."""
    return resolve(False, *arguments, **named)


modules = [importlib.import_module(f"{auto.__name__}.{module.name}") for module in pkgutil.iter_modules(auto.__path__)]
for module in (dynamic_module_utils, *modules):
    if hasattr(module, "resolve_trust_remote_code"):
        module.resolve_trust_remote_code = refuse
'''
# Several model types of ms-swift have these architectures, and differ in their chat templates. ms-swift stops if the
# name of the model does not decide on one type.
_MODEL_TYPES = {
    "CohereForCausalLM": "c4ai",
    "GlmForCausalLM": "glm_edge",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def _write(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any]:
    start, end = encoded.spans[-2:] if encoded.spans else (len(encoded.text), len(encoded.text))
    return {
        "messages": [
            {"role": "user", "content": encoded.text[:start]},
            {"role": "assistant", "content": encoded.text[start:end]},
        ]
    }


def _read(row: dict[str, Any], encoding: Encoding) -> Labelled:
    prompt, answer = (turn["content"] for turn in row["messages"])
    before, after = special_tokens(encoding.tokenizer)
    if not after and not answer.endswith(encoding.eos):
        after = encoding.ids(encoding.eos)
    prompt_ids, answer_ids = encoding.ids(prompt), encoding.ids(answer)
    ids = [*before, *prompt_ids, *answer_ids, *after]
    labels = [IGNORED] * (len(before) + len(prompt_ids)) + answer_ids + after
    return ids[: encoding.max_length], labels[: encoding.max_length]


ANSWERS = Form("answers", "rendered text: the text before the last answer, and the last answer", _write, _read)


def _samples(task: "PlannedTask") -> bool:
    return True


def _files(plan: "Plan") -> dict[str, str]:
    recipe = recipe_of(plan)
    model_type = None if plan.encoding is None else _MODEL_TYPES.get(plan.encoding.architecture)
    config: dict[str, Any] = {
        "model": recipe.model,
        **({"model_type": model_type} if model_type else {}),
        **({"model_revision": recipe.revision} if recipe.revision else {}),
        "use_hf": True,
        "torch_dtype": recipe.dtype,
        **({"quant_method": "bnb", "quant_bits": int(recipe.quantization[0])} if recipe.quantization != "none" else {}),
        "template": "dummy",
        "tuner_type": "lora",
        "lora_rank": recipe.lora.r,
        "lora_alpha": recipe.whole_alpha,
        "lora_dropout": recipe.lora.dropout,
        "target_modules": recipe.targets or ["all-linear"],
        "dataset": [plan.file(task) + (f"#{task.rows}" if task.native else "") for task in plan.training],
        "data_seed": recipe.data_seed,
        "split_dataset_ratio": 0,
        **({"val_dataset": [plan.file(part) for part in plan.held_out], **evaluation()} if plan.held_out else {}),
        "max_length": recipe.max_length,
        "truncation_strategy": "right",
        "num_train_epochs": recipe.train.epochs,
        "learning_rate": recipe.train.learning_rate,
        "per_device_train_batch_size": recipe.train.batch_size,
        "gradient_accumulation_steps": recipe.train.gradient_accumulation,
        "lr_scheduler_type": recipe.train.schedule,
        "warmup_ratio": recipe.train.warmup,
        "weight_decay": recipe.train.weight_decay,
        # ms-swift's default is 0.95.
        "adam_beta2": 0.999,
        "seed": recipe.train.seed,
        "report_to": recipe.train.report_to,
        "external_plugins": [PLUGIN],
        "output_dir": OUTPUT,
    }
    return {CONFIG: to_yaml(config, f"In this folder: {plan.format.command}"), PLUGIN: _PLUGIN, NAME: readme(plan)}


FORMAT = Format(
    name="swift",
    trainer="ms-swift",
    tested="ms-swift 4.6.0, its own parser and tokens",
    forms=(ANSWERS,),
    data_files={ANSWERS.name: DataFile("jsonl")},
    config_names=(CONFIG, PLUGIN, NAME),
    files=_files,
    command=f"swift sft {CONFIG}",
    samples=_samples,
    notes=lambda plan: [*rounding_notes(plan, "ms-swift"), *template_notes(plan, "ms-swift")],
)
