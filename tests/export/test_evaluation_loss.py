"""Test that TRL reports curator's loss of the held-out rows: same file, tokens, template, truncation and mean."""

import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows

from curator.project.project import Project

# CHAT_TEMPLATE with marks around the text that carries loss.
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _chats(count: int) -> list[dict[str, Any]]:
    turns = [("user", "one {}"), ("assistant", "a {}"), ("user", "plus"), ("assistant", "three " * 3 + "{}")]
    return [{"messages": [{"role": r, "content": c.format("is " * n)} for r, c in turns]} for n in range(count)]


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, int]] = {
    # Rows of different length: a mean over tokens would differ from the mean over examples.
    "pairs": (
        [{"prompt": f"one {n}", "completion": " two" * (n + 1)} for n in range(14)],
        {"bos": True},
        "prompt-completion",
        64,
    ),
    "text": ([{"text": "the sum " * (n + 1)} for n in range(14)], {"bos": True}, "text", 64),
    "truncated": (
        [{"prompt": f"one {n}", "completion": " two" * (4 * n + 1)} for n in range(14)],
        {"bos": True},
        "prompt-completion",
        24,
    ),
    "chats": (_chats(14), {"chat_template": CHAT_TEMPLATE}, "tokens", 128),
    "marked": (_chats(14), {"chat_template": MARKED}, "messages", 128),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_trl_evaluation_loss_equals_the_loss_that_curator_measures(
    make_project: MakeProject, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use TRL's parser and trainer on the export, with the adapter that `apply` trained and measured."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from trl import SFTTrainer
    from trl.scripts.sft import make_parser

    rows, tokenizer, form, length = CASES[case]
    folder = make_project(
        tasks={"target": rows, "alpha": _others(rows)},
        data={"max_length": length},
        # Trained for long, so that the loss differs from the base model's.
        train={"epochs": 8, "learning_rate": 0.02},
    )
    make_tokenizer(**tokenizer).save_pretrained(folder / "model")
    project = Project.open(folder)
    project.select(include=["alpha"], output=folder / "m.json")
    applied = project.apply(str(folder / "m.json"), output=tmp_path / "adapter")
    report = project.export(folder / "m.json", format="trl", output=tmp_path / "out")
    assert (report.form, report.rows_differing) == (form, 0)
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["sft", "--config", "sft.yaml"])
    script, training, model, _ = make_parser().parse_args_and_config(fail_with_unknown_args=True)
    loaded = datasets.load_dataset(script.dataset_name)
    base = AutoModelForCausalLM.from_pretrained(model.model_name_or_path, dtype=model.dtype)
    trainer = SFTTrainer(
        model=PeftModel.from_pretrained(base, tmp_path / "adapter"),
        args=training,
        train_dataset=loaded[script.dataset_train_split],
        eval_dataset=loaded[script.dataset_test_split],
    )
    found = trainer.evaluate()["eval_loss"]
    assert found == pytest.approx(applied.measured_loss, abs=1e-3)
    before = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model.model_name_or_path, dtype=model.dtype),
        args=training,
        train_dataset=loaded[script.dataset_train_split],
        eval_dataset=loaded[script.dataset_test_split],
    )
    assert abs(before.evaluate()["eval_loss"] - found) > 0.05, "the adapter changes the loss"
    assert len(trainer.eval_dataset) == report.tasks[0].validation_rows


def _others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the same form that are not rows of the target."""
    if "text" in rows[0]:
        return [{"text": f"red {n} carry"} for n in range(6)]
    return _chats(20)[14:] if "messages" in rows[0] else [dict(row) for row in pair_rows("alpha", 6)]
