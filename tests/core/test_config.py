"""`load_config`: one line for each mistake, with the key and the fix."""

import re
from pathlib import Path

import pytest

from curator.core.config import Config
from curator.core.errors import ConfigError, ExitCode
from curator.core.load_config import load_config

MODEL = '[model]\nname_or_path = "m"\n'
GOOD = MODEL + '[data]\ntasks = "tasks/*.jsonl"\n'


def load(folder: Path, text: str, encoding: str = "utf-8") -> Config:
    path = folder / "curator.toml"
    path.write_text(text, encoding=encoding)
    return load_config(path)


def mistakes(folder: Path, text: str) -> list[str]:
    """Return the lines of the error, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint
    path = folder / "curator.toml"
    assert caught.value.message.startswith(f"{path}: ")
    return [line.strip() for line in caught.value.message.removeprefix(f"{path}: ").splitlines()]


def test_load_config_minimal_file_has_contract_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (8, 16, 0.0)
    assert config.lora.target_modules == "all-linear"
    assert (config.data.validation, config.data.max_length, config.data.max_examples_per_task) == (0.2, 256, 0)
    assert (config.train.epochs, config.train.learning_rate, config.train.batch_size) == (3, 2e-4, 32)
    assert (config.gradients.projection_dim, config.gradients.points) == (256, "auto")
    assert (config.estimate.method, config.estimate.ridge) == ("trajectory", "auto")
    assert (config.select.method, config.select.subsets, config.select.subset_size) == ("forward", 1000, 0.5)
    assert config.model.trust_remote_code is False
    assert config.data.targets == ()


@pytest.mark.parametrize(
    ("lines", "entries"),
    [
        ("", 2048),
        ("projection_dim = 16", 128),
        ("projection_dim = 4096", 4096),
        ("sketch_dim = 8192", 8192),
        ("projection_dim = 512\nsketch_dim = 100", 512),
    ],
)
def test_load_config_entries_of_captured_gradients_follow_rule_or_setting(
    tmp_path: Path, lines: str, entries: int
) -> None:
    assert load(tmp_path, f"{GOOD}\n[gradients]\n{lines}\n").gradients.captured_dim == entries


def test_load_config_contract_example_is_valid(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [project]
        name = "arithmetic"
        [model]
        name_or_path = "model"
        revision = ""
        dtype = "auto"
        quantization = "4bit"
        attention = "auto"
        trust_remote_code = false
        [lora]
        target_modules = ["q_proj", "v_proj"]
        [data]
        target = ["addition", "carry"]
        validation_files = { addition = "validation/addition.jsonl" }
        [[data.task]]
        name = "a"
        path = "x.jsonl"
        column = "task"
        value = 0
        tags = ["t"]
        [[data.task]]
        name = "b"
        hub = "owner/name"
        config = "c"
        split = "s"
        revision = "r"
        [gradients]
        points = [1.0, 0.4, 0.4]
        [estimate]
        ridge = 1
        """,
    )
    assert config.data.targets == ("addition", "carry")
    assert config.data.task[0].value == 0
    assert config.gradients.shares == (0.4, 1.0)
    assert config.lora.target_modules == ("q_proj", "v_proj")


def test_load_config_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, encoding="utf-8-sig").model.name_or_path == "m"


