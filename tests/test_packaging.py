"""The wheel and the sdist: contents, and an installation outside of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def _run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel built from the sdist."""
    copy, folder = tmp_path_factory.mktemp("source") / "curator", tmp_path_factory.mktemp("dist")
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "curator-manifest.json")
    shutil.copytree(ROOT, copy, ignore=hidden)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder=copy)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of a new environment with the wheel. Dependencies come from the current one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    (wheel,) = built.glob("*.whl")
    _run(home / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, folder=home)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # The `.pth` file adds the installed packages, but not an editable install of the checkout.
    there = home / "lib" / version / "site-packages" / "dependencies.pth"
    there.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def test_wheel_holds_both_packages_and_their_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name.partition("/")[0] for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert code == {"curator", "tui"}
    assert [name.partition(".data/")[2] for name in names if ".data/" in name] == ["data/share/man/man1/curator.1"]
    sources = {str(p.relative_to(ROOT)) for package in ("curator", "tui") for p in (ROOT / package).rglob("*.py")}
    assert sources <= names
    assert {"curator/py.typed", "tui/app.tcss"} <= names
    metadata = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Name: {project['name']}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_sdist_holds_every_file_that_readme_names(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        *("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "RELEASE.md"),
        *("SECURITY.md", "constraints.txt", "mkdocs.yml", "docs/decisions/README.md", "sample_data/README.md"),
        "sample_data/curator.toml",
        *("docs/tutorial/sample-project.md", "docs/pictures/tasks.svg"),
    }
    assert wanted <= names
    assert not [name for name in names if ".curator" in name or "__pycache__" in name]


def test_installed_package_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample", ignore=shutil.ignore_patterns(".curator"))
    where = _run(installed / "python", "-c", "import curator, tui; print(curator.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert _run(installed / "curator", "--version", folder=tmp_path).stdout.startswith("curator 0.")
    assert "topic" in _run(installed / "curator", "check", "-p", "sample", folder=tmp_path).stdout


def test_shell_completion_lists_commands_and_options(installed: Path, tmp_path: Path) -> None:
    shown = _run(
        installed / "curator",
        "--show-completion",
        "bash",
        folder=tmp_path,
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    assert "_CURATOR_COMPLETE" in shown.stdout
    asked = {"_CURATOR_COMPLETE": "complete_bash", "COMP_WORDS": "curator sel", "COMP_CWORD": "1"}
    assert _run(installed / "curator", folder=tmp_path, **asked).stdout.split() == ["select", "selections"]


def test_conda_recipe_lists_every_dependency_and_the_entry_point() -> None:
    """The recipe is a draft. The test reads it, and builds no package."""
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {"torch": "pytorch", "duckdb": "python-duckdb"}
    wanted = [re.fullmatch(r"([\w-]+)(.*)", line) for line in project["dependencies"]]
    expected = [f"{names.get(found[1], found[1])} {found[2]}" for found in wanted if found]
    assert recipe["requirements"]["run"] == [f"python {project['requires-python']}", *expected]
    assert recipe["context"] == {"name": project["name"], "version": project["version"]}
    assert recipe["build"]["python"]["entry_points"] == [f"curator = {project['scripts']['curator']}"]


def test_dockerfile_copies_files_that_exist_and_installs_extras_that_exist() -> None:
    """No test builds the image, because the tests have no Docker."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r'"\.\[(.*)\]"', text)
    assert set(named.split(",")) <= set(extras)
