"""Read rows of BIG-bench, Label Studio and Gemini, whose parts lie in several fields, and lists of accepted answers."""

from collections.abc import Sequence
from typing import Any

from curator.core.errors import DataError
from curator.core.figures import first_of

Fields = dict[str, Any]

_PREFIXES = ("task_prefix", "example_input_prefix", "example_output_prefix", "choice_prefix", "append_choices_to_input")
_CHOICE = "\n  choice: "
# Fields of an answer that hold its text, in SQuAD, TriviaQA and others.
_TEXTS = ("text", "value", "answer")


def accepted_answers(value: Any) -> tuple[str | None, list[str]]:
    """Return the first of several accepted answers, and the answers that differ from it.

    Args:
        value: A text, a number, an object that holds the answer, or a list of these.

    Returns:
        The first answer, "" for an empty list, or None if the value holds no answer in words.
    """
    aliases = value.get("aliases") if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = next((value[name] for name in _TEXTS if value.get(name) is not None), None)
    answers = [*(value if isinstance(value, list) else [value]), *(aliases if isinstance(aliases, list) else [])]
    texts = [_answer(item) for item in answers]
    if None in texts:
        return None, []
    found = [text for text in texts if text]
    return (found[0], [text for text in dict.fromkeys(found) if text != found[0]]) if found else ("", [])


def _answer(value: Any) -> str | None:
    if isinstance(value, dict):
        value = next((value[name] for name in _TEXTS if value.get(name) is not None), None)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def from_big_bench(row: Fields) -> Fields:
    """Return an example of BIG-bench as `instruction` and `output`, and any other row unchanged.

    The instruction is the input between the prefixes of the task. The choices follow the input in alphabetical order,
    as in BIG-bench before it shuffles them. The answer is the target, or the first choice with the highest score.

    Args:
        row: The row with the fields of its task.

    Raises:
        DataError: All choices have the same score, and no target is given.
    """
    scores = row.get("target_scores")
    is_scored = isinstance(scores, dict) and bool(scores) and all(map(_is_number, scores.values()))
    is_prefixed = row.get("target") is not None and any(name in row for name in _PREFIXES)
    if not isinstance(row.get("input"), str) or not (is_scored or is_prefixed):
        return row
    choices = sorted(scores) if isinstance(scores, dict) else []
    listed = choices if row.get("append_choices_to_input", True) else []
    made = {name: value for name, value in row.items() if name not in (*_PREFIXES, "input", "target_scores")}
    start, before, after, mark = (row.get(name) for name in _PREFIXES[:4])
    mark = _CHOICE if mark is None else mark
    text = f"{start or ''}{before or ''}{row['input']}{''.join(f'{mark}{choice}' for choice in listed)}{after or ''}"
    if row.get("target") is None and isinstance(scores, dict):
        made["target"] = [choice for choice in choices if scores[choice] == max(scores.values())]
        if len(made["target"]) == len(choices) > 1:
            raise DataError(
                f"all {len(choices)} choices in 'target_scores' have the same score",
                hint="Give the right choice the highest score, or add a `target`.",
            )
    # `target` is a list of accepted answers in some tasks.
    answer, others = accepted_answers(made["target"])
    if answer is None:
        return row
    del made["target"]
    return made | {"instruction": text.strip(), "output": answer} | ({"target[1:]": others} if others else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def from_gemini(row: Fields) -> Fields:
    """Return a row of the form that Gemini is tuned with as `messages`, and any other row unchanged.

    Args:
        row: An object with `contents`, a list of turns with `role` and `parts`, and maybe `systemInstruction`.
    """
    turns = row.get("contents")
    if not isinstance(turns, list) or not turns or not all(map(_has_parts, turns)):
        return row
    made = {name: value for name, value in row.items() if name != "contents"}
    system = []
    for name in ("systemInstruction", "system_instruction"):
        said = made.get(name)
        if _has_parts(said) or (isinstance(said, str) and said):
            system.append({"role": "system", "content": said["parts"] if isinstance(said, dict) else said})
            del made[name]
    return made | {"messages": [*system, *map(_as_turn, turns)]}


def _has_parts(turn: Any) -> bool:
    parts = turn.get("parts") if isinstance(turn, dict) else None
    return isinstance(parts, list) and bool(parts) and all(isinstance(part, dict) for part in parts)


def _as_turn(turn: Fields) -> Fields:
    rest = {name: value for name, value in turn.items() if name not in ("role", "parts")}
    return rest | {"role": turn.get("role") or "user", "content": turn["parts"]}


def from_label_studio(row: Fields) -> Fields:
    """Return a task of a Label Studio export as `instruction` and `output`, and any other row unchanged.

    Args:
        row: An object with `data` and `annotations`.

    Raises:
        DataError: The task has no answer in words, or data with several texts.
    """
    data, annotations = row.get("data"), row.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        return row
    valid = [item for item in annotations if isinstance(item, dict) and not item.get("was_cancelled")]
    answer = _label_studio_answer(valid[0].get("result")) if valid else ""
    texts = [name for name, value in data.items() if isinstance(value, str) and value.strip()]
    if len(texts) != 1:
        found = first_of([repr(text) for text in texts], 5) or "none"
        raise DataError(
            f"a task of Label Studio with {len(texts)} texts in 'data': {found}",
            hint=_label_studio_columns(texts, valid[0].get("result") if valid else None),
        )
    made = {name: value for name, value in row.items() if name not in ("data", "annotations")}
    made |= {f"data.{name}": value for name, value in data.items() if name != texts[0]}
    # Other annotators, and answers that an annotator withdrew.
    others = [item for item in annotations if item is not (valid[0] if valid else None)]
    return made | {"instruction": data[texts[0]], "output": answer} | ({"annotations[1:]": others} if others else {})


def _label_studio_answer(results: Any) -> str:
    """Return the text or the choice of an annotation.

    Raises:
        DataError: The annotation has several parts, or is no text.
    """
    if not isinstance(results, list) or not results:
        return ""
    kinds = [str(result.get("type")) for result in results if isinstance(result, dict)]
    value = results[0].get("value") if len(results) == 1 and isinstance(results[0], dict) else None
    answer = None
    if isinstance(value, dict) and not {"start", "x"} & value.keys():
        name = next((name for name in ("text", "choices") if name in value), "")
        parts = value.get(name)
        parts = parts if isinstance(parts, list) else [parts]
        answer = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else None
    if answer is None:
        raise DataError(
            f"an annotation of Label Studio that is not one text or one choice: {first_of(kinds, 5)}",
            hint="Write the answer as text into `completion`, and the question into `prompt`.",
        )
    return answer


def _label_studio_columns(texts: Sequence[str], results: Any) -> str:
    value = results[0].get("value") if isinstance(results, list) and results and isinstance(results[0], dict) else None
    name = next((name for name in ("text", "choices") if isinstance(value, dict) and name in value), "")
    if not name or not texts or not isinstance(value, dict):
        return "Write the answer as text into `completion`, and the question into `prompt`."
    end = f"{name}.0" if isinstance(value[name], list) else name
    extra = f', input = "data.{texts[1]}"' if len(texts) > 1 else ""
    return (
        f'Set columns = {{ instruction = "data.{texts[0]}"{extra},'
        f' output = "annotations.0.result.0.value.{end}" }} in [[data.task]].'
    )
