"""`.ci/readme.py` finds in README.md what `.ci/run` executes and compares."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "readme.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the folder .ci is missing in an sdist")


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_readme", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_of_our_readme_is_one_line_without_an_active_environment(readme: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for which, program in (("select", "curator select -p sample_data"), ("test", "pytest")):
        line = readme.command(text, which)
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert line.endswith(f" && .venv/bin/{program}")


@pytest.mark.parametrize("times", [0, 2])
def test_command_missing_or_twice_is_refused(readme: ModuleType, times: int) -> None:
    block = "```bash\npython3 -m venv .venv && .venv/bin/pytest\n```\n"
    with pytest.raises(ValueError, match="not exactly one line"):
        readme.command(block * times, "test")


def test_compare_different_digit_names_both_lines(
    readme: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = "\n".join(readme.shown_output((ROOT / "README.md").read_text(encoding="utf-8")))
    output = tmp_path / "output"
    output.write_text(shown + "\n", encoding="utf-8")
    assert readme.main(["compare", str(output)]) == 0
    affinity = re.findall(r"[+-]0\.\d{4}", shown)[0]
    # Another processor may round another way.
    output.write_text(shown.replace(affinity, f"{float(affinity) + 0.0002:+.4f}") + "\n", encoding="utf-8")
    assert readme.main(["compare", str(output)]) == 0
    output.write_text(shown.replace("rare_nouns", "rare_nouns ") + "\n", encoding="utf-8")
    assert readme.main(["compare", str(output)]) == 1
    other = f"{float(affinity) + 0.0003:+.4f}"
    output.write_text(shown.replace(affinity, other) + "\n", encoding="utf-8")
    assert readme.main(["compare", str(output)]) == 1
    error = capsys.readouterr().err
    assert "differs from README.md" in error
    assert affinity in error
    assert other in error


def test_workflow_audits_the_installed_dependencies() -> None:
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert "pip-audit --requirement installed.txt" in text
