"""Several processes give the gradients and estimates of one, with a base that is cut among them (`model.shard`).

Two ranks with batches of 2 make the same steps as one process with batches of 4. Sums of floats have another order.
Tolerances are relative to the largest entry: 0.001 after 32 steps of training, and 0.00001 at the same adapters.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeProject, pair_rows

import curator
from curator.core.config import ModelSection
from curator.core.errors import ConfigError
from curator.core.interpreters import module_command
from curator.training.sharding import is_sharded, layer_plan, sharding_options

SUBSETS = [[], ["alpha"], ["beta", "gamma"], ["alpha", "beta", "gamma"]]
# Batches of about two examples, so that the ranks do not have equally many.
FEW = {"batch_tokens": 40}


def _cut(folder: Path) -> Path:
    """Set `shard` in the configuration of a project."""
    config = folder / "curator.toml"
    text = config.read_text(encoding="utf-8").replace("[model]", '[model]\nshard = "layers"')
    config.write_text(text, encoding="utf-8")
    return folder


def _launch(*arguments: Path) -> None:
    program = Path(__file__).with_name("ranks.py")
    launcher = module_command("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [*launcher, str(program), *map(str, arguments)],
        env=os.environ | {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _largest_difference(found: Any, expected: Any) -> float:
    """Return the largest difference, relative to the largest expected entry."""
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


def _losses(project: curator.Project) -> list[float]:
    return [estimate.estimated_loss for estimate in project.estimate_all(SUBSETS).estimates]


@pytest.mark.timeout(900)
def test_shard_two_ranks_equal_one_process(make_project: MakeProject) -> None:
    """One launch checks a stopped and resumed capture, uneven batches, verified runs, adapters and the callback."""
    trajectory: dict[str, Any] = {
        "project": {"name": "p"},
        "estimate": {"method": "trajectory"},
        "gradients": {"projection_dim": 16, "points": "auto", **FEW},
    }
    two = _cut(make_project("two", **trajectory, train={"epochs": 4, "batch_size": 1, "gradient_accumulation": 2}))
    # An odd number of batches of one example: 12 of the target and 7 of a task.
    rows = {"target": pair_rows("target", 12), "alpha": pair_rows("alpha", 7)}
    single = {"projection_dim": 16, "points": [0.5, 1.0], "batch_tokens": 1}
    plain = _cut(make_project("plain", tasks=rows, gradients=single))
    trained = make_project("trained", **trajectory, train={"epochs": 4, "batch_size": 2})
    _launch(two, plain, trained)
    ranks = [json.loads((two.parent / f"rank-{n}.json").read_text()) for n in range(2)]

    # Each rank holds half of the layers, and the whole adapter.
    assert [2 * rank["layers"][0] for rank in ranks] == [rank["layers"][1] for rank in ranks]
    assert ranks[0]["adapter"] == ranks[1]["adapter"]
    assert [rank["resumed_after"] for rank in ranks] == [[15], [15]]
    # Only the second rank has fewer batches, in both kinds of passes.
    assert ranks[0]["stood_by"] == [0, 0]
    assert 0 < ranks[1]["stood_by"][0] == ranks[1]["stood_by"][1] - 2

    one = curator.Project.open(make_project("one", **trajectory, train={"epochs": 4, "batch_size": 4}))
    expected_sums = one.estimates(("target",)).trajectory.segments
    expected_losses = _losses(one)
    assert np.ptp(expected_losses) > 1e-4
    for folder in (two, trained):
        project = curator.Project.open(folder)
        assert project.train().cached
        if folder == two:
            assert project.gradients().computed == 0
        for found, expected in zip(project.estimates(("target",)).trajectory.segments, expected_sums, strict=True):
            assert found.examples.tolist() == expected.examples.tolist()
            assert _largest_difference(found.gradient_sums, expected.gradient_sums) < 1e-3
        assert _losses(project) == pytest.approx(expected_losses, abs=1e-3 * np.ptp(expected_losses))
    measured = [[list(each.subset), each.measured_loss] for each in one.verify(runs=1, metric="exact_match").runs]
    assert ranks[0]["measured"][0][0] == measured[0][0]
    assert ranks[0]["measured"][0][1] == pytest.approx(measured[0][1], abs=1e-4)

    # One process computes all gradients again, at the adapters that the ranks saved.
    again = curator.Project.open(Path(shutil.copytree(plain, plain.parent / "again")))
    assert again.train().cached
    assert again.gradients(fresh=True).computed > 0
    before = curator.Project.open(plain)
    for key in again.store.artifacts("gradients")[0].inputs["sets"]:
        (hashes, losses_one, alone), (others, losses_two, shared_ones) = (
            p.store.gradients(key) for p in (again, before)
        )
        order, other_order = np.argsort(hashes), np.argsort(others)
        assert sorted(hashes) == sorted(others)
        np.testing.assert_allclose(losses_two[other_order], losses_one[order], rtol=1e-5)
        assert _largest_difference(shared_ones[other_order], alone[order]) < 1e-5


def test_shard_in_one_process_holds_the_whole_model() -> None:
    assert not is_sharded(ModelSection(name_or_path="m", shard="layers"))


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("llama", {"model.layers.*"}),
        ("gpt2", {"transformer.h.*"}),
        ("t5", {"encoder.block.*", "decoder.block.*"}),
    ],
)
def test_layer_plan_of_architecture_cuts_its_layers(
    kind: str, layers: set[str], request: pytest.FixtureRequest
) -> None:
    from transformers import AutoConfig

    folder = request.getfixturevalue(f"tiny_{kind}_folder")
    assert layer_plan(AutoConfig.from_pretrained(folder), trusted=False).keys() == layers


@pytest.mark.parametrize(("name", "value"), [("quantization", "4bit"), ("device_map", "auto")])
def test_sharding_options_with_other_placement_are_refused(name: str, value: str, tmp_path: Path) -> None:
    section = ModelSection.model_validate({"name_or_path": "m", "shard": "layers", name: value})
    with pytest.raises(ConfigError, match=f"model.shard and model.{name} exclude each other"):
        sharding_options(tmp_path, None, section)
