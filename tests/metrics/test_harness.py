"""The metric `lm-eval:TASK` with a local task. The tests need the package `lm_eval`, which is an extra."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_models import make_chain

import curator
from curator.core.errors import ConfigError, DataError
from curator.core.metric_name import parse_metric
from curator.metrics.measuring import Measurer
from curator.workspace.store.metric_values import StoredMetric

MakeProject = Callable[..., Path]

TASK = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@pytest.fixture
def colours(make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path) -> Path:
    """Return a project with a task on which the model is right three times of four."""
    model = make_chain(tiny_llama_folder, tmp_path / "chain", ["=", " red"], bos=True)
    folder = make_project(model=model, verify={"metric": "lm-eval:colours", "lm_eval_tasks": "evaluation"})
    (folder / "evaluation").mkdir()
    rows = [{"question": f"{n} =", "choices": [" two", " red"], "label": label} for n, label in enumerate([1, 1, 0, 1])]
    data = folder / "evaluation" / "colours.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluation" / "colours.yaml").write_text(TASK.format(data=data))
    return folder


def _measurer(folder: Path, metric: str = "lm-eval:colours") -> tuple[curator.Project, Measurer]:
    project = curator.Project.open(folder)
    return project, Measurer(project.workspace, project.corpus(("target",)), parse_metric(metric))


def _measure(folder: Path) -> list[StoredMetric]:
    project, measurer = _measurer(folder)
    measurer.check()
    tuned = project._pipeline.load()
    tuned.reset(0)
    return measurer.measure(tuned)


def test_harness_local_task_gives_value_error_and_direction(colours: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval")
    (found,) = _measure(colours)
    assert (found.metric, found.part, found.value) == ("lm-eval:colours", "validation", 0.75)
    # The harness divides by n − 1.
    assert found.standard_error == pytest.approx((0.75 * 0.25 / 3) ** 0.5)
    assert (found.examples, found.higher_is_better) == (4, True)
    assert "Running loglikelihood" not in "".join(capfd.readouterr())


def test_harness_changed_task_file_changes_the_version(colours: Path) -> None:
    pytest.importorskip("lm_eval")
    _, before = _measurer(colours)
    versions = [before.version(before.metric, "validation")]
    with (colours / "evaluation" / "colours.jsonl").open("a") as file:
        file.write(json.dumps({"question": "9 =", "choices": [" two", " red"], "label": 0}) + "\n")
    _, after = _measurer(colours)
    versions.append(after.version(after.metric, "validation"))
    assert versions[0] != versions[1]
    (found,) = _measure(colours)
    assert found.value == pytest.approx(0.6)


def test_harness_verify_measures_every_run_and_the_base_model(colours: Path) -> None:
    pytest.importorskip("lm_eval")
    report = curator.Project.open(colours).verify(runs=2, seeds=1)
    assert report.metric is not None
    assert report.metric.before is not None
    assert report.metric.before.value == 0.75
    assert all(run.metric is not None and run.metric_error is not None for run in report.runs)
    assert all(run.test_metric is None for run in report.runs)


def test_harness_unknown_task_is_refused_with_the_nearest_name(colours: Path) -> None:
    pytest.importorskip("lm_eval")
    _, measurer = _measurer(colours, "lm-eval:colour")
    with pytest.raises(ConfigError, match="unknown task of lm-eval: 'colour'") as caught:
        measurer.check()
    assert "Use 'colours'" in caught.value.hint


def test_harness_task_without_data_names_the_task(colours: Path) -> None:
    pytest.importorskip("lm_eval")
    (colours / "evaluation" / "colours.jsonl").unlink()
    _, measurer = _measurer(colours)
    with pytest.raises(DataError, match="lm-eval task 'colours' failed: "):
        measurer.check()


def test_harness_missing_package_names_the_extra(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "lm_eval", missing)
    _, measurer = _measurer(colours)
    with pytest.raises(ConfigError, match="metric 'lm-eval' needs lm_eval") as caught:
        measurer.check()
    assert caught.value.hint == "Run `pip install 'curator-tasks[lm-eval]'`."


def test_harness_missing_folder_is_named(colours: Path) -> None:
    (colours / "evaluation").rename(colours / "moved")
    _, measurer = _measurer(colours)
    with pytest.raises(ConfigError, match="lm_eval_tasks: no such folder"):
        _ = measurer.metric.settings
