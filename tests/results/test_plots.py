"""Plot files: each format, equal bytes for equal reports, and hostile names."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import HOSTILE

from curator.core.errors import ConfigError, DataError, ExitCode
from curator.core.interval import Interval
from curator.results.plots import check_plot_file, plot_verify
from curator.results.verification import VerifiedRun, VerifyReport

MAGIC = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}


def _report(
    target: str = "target", *, ends: tuple[float | None, float | None] = (0.9, 1.4), subsets: int = 6
) -> VerifyReport:
    rng = np.random.default_rng(0)
    losses = rng.uniform(1, 1.3, (subsets, 2))
    return VerifyReport(
        target=(target,),
        calibrated=True,
        runs=tuple(
            VerifiedRun(
                subset=("task",) * number,
                seed=seed,
                estimate=Interval(float(losses[number, 0]), *ends),
                measured_loss=float(losses[number, 1]) + 0.02 * seed,
            )
            for seed in (0, 1)
            for number in range(subsets)
        ),
        subsets=subsets,
        relative_error=0.05,
        constant_relative_error=0.1,
        seed_noise=0.01,
        spearman=0.9,
        interval_coverage=0.9,
        seconds_estimating=1.0,
        seconds_fine_tuning=100.0,
        subsets_estimated=50,
        speedup=10.0,
        speedup_100=20.0,
    )


def _svg(path: Path, report: VerifyReport) -> str:
    plot_verify(report, path)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_plot_verify_same_report_gives_same_bytes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / f"one.{kind}", tmp_path / f"two.{kind.upper()}"
    for path, moment in ((one, 1_000_000_000), (two, 1_500_000_000)):
        # matplotlib writes this time into a file by default.
        with monkeypatch.context() as patched:
            patched.setenv("SOURCE_DATE_EPOCH", str(moment))
            check_plot_file(path)
            plot_verify(_report(), path)
    assert one.read_bytes().startswith(MAGIC[kind])
    assert one.read_bytes() == two.read_bytes()
    plot_verify(_report(ends=(0.8, 1.4)), two)
    assert one.read_bytes() != two.read_bytes()


def test_plot_verify_svg_holds_title_as_text(tmp_path: Path) -> None:
    text = _svg(tmp_path / "x.svg", _report("addition"))
    assert "addition: error 5.00%, Spearman 0.900" in text
    assert "uncalibrated" not in text
    assert "(uncalibrated)" in _svg(tmp_path / "y.svg", replace(_report(), calibrated=False, spearman=None))


@pytest.mark.parametrize("name", [*HOSTILE, "$x^{2", "a & b < c > d", "\\frac{", "line\nbreak"])
def test_plot_verify_hostile_name_stays_text(tmp_path: Path, name: str) -> None:
    root = ElementTree.fromstring(_svg(tmp_path / "x.svg", _report(name)))
    said = " ".join(root.itertext())
    for character in "\x1b\x00\x07\u202e\x9b":
        assert character not in said
    if name.isprintable() and len(name) < 100:
        assert name in said
    plot_verify(_report(name), tmp_path / "x.pdf")
    assert (tmp_path / "x.pdf").read_bytes().startswith(MAGIC["pdf"])


def test_plot_verify_interval_from_zero_is_drawn(tmp_path: Path) -> None:
    nothing, hardly = (_svg(tmp_path / f"{low}.svg", _report(ends=(low, 2.5))) for low in (0.0, 1e-12))
    assert nothing == hardly


@pytest.mark.parametrize("subsets", [1, 2, 5])
def test_plot_verify_without_intervals_is_drawn(tmp_path: Path, subsets: int) -> None:
    ElementTree.fromstring(_svg(tmp_path / "x.svg", _report(ends=(None, None), subsets=subsets)))


def test_check_plot_file_unusable_file_raises_error(tmp_path: Path) -> None:
    for name in ("x.docx", "x", "svg", ".svg.txt"):
        with pytest.raises(ConfigError, match="unknown plot format") as caught:
            check_plot_file(tmp_path / name)
        assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(ConfigError, match="no such folder"):
        check_plot_file(tmp_path / "nowhere" / "x.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(DataError, match="cannot write plot"):
        plot_verify(_report(), tmp_path / "folder.svg")
