"""Tiny models whose next token depends on the last token alone, so that tests know what they write."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import make_tokenizer


def make_chain(source: Path, folder: Path, chain: Sequence[str], **tokenizer: Any) -> Path:
    """Copy a tiny model, and make it write the texts of a chain, one after the other, then the end of the text.

    Args:
        source: Folder of a tiny Llama or T5.
        folder: New folder.
        chain: The last characters of a prompt, then the answer. T5 starts every answer, so its first text is unused.
        tokenizer: Arguments of `make_tokenizer`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    shutil.copytree(source, folder)
    made = make_tokenizer(**tokenizer)
    made.save_pretrained(folder)
    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    model: Any = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder)
    prompt, *answers = (made(text, add_special_tokens=False)["input_ids"] for text in chain)
    ids = [model.config.decoder_start_token_id if seq2seq else prompt[-1], *(i for a in answers for i in a), 2]
    assert len(set(ids)) == len(ids), "a token would have two successors"
    width = model.config.hidden_size
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Without these outputs, each layer adds nothing to the embedding of the token.
            if name.endswith(("o_proj.weight", "down_proj.weight", ".o.weight", ".wo.weight")):
                parameter.zero_()
        embedding = model.get_input_embeddings().weight
        embedding.mul_(1e-3)
        for place, token in enumerate(ids):
            embedding[token] = 0
            embedding[token, place] = 1.0
        if model.config.tie_word_embeddings:
            for place, token in enumerate(ids):
                # Each token points to the next one, which is much longer than the token.
                embedding[token] *= 10.0**place
                embedding[token, max(place - 1, 0)] = 10.0 ** max(place, 0)
        else:
            head = model.get_output_embeddings().weight
            head.zero_()
            for place, token in enumerate(ids[1:]):
                head[token, place] = 10.0
        assert width > len(ids)
    model.save_pretrained(folder)
    return folder
