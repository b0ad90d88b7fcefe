"""Metrics of models that write a known answer: values, standard errors, and what each metric refuses."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_models import make_chain
from conftest import CHAT_TEMPLATE

import curator
from curator.core.errors import ConfigError, DataError, NumericalError
from curator.core.metric_name import parse_metric
from curator.data.choices import choices_of
from curator.metrics.base import MetricValue, mean_of, proportion, weighted
from curator.metrics.exact_match import normalised
from curator.metrics.measuring import Measurer
from curator.workspace.store.metric_values import StoredMetric

MakeProject = Callable[..., Path]


def _pairs(answers: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": f"{n} {'x' * (n % 5)} =", "completion": answer} for n, answer in enumerate(answers)]


def _measure(folder: Path, metric: str, *targets: str) -> list[StoredMetric]:
    project = curator.Project.open(folder)
    measurer = Measurer(project.workspace, project.corpus(targets or ("target",)), parse_metric(metric))
    measurer.check()
    tuned = project._pipeline.load()
    tuned.reset(0)
    return measurer.measure(tuned)


@pytest.fixture
def chain(make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a project whose model writes ` red two` after each prompt."""

    def make(rows: list[dict[str, Any]], **tables: Any) -> Path:
        model = make_chain(tiny_llama_folder, tmp_path / "chain", ["=", " red", " two"], bos=True)
        tables["data"] = {"validation_files": {"target": "held-out.jsonl"}} | tables.get("data", {})
        folder = make_project(model=model, **tables)
        _write(folder / "held-out.jsonl", rows)
        return folder

    return make


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# -- values -----------------------------------------------------------------------------------------------------------


def test_proportion_of_hits_has_binomial_standard_error() -> None:
    assert proportion([True, True, True, False]) == MetricValue(
        value=0.75, standard_error=pytest.approx((0.75 * 0.25 / 4) ** 0.5), examples=4
    )


@pytest.mark.parametrize("hit", [True, False])
def test_proportion_of_equal_rows_has_no_error_of_zero(hit: bool) -> None:
    found = proportion([hit] * 36)
    assert found.value == float(hit)
    # Of 38 rows, 1 differs.
    assert found.standard_error == pytest.approx((1 / 38 * 37 / 38 / 38) ** 0.5)


def test_mean_of_values_has_standard_error_of_their_spread() -> None:
    found = mean_of([1.0, 2.0, 3.0])
    assert (found.value, found.examples) == (2.0, 3)
    assert found.standard_error == pytest.approx((1 / 3) ** 0.5)
    assert mean_of([1.5]).standard_error is None


def test_weighted_values_of_two_targets_add_their_variances() -> None:
    first, second = proportion([True, False]), proportion([True, True, True, False])
    found = weighted([(0.25, first), (0.75, second)])
    assert found.value == pytest.approx(0.25 * 0.5 + 0.75 * 0.75)
    assert found.standard_error == pytest.approx(
        ((0.25 * (0.25 / 2) ** 0.5) ** 2 + (0.75 * (0.75 * 0.25 / 4) ** 0.5) ** 2) ** 0.5
    )
    assert found.examples == 6
    assert weighted([(1.0, mean_of([1.0]))]).standard_error is None


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("loss", "loss", ""),
        ("lm-eval:arc_easy", "lm-eval", "arc_easy"),
        ("command: sh 'a b'.sh", "command", "sh 'a b'.sh"),
    ],
)
def test_parse_metric_known_name_gives_kind_and_argument(text: str, kind: str, argument: str) -> None:
    found = parse_metric(text)
    assert (found.kind, found.argument) == (kind, argument)
    assert str(found) == text.replace(": ", ":")


@pytest.mark.parametrize(
    "text", ["", "accuracy", "loss:", "command:", "lm-eval:  ", "command:'", "command:''", "exact_match:x"]
)
def test_parse_metric_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be one of|needs|split"):
        parse_metric(text)


