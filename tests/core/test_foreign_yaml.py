"""YAML of others gives plain values or one kind of error."""

import time
from pathlib import Path

import pytest

from curator.core.errors import DataError
from curator.core.foreign_yaml import read_yaml
from curator.data.importers.importer import read_trainer_config
from curator.data.layouts import tasks_of_folder

# Each text made PyYAML raise an error of another kind.
UNFIT = {
    "a: !!timestamp x": "does not fit its tag",
    "a: !!int ''": "does not fit its tag",
    "a: !!float ''": "does not fit its tag",
    "a: !!bool x": "does not fit its tag",
    'a: "\\UFFFFFFFF"': "does not fit its tag",
    "a: 2001-99-99": "month must be in 1..12",
    "a: [": "expected the node content",
    "\0a: b": "special characters are not allowed",
    "[" * 5000: "nested too deeply",
    "a: &a [*a]": "contains the alias",
    "a: [x]\nb: 1\na: [y]": "the key 'a' occurs twice, in line 3",
}
# Thirty levels that each name the level before twice: a billion values in a kilobyte.
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(("text", "words"), UNFIT.items())
def test_read_yaml_text_that_does_not_fit_raises_value_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_yaml(text)


@pytest.mark.parametrize("text", [LAUGHS, MERGES])
def test_read_yaml_billions_of_aliased_values_are_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        read_yaml(text)
    assert time.process_time() - began < 1


def test_read_yaml_few_aliases_give_their_values() -> None:
    assert read_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  y: [2, *a]\n") == {"a": {"x": 1}, "b": {"x": 1, "y": [2, {"x": 1}]}}
    assert read_yaml("") is None


@pytest.mark.parametrize("text", [*UNFIT, MERGES])
def test_read_trainer_config_unfit_yaml_raises_data_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(DataError, match="not valid YAML"):
        read_trainer_config(tmp_path / "run.yaml")


@pytest.mark.parametrize("text", [*UNFIT, MERGES])
def test_tasks_of_folder_readme_with_unfit_yaml_is_no_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n# Data\n")
    assert [task.name for task in tasks_of_folder(tmp_path).tasks] == ["a"]
