"""Refuse rows that only the other rows of their task show to be no rows for training.

- A number as `label` is a verdict on the answer, as in data for KTO, or a class. It is a class if few answers occur
  often, each with one number.
- A column `split` tells test rows from training rows if it names both.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from curator.core.errors import DataError
from curator.data.rows import Content, pair
from curator.data.shapes import lowered
from curator.data.split_names import HELD_OUT, TRAIN, split_in

_LABELS = ("label", "kto_tag")
_VERDICTS = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}
_OFTEN = 3
_SPLITS = ("split", "data_split", "dataset_split", "partition")


class Marks:
    """Collect labels and splits of the rows of a task, and tell which rows they exclude.

    Args:
        filtered: Column by which the configuration of the project selects the rows.
        mapped: Whether the configuration names the columns. Labels then count as left out on purpose.
    """

    def __init__(self, *, filtered: str, mapped: bool) -> None:
        self._filtered = filtered
        self._mapped = mapped
        self._labels: dict[int, tuple[str, str, int]] = {}
        """Column, label and hash of the answer by the row's number."""
        self._splits: dict[int, tuple[str, str]] = {}
        """Column and split by the row's number."""
        self._are_classes = False

    def add(self, number: int, raw: Mapping[str, Any], content: Content) -> None:
        """Add a row.

        Args:
            number: Position of the row in the task.
            raw: The row as it stands in the file.
            content: Its content.
        """
        for name, value in raw.items():
            known = lowered(name)
            if known in _SPLITS and isinstance(value, str) and name != self._filtered:
                self._splits.setdefault(number, (name, value.strip()))
            elif known in _LABELS and not self._mapped and not self._are_classes:
                self._add_label(number, name, value, content)

    def problems(self) -> dict[int, DataError]:
        """Return the reason why a row is not for training, by the number of the row."""
        return self._unwanted() | self._held_out()

    def _add_label(self, number: int, name: str, value: Any, content: Content) -> None:
        if value is None or value == "" or value != value or isinstance(value, bool):
            return
        answer = answer_of(content)
        if str(value).strip() not in _VERDICTS:
            self._are_classes = True
        elif answer:
            self._labels[number] = name, str(value).strip(), hash(answer.strip().lower())

    def _unwanted(self) -> dict[int, DataError]:
        verdicts = {_VERDICTS[label] for _, label, _ in self._labels.values()}
        pairs = {(_VERDICTS[label], answer) for _, label, answer in self._labels.values()}
        # Each answer goes with one label, and occurs often.
        answers = len({answer for _, answer in pairs})
        names_classes = len(pairs) == answers and (
            len(verdicts) == answers < len(self._labels) or _OFTEN * answers <= len(self._labels)
        )
        if self._are_classes or names_classes or len(verdicts) < 2:
            return {}
        return {
            number: DataError(
                f"preference data, not an example to learn: {name!r} is {label}, so the answer is not wanted",
                hint="Remove such rows. If the label means something else, leave it out by `columns` in [[data.task]].",
            )
            for number, (name, label, _) in self._labels.items()
            if _VERDICTS[label] < 1
        }

    def _held_out(self) -> dict[int, DataError]:
        kinds = {value: split_in(value)[1] for _, value in self._splits.values()}
        if TRAIN not in kinds.values():
            return {}
        train = Counter(value for _, value in self._splits.values() if kinds[value] == TRAIN).most_common(1)[0][0]
        return {
            number: DataError(
                f"the row belongs to the split {value!r:.60}, by its column {name!r:.60}",
                hint=f'Set column = "{name}" and value = "{train}" in [[data.task]] to read the training split only.',
            )
            for number, (name, value) in self._splits.items()
            if kinds[value] == HELD_OUT
        }


def answer_of(content: Content) -> str:
    """Return the answer of a content: the completion, or the last turn of the assistant. "" for a text."""
    if "messages" in content:
        said = [turn["content"] for turn in content["messages"] if turn["role"] == "assistant"]
        return said[-1] if said else ""
    return "" if "segments" in content or "text" in content else pair(content)[1]