@pytest.mark.parametrize(
    ("row", "choices"),
    [
        ({"choices": ["a", "b"]}, ("a", "b")),
        ({"options": ["a", 2]}, ("a", "2")),
        ({"choices": {"text": ["a", "b"], "label": ["A", "B"]}}, ("a", "b")),
        ({"choices": {"A": "x", "B": "y"}}, ("x", "y")),
        ({"choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}, ("a", "b")),
        ({"target_scores": {"yes": 1, "no": 0}}, ("yes", "no")),
        ({"choices": ["a", "a"]}, ()),
        ({"choices": ["a", None]}, ()),
        ({"choices": "ab"}, ()),
        ({"choices": [["a"], ["b"]]}, ()),
        ({}, ()),
    ],
)
def test_choices_of_row_reads_every_known_form(row: dict[str, Any], choices: tuple[str, ...]) -> None:
    assert choices_of(row) == choices


# -- exact_match ------------------------------------------------------------------------------------------------------


def test_normalised_text_has_single_spaces_and_composed_letters() -> None:
    assert normalised("  a\n\tb  ") == "a b"
    assert normalised("e\u0301") == "\u00e9"
    assert normalised("A.") == "A."


def test_exact_match_decoder_counts_rows_with_the_written_answer(chain: Callable[..., Path]) -> None:
    # Neither a shorter nor a longer answer matches. White space does not count.
    answers = [" red two", " red", " red two two", "  red  two ", " two red", " red two", " carry", " the"]
    (found,) = _measure(chain(_pairs(answers)), "exact_match")
    assert (found.metric, found.part, found.higher_is_better, found.examples) == ("exact_match", "validation", True, 8)
    assert found.value == pytest.approx(3 / 8)
    assert found.standard_error == pytest.approx((3 / 8 * 5 / 8 / 8) ** 0.5)


def test_exact_match_small_batches_give_the_same_value(chain: Callable[..., Path]) -> None:
    answers = [" red two", " red", " red two", " carry"]
    (found,) = _measure(chain(_pairs(answers), gradients={"batch_tokens": 16}), "exact_match")
    assert found.value == 0.5


def test_exact_match_sampling_model_is_still_measured_greedily(chain: Callable[..., Path]) -> None:
    folder = chain(_pairs([" red two", " red"]))
    settings = {
        "do_sample": True,
        "temperature": 1e9,
        "repetition_penalty": 9.0,
        "min_new_tokens": 9,
        "eos_token_id": 2,
    }
    (folder / "model" / "generation_config.json").write_text(json.dumps(settings))
    (found,) = _measure(folder, "exact_match")
    assert found.value == 0.5


@pytest.mark.parametrize("end", ["x", [[1], "y", 2.5, -1, 10**30, True], {"a": 1}], ids=["text", "list", "object"])
def test_exact_match_model_with_impossible_tokens_is_measured(chain: Callable[..., Path], end: Any) -> None:
    folder = chain(_pairs([" red two", " red"]))
    settings = {"eos_token_id": end, "bos_token_id": end, "decoder_start_token_id": end}
    (folder / "model" / "generation_config.json").write_text(json.dumps(settings))
    (found,) = _measure(folder, "exact_match")
    assert found.value == 0.5


def test_exact_match_encoder_decoder_counts_rows_with_the_written_answer(
    make_project: MakeProject, tiny_t5_folder: Path, tmp_path: Path
) -> None:
    model = make_chain(tiny_t5_folder, tmp_path / "chain", ["", " red", " two"], eos=True)
    folder = make_project(model=model, data={"validation_files": {"target": "held-out.jsonl"}})
    _write(folder / "held-out.jsonl", _pairs([" red two", " red", "red two", " two"]))
    (found,) = _measure(folder, "exact_match")
    # The completion is a text of its own, so its leading space does not matter.
    assert found.value == 0.5


def test_exact_match_model_that_cannot_write_raises_data_error(make_project: MakeProject, tiny_t5_folder: Path) -> None:
    folder = make_project(model=tiny_t5_folder, data={"validation_files": {"target": "held-out.jsonl"}})
    _write(folder / "held-out.jsonl", _pairs([" red two"]))
    (folder / "model" / "generation_config.json").write_text('{"decoder_start_token_id": 1000000}')
    with pytest.raises(DataError, match="the model cannot write an answer"):
        _measure(folder, "exact_match")


def test_exact_match_chat_template_is_part_of_the_prompt(
    make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    template = {"bos": True, "chat_template": CHAT_TEMPLATE}
    # The template ends the prompt with `>`.
    model = make_chain(tiny_llama_folder, tmp_path / "chain", ["<|assistant|>", "red"], **template)
    folder = make_project(model=model, data={"validation_files": {"target": "held-out.jsonl"}})

    def chat(*turns: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]}

    # Only the last answer counts.
    _write(folder / "held-out.jsonl", [chat("q", "red"), chat("r", "two"), chat("s", "two", "t", "red")])
    (found,) = _measure(folder, "exact_match")
    assert found.value == pytest.approx(2 / 3)


def test_exact_match_rows_without_prompt_are_refused(chain: Callable[..., Path]) -> None:
    folder = chain([{"text": "a text"}, {"text": "another text"}])
    with pytest.raises(ConfigError, match="needs rows with a prompt and a whole answer"):
        _measure(folder, "exact_match")


# -- choice -----------------------------------------------------------------------------------------------------------


def _with_choices(answers: list[str], choices: list[str]) -> list[dict[str, Any]]:
    return [row | {"choices": choices} for row in _pairs(answers)]


def test_choice_decoder_counts_rows_with_the_most_probable_answer(chain: Callable[..., Path]) -> None:
    # The model writes ` red two`. The summed probability decides, not the mean of the tokens.
    rows = _with_choices([" red two", " carry", " red two"], ["carry", "red two", "the"])
    (found,) = _measure(chain(rows), "choice")
    assert (found.metric, found.examples) == ("choice", 3)
    assert found.value == pytest.approx(2 / 3)
    assert found.standard_error == pytest.approx((2 / 9 / 3) ** 0.5)


def test_choice_score_is_the_sum_of_the_log_probabilities(chain: Callable[..., Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = chain(_with_choices([" sum", " the a one"], ["sum", "the a one", "word number"]))
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    hits = []
    for row in _with_choices([" sum", " the a one"], ["sum", "the a one", "word number"]):
        scores = []
        for choice in row["choices"]:
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = torch.tensor([tokenizer(f"{row['prompt']} {choice}")["input_ids"] + [2]])
            logits = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
            scores.append(sum(logits[p, ids[0, p + 1]].item() for p in range(len(prompt) - 1, ids.shape[1] - 1)))
        hits.append(row["choices"][scores.index(max(scores))] == row["completion"].strip())
    (found,) = _measure(folder, "choice")
    assert found.value == sum(hits) / 2


def test_choice_encoder_decoder_reads_choices_of_a_chat(
    make_project: MakeProject, tiny_t5_folder: Path, tmp_path: Path
) -> None:
    template = {"eos": True, "chat_template": CHAT_TEMPLATE}
    model = make_chain(tiny_t5_folder, tmp_path / "chain", ["", " red"], **template)
    folder = make_project(model=model, data={"validation_files": {"target": "held-out.jsonl"}})
    turns = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]}
        for answer in (" red", " two", " red", " the")
    ]
    _write(folder / "held-out.jsonl", [row | {"options": [" red", " two", " the"]} for row in turns])
    (found,) = _measure(folder, "choice")
    assert found.value == 0.5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a =", "completion": " red"}, "the row has no choices"),
        ({"prompt": "a =", "completion": " red", "choices": ["two", "one"]}, "answer is not among the choices: ' red'"),
        ({"text": "a", "choices": ["two", "one"]}, "no single answer"),
    ],
)
def test_choice_unsuitable_row_is_refused_with_its_place(
    chain: Callable[..., Path], row: dict[str, Any], words: str
) -> None:
    folder = chain([*_with_choices([" red"], ["red", "two"]), row])
    with pytest.raises(ConfigError, match=words) as caught:
        _measure(folder, "choice")
    assert "held-out.jsonl:2" in caught.value.message
    assert "choices" in caught.value.hint


