"""Check that a model folder holds a complete language model that fits the data, before anything trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError
from curator.core.text import clean
from curator.data.chat_process import ChatRenderer
from curator.data.corpus import Corpus
from curator.data.loading_check import check_loading
from curator.data.model_files import load_architecture, load_tokenizer, weight_files
from curator.data.target_modules import check_target_modules
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_model(workspace: Workspace, corpus: Corpus) -> None:
    """Check that a model has all its weights and can read all examples of the project.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The folder holds another kind of model, weights or files of weights are missing, the tokenizer has
            more tokens than the model, or an example is longer than the model's positions.
        ConfigError: LoRA cannot be put on `lora.target_modules` of this model.
    """
    folder, section = corpus.model.folder, workspace.config.model
    weight_files(folder)
    architecture = load_architecture(folder, section)
    if not section.trust_remote_code:
        _check_kind(folder, architecture)
    tokenizer = load_tokenizer(folder, section)
    _check_tokens(folder, architecture, max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0)))
    _check_positions(folder, architecture, corpus)
    check_loading(workspace, corpus.model)
    check_target_modules(workspace, corpus.model)


def model_notes(workspace: Workspace, corpus: Corpus) -> list[str]:
    """Report what is unusual about a model: few positions, text that its tokenizer loses, a template with a date.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The configuration of the model cannot be read.
    """
    folder, section = corpus.model.folder, workspace.config.model
    positions = _positions(load_architecture(folder, section))
    length = workspace.config.data.max_length
    notes = []
    index = "model.safetensors.index.json"
    if (folder / index).is_file() and (folder / "model.safetensors").is_file():
        notes.append(f"The model is read from model.safetensors. The files that {index} names are not read.")
    if positions is not None and length > positions:
        notes.append(
            f"max_length is {length:,}, but the model has {positions:,} positions. Longer examples are refused."
        )
    tokenizer = load_tokenizer(folder, section, corpus.model.chat_template)
    if tokenizer.eos_token_id is None:
        notes.append("The tokenizer has no token for the end of a text. The model does not learn where an answer ends.")
    notes += _lost_text(workspace, corpus, tokenizer)
    notes += _end_of_answer(tokenizer)
    if "strftime_now" in str(tokenizer.chat_template or ""):
        notes.append("The chat template writes the current date. Chats that are read on another day differ.")
    return notes


# Texts that a tokenizer must tell apart, and what is lost if it does not.
_PAIRS = {
    ("A b", "a b"): "The tokenizer reads capital letters as small letters.",
    ("a\nb", "a b"): "The tokenizer reads line breaks as spaces.",
}


def _lost_text(workspace: Workspace, corpus: Corpus, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Report text that a tokenizer does not keep: unknown words, capital letters and line breaks."""
    unknown = tokenizer.unk_token_id
    notes = []
    for (one, other), words in _PAIRS.items():
        ids, same = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (one, other))
        if ids == same and unknown not in ids:
            notes.append(words)
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if not isinstance(unknown, int) or unknown in others:
        # Such a tokenizer knows every text.
        return notes
    names = {task.version.key: task.name for task in corpus.tasks}
    counts = workspace.store.counts_of_token(list(names), unknown)
    if counts:
        first = min(names[key] for key in counts)
        others_too = f" and {len(counts) - 1:,} more tasks" if len(counts) > 1 else ""
        notes.append(
            f"{first}{others_too}: {sum(counts.values()):,} examples hold text that the tokenizer does not know."
            f" The model reads {clean(str(tokenizer.unk_token), limit=40)!r} there."
        )
    return notes


_ANSWER = "b"


def _end_of_answer(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Report a chat template that writes no mark after an answer, or a mark that is not one token."""
    if not isinstance(tokenizer.chat_template, str):
        return []
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
    (found,) = ChatRenderer(tokenizer).render([(turns, None)])
    if isinstance(found, DataError) or not found[1]:
        # Not every template accepts this chat.
        return []
    text, spans = found
    mark = text[spans[-2] : spans[-1]].rpartition(_ANSWER)[2].strip()
    if not mark:
        return ["The chat template writes no mark after an answer. The model does not learn where it ends."]
    count = len(tokenizer(mark, add_special_tokens=False)["input_ids"])
    if count > 1:
        return [f"The tokenizer splits {clean(mark, limit=40)!r}, the end of an answer, into {count:,} tokens."]
    return []


def _positions(architecture: Any) -> int | None:
    """Return the number of positions of a model, or None if it has no limit."""
    # GPT-2's `n_positions` has this name, too. T5's does not: its positions are relative and have no limit.
    text = architecture.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    return max(positions, *map(int, _stretched(getattr(text, "rope_parameters", None), positions)), 0)


# Rotary positions that a factor stretches. `max_position_embeddings` of other kinds is the length after stretching.
_STRETCHED = ("linear", "dynamic", "yarn")


def _stretched(parameters: Any, positions: int) -> list[float]:
    """Return the lengths that the rotary positions of each kind of layer are stretched to."""
    if not isinstance(parameters, dict):
        return []
    if "rope_type" not in parameters:
        # Each kind of layer has its own parameters.
        return [length for part in parameters.values() for length in _stretched(part, positions)]
    factor = parameters.get("factor")
    if parameters["rope_type"] not in _STRETCHED or not isinstance(factor, int | float) or not 1 <= factor < 1e6:
        return []
    before = parameters.get("original_max_position_embeddings")
    return [(before if isinstance(before, int) else positions) * factor]


def _check_kind(folder: Path, architecture: Any) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    names = list(getattr(architecture, "architectures", None) or ())
    known: set[str] = set()
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        for value in mapping.values():
            known.update((value,) if isinstance(value, str) else value)
    if names and known.isdisjoint(names):
        raise DataError(
            f"model folder {folder} holds {names[0]}, which is not a causal or sequence-to-sequence language model",
            hint="Choose a model that generates text. transformers would start the missing output layer at random.",
        )
    kind = getattr(architecture, "model_type", "")
    either = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    one_way = any(getattr(architecture, key, False) for key in ("is_decoder", "is_encoder_decoder", "causal"))
    if either and not one_way:
        # Such a model would see the tokens that it must predict.
        raise DataError(
            f"model folder {folder} holds a model that reads in both directions ({kind} without `is_decoder`)",
            hint="Choose a model that generates text, or set is_decoder in config.json if it was trained as one.",
        )


def _check_tokens(folder: Path, architecture: Any, tokens: int) -> None:
    rows = getattr(architecture.get_text_config(), "vocab_size", None)
    if rows is not None and tokens > rows:
        raise DataError(
            f"model folder {folder}: the tokenizer has {tokens:,} tokens, but the model embeds {rows:,}",
            hint="Resize the model's embedding (resize_token_embeddings), or use the tokenizer of this model.",
        )


def _check_positions(folder: Path, architecture: Any, corpus: Corpus) -> None:
    positions = _positions(architecture)
    if positions is None:
        return
    for task in corpus.tasks:
        for version, numbers in (
            (task.version, task.split.train),
            (task.held_out_from, task.split.validation),
        ):
            longest = max((version.index.lengths[n] for n in numbers), default=0)
            if longest > positions:
                raise DataError(
                    f"task {task.name!r}: an example has {longest:,} tokens, but model {folder} has {positions:,}"
                    " positions",
                    hint=f"Set max_length = {positions} under [data].",
                )