def test_load_config_empty_target_means_no_target(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + 'target = ""\n').data.targets == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[lora]\nr = 0", "lora.r: must be greater than or equal to 1, not 0"),
        ("[lora]\nr = 2147483647", "lora.r: must be less than or equal to 8192, not 2147483647"),
        ("[train]\nepochs = 1e308", "train.epochs: must be less than or equal to 1000000, not 1e+308"),
        (
            "[gradients]\nprojection_dim = 65536",
            "gradients.projection_dim: must be less than or equal to 8192, not 65536",
        ),
        (
            "[data.target_weights]\na = 1e308",
            "data.target_weights.a: must be less than or equal to 1000000000, not 1e+308",
        ),
        ("[lora]\nr = 8.0", "lora.r: must be an integer, not 8.0"),
        ("[lora]\nr = true", "lora.r: must be an integer, not true"),
        ("[lora]\ndropout = 1", "lora.dropout: must be less than 1, not 1"),
        ("[lora]\ntarget_modules = 5", "lora.target_modules: must be 'all-linear' or a list, not 5"),
        ('[lora]\ntarget_modules = "q"', "lora.target_modules: must be 'all-linear' or a list, not \"q\""),
        ('[lora]\ntarget_modules = ["q", 5]', "lora.target_modules[2]: must be a string, not 5"),
        ("[lora]\ntarget_modules = []", "lora.target_modules: must not be empty"),
        ("[gradients]\npoints = [0.5, 2]", "gradients.points[2]: must be less than or equal to 1, not 2"),
        ("[gradients]\npoints = 1.0", "gradients.points: must be 'auto' or a list, not 1.0"),
        ("[gradients]\npoints = []", "gradients.points: must not be empty"),
        ("[estimate]\nridge = -1", "estimate.ridge: must be greater than 0, not -1"),
        ("[estimate]\nridge = true", "estimate.ridge: must be 'auto' or a number, not true"),
        ('[estimate]\nmethod = "x"', "estimate.method: must be 'trajectory', 'quadratic' or 'logistic', not \"x\""),
        ("[train]\nlearning_rate = nan", "train.learning_rate: must be a finite number, not NaN"),
        ("[train]\nlearnin_rate = 1", "train.learnin_rate: unknown key (use `learning_rate`)"),
        ("[trian]\nx = 1", "trian: unknown key (use `train`)"),
        ("[project]\nname = 2024-01-01", "project.name: must be a string, not 2024-01-01"),
        ("[data.validation_files]\na = 1", "data.validation_files.a: must be a string, not 1"),
        ("[data.validation_files]\na = 2024-01-01", "data.validation_files.a: must be a string, not 2024-01-01"),
    ],
)
def test_load_config_one_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, GOOD + text) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('pth = "b"', "data.task[1].pth: unknown key (use `path`)"),
        ('path = "b"\ntags = "x"', 'data.task[1].tags: must be a list, not "x"'),
        ('path = "b"\ncolumn = "c"\nvalue = 1.5', "data.task[1].value: must be a string or an integer or a boolean"),
        ('path = "b"\ncolumn = "c"', "data.task[1]: task 'a': `column` and `value` require each other"),
        ('path = "b"\nhub = "o/n"', "data.task[1]: task 'a': exactly one of `path` and `hub` is required"),
        ('path = "b"\nrevision = "r"', "data.task[1]: task 'a': `config` and `revision` require `hub`"),
        ('path = "b"\n[[data.task]]\nname = "a"\npath = "c"', "data: duplicate task names: a"),
    ],
)
def test_load_config_mistake_in_task_table_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    found = mistakes(tmp_path, MODEL + '[[data.task]]\nname = "a"\n' + text)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_load_config_several_mistakes_lists_all(tmp_path: Path) -> None:
    found = mistakes(tmp_path, GOOD + 'target = ["a", 5]\n[select]\nsubsets = 1\nfoo = 1\n[train]\nseed = -1')
    assert [line.split(":")[0] for line in found] == ["data.target[2]", "train.seed", "select.subsets", "select.foo"]


def test_load_config_missing_key_is_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "") == ["model: required key is missing", "data: required key is missing"]
    assert mistakes(tmp_path, MODEL + "[data]") == [
        'data: no task is set (add tasks = "tasks/*.jsonl", or [[data.task]] tables)'
    ]
    both = mistakes(tmp_path, GOOD + '[[data.task]]\nname = "a"\npath = "b"')
    assert len(both) == 1
    assert both[0].startswith("data: `tasks` and [[data.task]] are both set")


def test_load_config_section_without_table_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, 'model = "x"\n[data]\ntasks = "x"') == ['model: must be a table, not "x"']


def test_load_config_invalid_toml_names_line(tmp_path: Path) -> None:
    assert re.match(r"not valid TOML: .*line 2", mistakes(tmp_path, "\na = = b")[0])
    assert "not valid TOML" in mistakes(tmp_path, "a = " + "[" * 100_000)[0]


def test_load_config_unreadable_file_raises_config_error(tmp_path: Path) -> None:
    (tmp_path / "curator.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match=r"cannot read .*curator\.toml"):
        load_config(tmp_path / "curator.toml")
    with pytest.raises(ConfigError, match=r"file does not exist: .*other\.toml"):
        load_config(tmp_path / "other.toml")