def test_choice_changed_file_is_refused(chain: Callable[..., Path]) -> None:
    folder = chain(_with_choices([" red", " two"], ["red", "two"]))
    project = curator.Project.open(folder)
    measurer = Measurer(project.workspace, project.corpus(("target",)), parse_metric("choice"))
    _write(folder / "held-out.jsonl", _with_choices([" red", " red"], ["red", "two"]))
    with pytest.raises(DataError, match="have changed during the command"):
        measurer.check()


# -- command ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
rows = [json.loads(line) for line in open(os.environ["CURATOR_ROWS"], encoding="utf-8")]
config = json.load(open("adapter_config.json"))
assert os.path.samefile(os.environ["CURATOR_ADAPTER"], "."), os.environ["CURATOR_ADAPTER"]
assert os.path.exists(os.path.join(os.environ["CURATOR_BASE_MODEL"], "config.json"))
assert os.environ["CURATOR_TARGET"] == "target" and os.environ["CURATOR_PART"] == "validation"
assert os.path.exists(os.path.join(os.environ["CURATOR_PROJECT"], "curator.toml"))
print("noise 17")
print(len(rows) + len(rows[0]["answer"]) / 100 + config["r"] / 1000, *sys.argv[1:])
"""


@pytest.fixture
def scripted(chain: Callable[..., Path]) -> Callable[[str], tuple[Path, str]]:
    """Return a function that makes a project with a script, and the metric that runs the script."""

    def make(script: str, **verify: Any) -> tuple[Path, str]:
        folder = chain(_pairs([" red", " two"]), verify=verify)
        (folder / "my script.py").write_text(script)
        return folder, f"command:{sys.executable} '{folder / 'my script.py'}'"

    return make


def test_command_last_line_is_the_value(scripted: Callable[..., tuple[Path, str]]) -> None:
    folder, metric = scripted(SCRIPT, higher_is_better=False)
    (found,) = _measure(folder, metric)
    assert found.value == pytest.approx(2 + 0.04 + 0.002)
    assert (found.standard_error, found.examples, found.higher_is_better) == (None, 0, False)
    assert list((folder / ".curator" / "adapters" / "metric").iterdir()) == [], "nothing is left over"


def test_command_words_reach_no_shell(scripted: Callable[..., tuple[Path, str]], tmp_path: Path) -> None:
    folder, metric = scripted("import sys; print(sys.argv[1:]); print(len(sys.argv))")
    (found,) = _measure(folder, f"{metric} 'a b' ; touch {tmp_path / 'made'} $HOME")
    assert found.value == 1 + 5
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("print('great')", DataError, "no number on its last line: 'great'"),
        ("pass", DataError, "no number on its last line: ''"),
        ("print(1, 2)", DataError, "no number on its last line: '1 2'"),
        ("print('nan')", NumericalError, "printed nan"),
        ("import sys; print(1); sys.exit('\\x1b[31mbroken')", DataError, "exit code 1: .*broken"),
    ],
)
def test_command_without_a_number_names_the_reason(
    scripted: Callable[..., tuple[Path, str]], script: str, error: type[Exception], words: str
) -> None:
    folder, metric = scripted(script)
    with pytest.raises(error, match=words) as caught:
        _measure(folder, metric)
    assert "\x1b" not in str(caught.value)


def test_command_over_its_time_is_killed_with_its_children(
    scripted: Callable[..., tuple[Path, str]], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    child = f"import time, pathlib; time.sleep(6); pathlib.Path({str(late)!r}).touch()"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\nprint(1)"
    folder, metric = scripted(script, command_seconds=3.0)
    with pytest.raises(DataError, match="ran longer than 3 seconds"):
        _measure(folder, metric)
    time.sleep(5)
    assert not late.exists()


def test_command_unknown_program_is_refused_before_training(chain: Callable[..., Path]) -> None:
    folder = chain(_pairs([" red", " two"]), verify={"metric": "command:no-such-program-here 1"})
    with pytest.raises(ConfigError, match="no such program for metric 'command': 'no-such-program-here'"):
        curator.Project.open(folder).verify(runs=1)
    assert not (folder / ".curator" / "adapters").exists()


def test_command_program_of_the_project_is_found(chain: Callable[..., Path]) -> None:
    folder = chain(_pairs([" red", " two"]))
    (folder / "score.sh").write_text("#!/bin/sh\necho 0.25\n")
    (folder / "score.sh").chmod(0o755)
    (found,) = _measure(folder, "command:./score.sh")
    assert found.value == 0.25


def test_config_unknown_metric_names_what_is_allowed(chain: Callable[..., Path]) -> None:
    folder = chain(_pairs([" red", " two"]), verify={"metric": "accuracy"})
    with pytest.raises(ConfigError, match="exact_match, choice, lm-eval:TASK and command:WORDS"):
        curator.Project.open(folder)
    shutil.rmtree(folder)
