"""Links and commands of README.md and docs, the generated reference pages, and the length of README.md."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from curator.cli.app import app
from curator.cli.main import main
from curator.project.project import Project

ROOT = next(folder for folder in Path(__file__).parents if (folder / "docs" / "check.py").is_file())


def _load_check() -> ModuleType:
    """Load docs/check.py, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("docs_check", ROOT / "docs" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _load_check()
PAGES: list[Path] = check.pages()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder for the commands of the pages: the shortened sample project, and parts of it as own data."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "sample_data", folder / "sample_data", ignore=shutil.ignore_patterns(".curator"))
    config = folder / "sample_data" / "curator.toml"
    text = config.read_text(encoding="utf-8")
    assert "epochs = " in text
    text = re.sub(r"^epochs = .*$", "epochs = 0.2", text, flags=re.MULTILINE)
    text = re.sub(r"^\[data\]$", "[data]\nmax_examples_per_task = 12", text, flags=re.MULTILINE)
    # Save time: by default, `curator verify` measures more subsets.
    config.write_text(f"{text}\n[verify]\nruns = 2\n", encoding="utf-8")
    # The target's 300 rows would mostly be held out, and each run measures its loss on them three times.
    target = folder / "sample_data" / "tasks" / "topic.jsonl"
    target.write_text("".join(target.read_text(encoding="utf-8").splitlines(keepends=True)[:40]), encoding="utf-8")
    shutil.copytree(folder / "sample_data" / "model", folder / "model")
    (folder / "data").mkdir()
    for task in ("topic", "word_topic", "spelling"):
        lines = (folder / "sample_data" / "tasks" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        (folder / "data" / f"{task}.jsonl").write_text("\n".join(lines[:24]) + "\n", encoding="utf-8")
    (folder / "data" / "dataset_info.json").write_text(
        '{"topic": {"file_name": "topic.jsonl", "columns": {"prompt": "prompt", "response": "completion"}}}',
        encoding="utf-8",
    )
    (folder / "axolotl.yaml").write_text(
        "base_model: model\ndatasets:\n- path: data/topic.jsonl\n"
        "  type: {field_instruction: prompt, field_output: completion}\n",
        encoding="utf-8",
    )
    (folder / "sft.yaml").write_text(
        "model_name_or_path: model\ndatasets: [{path: json, data_files: data/topic.jsonl}]\n", encoding="utf-8"
    )
    # Some pages use a finished selection.
    Project.open(folder / "sample_data").select()
    (folder / "subsets.json").write_text('[["word_topic"], ["word_topic", "rare_nouns"]]', encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if check.commands(page)], ids=_name)
def test_page_commands_run(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    for name in ("my-project", "grouped", "saved", "from-llama-factory", "from-axolotl", "from-trl"):
        shutil.rmtree(workplace / name, ignore_errors=True)
    for command in check.commands(page):
        if set(command) & set("|>$"):
            script = f'curator() {{ "{sys.executable}" -m curator "$@"; }}\n{command}'
            done = subprocess.run(
                ["bash", "-c", script],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            continue
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, f"{command}\n{capfd.readouterr().err}"


def test_reference_pages_equal_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_links_resolve(page: Path) -> None:
    assert list(check.broken_links(page)) == []


def test_broken_links_missing_file_or_anchor_names_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    (tmp_path / "LICENSE").touch()
    page = tmp_path / "docs" / "page.md"
    page.write_text(
        "# A `page`, and *more*\n\n[here](#a-page-and-more) [site](https://example.org/x#y) [self](page.md)\n"
        "[file](missing.md) [anchor](page.md#missing) [outside](../LICENSE)\n\n```\n[code](missing.md)\n```\n",
        encoding="utf-8",
    )
    found = ["file not found: missing.md", "anchor not found: page.md#missing", "file outside docs: ../LICENSE"]
    assert list(check.broken_links(page)) == found


def test_commands_bash_block_skips_comments_and_tui(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\ncurator select \\\n  --k 2   # two\ncurator tui\necho x | curator sql -\npip install x\n```\n"
        "\n```\ncurator status\n```\n",
        encoding="utf-8",
    )
    assert check.commands(page) == ["curator select --k 2", "echo x | curator sql -"]


def test_readme_has_at_most_700_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_man_page_names_every_command_option_and_variable() -> None:
    text = (ROOT / "docs" / "reference" / "curator.1").read_text(encoding="utf-8").replace("\\-", "-")
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f".SS curator {name}" in text
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[-1] in text
    assert "\\fBCURATOR_LOG_FILE\\fR\n--log-file: Write progress" in text
    assert not [line for line in text.splitlines() if line.startswith("'")]
