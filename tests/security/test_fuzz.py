"""Damaged files: each parser of foreign text returns a result or raises an error of curator."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

# Ten minutes for each parser: CURATOR_FUZZ_SECONDS=600.
SECONDS = float(os.environ.get("CURATOR_FUZZ_SECONDS", "0.25"))
PLACE = Path(__file__).parents[1] / "stress" / "fuzz.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stress_fuzz", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZ = _load()


@pytest.mark.timeout(300 + 3 * SECONDS)
@pytest.mark.parametrize("name", FUZZ.PARSERS)
def test_fuzz_damaged_text_never_crashes_parser(name: str, tmp_path: Path) -> None:
    assert FUZZ.fuzz(name, tmp_path, SECONDS).texts >= 25
