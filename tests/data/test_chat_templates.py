"""Test the setting `chat_template`: a file, a name or a text, its identity, its errors, and its use in exports."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer

from curator.core.errors import ConfigError, CuratorError, DataError
from curator.data.corpus import Corpus
from curator.export import FORMATS, export
from curator.project.project import Project
from curator.select.manifest import read_manifest

OTHER = CHAT_TEMPLATE.replace("<|", "[").replace("|>", "]")
THIRD = CHAT_TEMPLATE.replace("<|", "((").replace("|>", "))")
CHATS = [
    {"messages": [{"role": "user", "content": f"one {n}"}, {"role": "assistant", "content": "two"}]} for n in range(8)
]
TASKS = {"target": CHATS, "alpha": [{"instruction": f"three {n}", "output": "plus"} for n in range(4)]}


def texts(project: Project) -> list[str]:
    """Return the rendered rows of the task `alpha`."""
    corpus: Corpus = project.corpus(("target",))
    task = next(task for task in corpus.tasks if task.name == "alpha")
    return [str(row["text"]) for row in project.store.example_texts(task.version.key).select(["text"]).to_pylist()]


def first(template: str, number: int = 0) -> str:
    turns = [("user", f"three {number}"), ("assistant", "plus")]
    marks = {CHAT_TEMPLATE: ("<|", "|>"), OTHER: ("[", "]"), THIRD: ("((", "))")}[template]
    return "".join(f"{marks[0]}{role}{marks[1]}{text}</s>\n" for role, text in turns)


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """Make a project whose tokenizer has a usual template and one named `other`."""
    folder = make_project(tasks=TASKS, train={"epochs": 1})
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "other": OTHER}
    tokenizer.save_pretrained(folder / "model")
    return folder


def set_template(folder: Path, written: str) -> Project:
    lines = [
        line for line in (folder / "curator.toml").read_text().splitlines() if not line.startswith("chat_template")
    ]
    place = lines.index("[data]") + 1
    (folder / "curator.toml").write_text(
        "\n".join([*lines[:place], f"chat_template = {json.dumps(written)}", *lines[place:]])
    )
    return Project.open(folder)


def test_chat_template_of_any_kind_renders_the_rows(folder: Path) -> None:
    (folder / "third.jinja").write_text(THIRD)
    assert texts(Project.open(folder))[0] == first(CHAT_TEMPLATE)
    assert texts(set_template(folder, ""))[0] == first(CHAT_TEMPLATE)
    assert texts(set_template(folder, "other"))[0] == first(OTHER)
    assert texts(set_template(folder, "default"))[0] == first(CHAT_TEMPLATE)
    assert texts(set_template(folder, "third.jinja"))[0] == first(THIRD)
    assert texts(set_template(folder, str(folder / "third.jinja")))[0] == first(THIRD)
    assert texts(set_template(folder, OTHER))[1] == first(OTHER, 1)
    # Processors of models with pictures keep their template in JSON.
    (folder / "processor_config.json").write_text(json.dumps({"chat_template": THIRD}))
    assert texts(set_template(folder, "processor_config.json"))[0] == first(THIRD)


def test_chat_template_without_a_default_names_the_others(folder: Path) -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = {"rag": CHAT_TEMPLATE, "other": OTHER}
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(DataError, match="several templates, but not one with the name default") as raised:
        Project.open(folder).check()
    assert "one of these names: other, rag." in raised.value.hint


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("", "The chat template writes no mark after an answer."),
        ("<|over|>", "The tokenizer splits '<|over|>', the end of an answer, into "),
        ("</s>", ""),
    ],
    ids=["no mark", "several tokens", "one token"],
)
def test_check_end_of_an_answer_that_is_no_token_is_noted(folder: Path, end: str, words: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + end + "\n{% endfor %}"
    notes = " ".join(set_template(folder, template).check().notes)
    assert words in notes
    assert words or ("after an answer" not in notes and "end of an answer" not in notes)


def test_chat_template_change_of_the_file_makes_the_stages_stale(folder: Path) -> None:
    (folder / "third.jinja").write_text(THIRD)
    project = set_template(folder, "third.jinja")
    project.train()
    states = {stage.stage: stage.state for stage in project.status().stages}
    assert (states["data"], states["train"]) == ("done", "done")
    (folder / "third.jinja").write_text(OTHER)
    changed = Project.open(folder)
    assert {stage.stage: stage.state for stage in changed.status().stages}["data"] == "stale"
    changed.check()
    assert {stage.stage: stage.state for stage in changed.status().stages}["train"] == "stale"
    assert texts(changed)[0] == first(OTHER)
    # Without the setting, keys of earlier projects stay the same.
    (folder / "third.jinja").write_text(THIRD)
    assert {stage.stage: stage.state for stage in Project.open(folder).status().stages}["train"] == "done"


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        ("missing.jinja", ConfigError, "no such file, and no template of the tokenizer: 'missing.jinja'"),
        ("{% for m in messages %}", ConfigError, r"not a valid template: line 1: "),
        ("latin.jinja", DataError, "cannot read the chat template"),
        ("large.jinja", DataError, "too large for a chat template"),
        ("other.json", DataError, "no text under `chat_template`"),
    ],
)
def test_chat_template_that_cannot_be_used_names_the_fault(
    folder: Path, written: str, error: type[CuratorError], message: str
) -> None:
    (folder / "latin.jinja").write_bytes(b"{{ '\xe9' }}")
    (folder / "large.jinja").write_text("x" * (2**20 + 1))
    (folder / "other.json").write_text('{"processor_class": "{{ x }}"}')
    with pytest.raises(error, match=message) as raised:
        set_template(folder, written).check()
    assert "missing" not in written or "default, other" in raised.value.hint


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch hacked') }}",
        "{% include '/etc/hostname' %}",
        "{% set _ = messages.append(1) %}",
    ],
)
def test_chat_template_from_a_file_runs_in_the_sandbox(
    folder: Path, attack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "evil.jinja").write_text(attack + CHAT_TEMPLATE)
    project = set_template(folder, "evil.jinja")
    with pytest.raises(DataError, match=r"cannot be used|the chat template rejects the turns"):
        project.check()
    assert not (tmp_path / "hacked").exists()


CARRIERS: dict[str, dict[str, Any]] = {
    "trl": {"chat_template_path": "chat_template.jinja"},
    "axolotl": {"chat_template": "jinja", "chat_template_jinja": THIRD},
}


def test_chat_template_is_in_every_export_or_named_in_its_notes(folder: Path) -> None:
    (folder / "third.jinja").write_text(THIRD)
    project = set_template(folder, "third.jinja")
    project.select(include=["alpha"], output=folder / "m.json")
    # The manifest holds the text, so the file is not needed any more.
    (folder / "third.jinja").unlink()
    for format in FORMATS:
        out = folder / "exports" / format
        report = export(read_manifest(folder / "m.json"), folder, format=format, folder=out)
        assert (out / "chat_template.jinja").read_text() == THIRD
        assert "chat_template.jinja" in report.configs
        if format in CARRIERS:
            (name,) = (name for name in report.configs if name.endswith(".yaml"))
            config = yaml.safe_load((out / name).read_text())
            assert {key: config.get(key) for key in CARRIERS[format]} == CARRIERS[format]
        elif report.command and format != "hf":
            assert any("has no setting for a template's text" in note for note in report.notes)
            assert "has no setting for a template's text" in (out / "README.md").read_text()
        if format == "swift":
            (row, *_) = [json.loads(line) for line in (out / "alpha.jsonl").read_text().splitlines()]
            assert "".join(turn["content"] for turn in row["messages"]).startswith("((user))three 0</s>\n((assistant))")
