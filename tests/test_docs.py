"""The documentation: every command in it runs, and the reference is as the code is."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from curator.cli.main import main
from curator.project.project import Project

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
# It draws on a terminal, and ends when a person ends it: test_tui_terminal.py drives it.
INTERACTIVE = "curator tui"


def _commands(page: Path) -> list[str]:
    """The curator commands in a page's blocks of shell, in order, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [" ".join(line.partition(" #")[0].split()) for line in lines]
    return [line for line in found if line.startswith("curator ") and not line.startswith(INTERACTIVE)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pages' commands make sense: the sample project, shortened, and its parts as own data."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "sample_data", folder / "sample_data", ignore=shutil.ignore_patterns(".curator"))
    config = folder / "sample_data" / "curator.toml"
    text = config.read_text(encoding="utf-8")
    assert "epochs = " in text
    text = re.sub(r"^epochs = .*$", "epochs = 0.2", text, flags=re.MULTILINE)
    text = re.sub(r"^\[data\]$", "[data]\nmax_examples_per_task = 12", text, flags=re.MULTILINE)
    config.write_text(text, encoding="utf-8")
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
    # Pages speak of what was selected.
    Project.open(folder / "sample_data").select()
    (folder / "subsets.json").write_text('[["word_topic"], ["word_topic", "rare_nouns"]]', encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_runs(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    # Fewer runs than a user would let it make.
    monkeypatch.setattr("curator.verify.measure.DEFAULT_SUBSETS", 2)
    for name in ("my-project", "grouped", "from-llama-factory", "from-axolotl", "from-trl"):
        shutil.rmtree(workplace / name, ignore_errors=True)
    for command in _commands(page):
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


def test_the_reference_is_as_the_code_is() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
