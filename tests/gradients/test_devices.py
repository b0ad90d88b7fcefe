"""`model.device_map` reaches transformers, and estimates do not depend on it. Tests have one device, the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeProject

import curator
from curator.core.errors import ConfigError, DataError
from curator.gradients.projection import Projection, ProjectionSpec, Sketches, Together
from curator.project.toml_text import toml_of


def _mapped(folder: Path, device_map: Any) -> Path:
    """Set `device_map` in the configuration of a project."""
    config = folder / "curator.toml"
    line = f"[model]\ndevice_map = {toml_of(device_map)}"
    config.write_text(config.read_text(encoding="utf-8").replace("[model]", line), encoding="utf-8")
    return folder


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}])
@pytest.mark.parametrize("method", ["quadratic", "trajectory"])
def test_device_map_of_the_cpu_gives_the_same_estimates(
    method: str, device_map: Any, make_project: MakeProject
) -> None:
    plain = curator.Project.open(make_project("plain", estimate={"method": method}, train={"epochs": 1}))
    folder = _mapped(make_project("mapped", estimate={"method": method}, train={"epochs": 1}), device_map)
    mapped = curator.Project.open(folder)
    subsets = [[], ["alpha"], ["beta", "gamma"]]
    expected = [estimate.estimated_loss for estimate in plain.estimate_all(subsets).estimates]
    assert [e.estimated_loss for e in mapped.estimate_all(subsets).estimates] == pytest.approx(expected, abs=1e-6)


def test_device_map_unknown_word_is_refused_by_transformers(make_project: MakeProject) -> None:
    """The error shows that the word reaches transformers."""
    project = curator.Project.open(_mapped(make_project(), "everywhere"))
    with pytest.raises(DataError, match=r"cannot load model .*everywhere|device_map"):
        project._pipeline.load()


def test_device_map_in_several_processes_is_refused(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _mapped(make_project(), "auto")
    project = curator.Project.open(folder)
    monkeypatch.setattr("curator.core.distributed.world_size", lambda: 2)
    with pytest.raises(ConfigError, match="several processes"):
        project._pipeline.load()


def test_sketches_of_one_device_total_is_the_sum_itself() -> None:
    sketches = Sketches(2, 3, torch.device("cpu"))
    sketches.on(torch.device("cpu"))[1] += 2
    assert sketches.total().tolist() == [[0, 0, 0], [2, 2, 2]]


def test_together_layers_on_two_devices_stay_on_their_devices() -> None:
    """torch's device `meta` stands for a second device: an operation that mixes the two fails, or loses the numbers."""
    cpu, other = torch.device("cpu"), torch.device("meta")
    spec = ProjectionSpec(dim=4, seed=0)
    gradients = {"here": torch.randn(2, 6), "there": torch.empty(2, 6, device=other), "also_here": torch.randn(2, 5)}
    factors = {name: torch.full((g.shape[1],), 2.0, device=g.device) for name, g in gradients.items()}
    sketches, projection = Sketches(2, 4, cpu), Projection(spec)
    together = Together(projection, sketches, lambda pieces: {name: factors[name] for name, _ in pieces})
    for name, gradient in gradients.items():
        together.add(name, gradient)
    together.flush()
    expected = torch.zeros(2, 4)
    for name in ("here", "also_here"):
        Projection(spec).add(name, gradients[name] * 2, expected)
    torch.testing.assert_close(sketches.on(cpu), expected)
    assert sketches.on(other).device == other
    # Every array of the projection lies on the device of its layer.
    assert {name: projection.draw(name, 6, cpu)[0].device for name in ("here", "there")} == {
        "here": cpu,
        "there": other,
    }
