"""Missing packages and foreign files in the package: one line of error, one line of hint, no traceback."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = str(ROOT / "sample_data")
# The hint if another distribution owns files of the package.
REMEDY = "Install curator in its own environment: `uv tool install curator-tasks` or `pipx install curator-tasks`."


def _run(before: str, *arguments: str, after: str = "main()") -> subprocess.CompletedProcess[str]:
    """Run the command line in a new interpreter, after some lines of Python."""
    lines = [
        "import sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        f"sys.argv = ['curator', *{arguments!r}]",
        textwrap.dedent(before),
        "from curator.cli.main import main",
        after,
    ]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("blocked", "arguments", "error", "hint"),
    [
        pytest.param(
            "matplotlib",
            ("curve", "-p", SAMPLE, "--plot", "curve.svg"),
            "error: drawing a plot needs matplotlib",
            "Run `pip install 'curator-tasks[plot]'`.",
            id="curve-plot",
        ),
        pytest.param(
            "ray",
            ("verify", "-p", SAMPLE, "--ray", "local"),
            "error: --ray needs ray",
            "Run `pip install 'curator-tasks[ray]'`.",
            id="verify-ray",
        ),
        pytest.param(
            "aiohttp",
            ("tui", "-p", SAMPLE, "--serve"),
            "error: `curator tui --serve` needs textual-serve",
            "Run `pip install 'curator-tasks[serve]'`.",
            id="serve-aiohttp",
        ),
        pytest.param(
            "textual_serve",
            ("tui", "-p", SAMPLE, "--serve"),
            "error: `curator tui --serve` needs textual-serve",
            "Run `pip install 'curator-tasks[serve]'`.",
            id="serve-textual-serve",
        ),
    ],
)
def test_command_without_its_extra_names_the_install_command(
    blocked: str, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    # A finder simulates a missing package. None in `sys.modules` would raise another exception.
    hide = f"""
    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == {blocked!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Hidden())
    """
    done = _run(hide, *arguments)
    assert done.stderr.splitlines() == [error, hint]
    assert done.stdout == ""
    assert done.returncode == 2


def _install_other(site: Path) -> None:
    """Write the file list of a distribution that installs files into `curator/`."""
    info = site / "elasticsearch_curator-9.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elasticsearch-curator\nVersion: 9.0.0\n")
    (info / "RECORD").write_text("curator/__init__.py,,\ncurator/cli.py,,\n../../../bin/curator,,\n")


BROKEN = "import curator.cli.app as broken\ndel broken.app"


@pytest.mark.parametrize("after", ["main()", "from curator.cli import cli; cli()"], ids=["ours", "theirs"])
def test_start_with_foreign_files_names_their_distribution(tmp_path: Path, after: str) -> None:
    """The command on PATH is that of the distribution installed last: ours, or theirs, which starts `cli`."""
    _install_other(tmp_path)
    done = _run(f"sys.path.append({str(tmp_path)!r})\n{BROKEN}", "--version", after=after)
    error = "error: another distribution owns files of the package `curator`: elasticsearch-curator"
    assert done.stderr.splitlines() == [error, REMEDY]
    assert done.returncode == 2


def test_start_that_fails_without_foreign_files_keeps_its_traceback() -> None:
    done = _run(BROKEN, "--version")
    assert "ImportError: cannot import name 'app'" in done.stderr
    assert "another distribution" not in done.stderr
    assert done.returncode == 1


def test_start_that_succeeds_reads_no_file_lists(tmp_path: Path) -> None:
    _install_other(tmp_path)
    done = _run(
        f"sys.path.append({str(tmp_path)!r})", "--version", after="sys.modules['importlib.metadata'] = None\nmain()"
    )
    assert done.stdout.startswith("curator ")
    assert done.returncode == 0


def test_unknown_name_of_the_command_line_is_an_attribute_error() -> None:
    done = _run("", "--version", after="import curator.cli\nprint(hasattr(curator.cli, 'cli'))")
    assert done.stdout == "False\n"
