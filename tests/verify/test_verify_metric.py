"""`verify` with a metric: every run, the model before training, and the JSON document."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_models import make_chain
from conftest import pair_rows
from hostile import run_cli

import curator
from curator.core.events import Event, Note, Reporter, StageStarted

MakeProject = Callable[..., Path]
_ANSWERS = [" red two", " red", " red two", " carry", " the", " red two"]


@pytest.fixture
def chained(make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path) -> Path:
    """Return a project whose model writes ` red two`, as half of the held-out rows want, before training."""
    model = make_chain(tiny_llama_folder, tmp_path / "chain", ["=", " red", " two"], bos=True)
    tasks = {"target": pair_rows("target", 12)} | {name: pair_rows(name, 8) for name in ("alpha", "beta")}
    folder = make_project(
        model=model,
        tasks=tasks,
        data={"validation_files": {"target": "held-out.jsonl"}, "test_files": {"target": "test.jsonl"}},
        train={"epochs": 1, "learning_rate": 1e-4},
        verify={"metric": "exact_match"},
    )
    for name, answers in (("held-out", _ANSWERS), ("test", [" red two", " sum", " word", " digit"])):
        rows = [{"prompt": f"{name} {n} =", "completion": answer} for n, answer in enumerate(answers)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_verify_json_has_the_metric_of_every_run_and_of_the_base_model(chained: Path) -> None:
    done = run_cli("verify", "-p", str(chained), "--runs", "3", "--seeds", "1", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    metric = document["metric"]
    assert (metric["name"], metric["higher_is_better"], metric["subsets"]) == ("exact_match", True, 3)
    # The learning rate is too low to change an answer, so every value is that of the base model.
    before = metric["before"]
    assert (before["value"], before["examples"]) == (0.5, 6)
    assert before["standard_error"] == pytest.approx((0.25 / 6) ** 0.5, abs=1e-6)
    assert (before["test_value"], before["test_standard_error"]) == (0.25, pytest.approx((3 / 16 / 4) ** 0.5, abs=1e-6))
    assert before["test_loss"] > before["loss"] > 0
    for run in document["runs"]:
        assert (run["metric"], run["test_metric"]) == (0.5, 0.25)
        assert run["metric_error"] == before["standard_error"]
        assert run["test_loss"] > run["measured_loss"]
    alone = next(run for run in document["runs"] if run["subset"] == [])
    assert metric["target_only"]["loss"] == alone["measured_loss"]
    assert metric["target_only"]["value"] == 0.5
    assert metric["all_tasks"]["test_loss"] is not None
    assert (metric["rank_correlation_with_loss"], metric["low"], metric["high"]) == (None, None, None)
    assert (metric["can_rank"], metric["spread"]) == (False, 0.0)
    assert metric["warnings"] == [
        "exact_match cannot rank these subsets at this number of runs: all subsets have the same value"
    ]
    assert "cannot rank these subsets" in done.err
    best = min(document["runs"], key=lambda run: run["measured_loss"])
    assert metric["test"]["chosen"] == best["subset"]
    gaps = [run["test_loss"] - run["measured_loss"] for run in document["runs"]]
    flattery = best["test_loss"] - best["measured_loss"] - sum(gaps) / 3
    assert metric["test"]["flattery"] == pytest.approx(flattery, abs=3e-6)
    first, second = (gap for gap, run in zip(gaps, document["runs"], strict=True) if run["subset"] != best["subset"])
    # Two numbers have the standard deviation |a − b| / √2. The chosen one is part of the mean of three.
    expected = abs(first - second) / 2**0.5 * (2 / 3) ** 0.5
    assert metric["test"]["standard_error"] == pytest.approx(expected, abs=3e-6)
    table = curator.Project.open(chained).sql(
        "SELECT part, count(*) AS n, avg(value) AS mean FROM metrics"
        " WHERE current AND metric = 'exact_match' AND higher_is_better GROUP BY part ORDER BY part"
    )
    assert table.rows() == [{"part": "test", "n": 3, "mean": 0.25}, {"part": "validation", "n": 3, "mean": 0.5}]


def _verify(folder: Path, **options: Any) -> tuple[curator.VerifyReport, list[Event]]:
    events: list[Event] = []
    return curator.Project.open(folder, reporter=Reporter(events.append)).verify(**options), events


def _notes(events: list[Event], words: str) -> list[str]:
    return [e.message for e in events if isinstance(e, Note) and words in e.message]


def test_verify_metric_missing_on_stored_runs_repeats_them_and_says_so(chained: Path) -> None:
    first, _ = _verify(chained, metric="loss", runs=2, seeds=1)
    assert first.metric is not None
    assert first.metric.rank_correlation_with_loss is None
    assert [run.metric for run in first.runs] == [run.measured_loss for run in first.runs]
    assert all(run.metric_error is not None for run in first.runs)
    # With --runs, curator adds runs only, and says what the stored runs lack.
    second, events = _verify(chained, runs=1, seeds=1)
    assert _notes(events, "2 stored runs have no value of exact_match, and no adapter: `curator verify")
    assert sorted(run.metric is None for run in second.runs) == [False, True, True]
    third, events = _verify(chained)
    assert _notes(events, "2 stored runs have no value of exact_match, and no adapter: curator repeats these runs")
    assert {run.metric for run in third.runs} == {0.5}
    # The repeated runs have the same seeds, so the losses stay.
    assert {(r.subset, r.seed): r.measured_loss for r in third.runs} == {
        (r.subset, r.seed): r.measured_loss for r in second.runs
    }
    _, events = _verify(chained)
    assert not [e for e in events if isinstance(e, StageStarted) and e.stage == "verify"]
    assert not _notes(events, "before training")


def test_verify_failing_command_keeps_the_run_to_resume(chained: Path) -> None:
    (chained / "score.sh").write_text("#!/bin/sh\nexit 3\n")
    (chained / "score.sh").chmod(0o755)
    (chained / "score.sh").write_text('#!/bin/sh\ntest "$CURATOR_PART" = validation || echo 1\n'
                                      'test -e "$CURATOR_PROJECT/broken" && exit 3\necho 0.5\n')  # fmt: skip
    _verify(chained, metric="loss", runs=1, seeds=1)
    (chained / "broken").touch()
    done = run_cli("verify", "-p", str(chained), "--metric", "command:./score.sh", "--json")
    assert (done.code, done.out) == (3, "")
    assert "metric command failed with exit code 3" in done.err
    (chained / "broken").unlink()
    report, _ = _verify(chained, metric="command:./score.sh")
    assert [run.metric for run in report.runs] == [0.5]
    assert not list((chained / ".curator" / "adapters" / "verify").iterdir())


def test_verify_unknown_metric_is_refused_before_any_stage(chained: Path) -> None:
    done = run_cli("verify", "-p", str(chained), "--metric", "accuracy")
    assert done.code == 2
    assert "lm-eval:TASK and command:WORDS, not 'accuracy'" in done.err
    assert not (chained / ".curator" / "adapters").exists()


def test_apply_measures_metric_next_to_base_model_and_measured_subsets(chained: Path) -> None:
    project = curator.Project.open(chained)
    project.select(include=["alpha"], exclude=["beta"])
    report = project.apply()
    assert report.metric is not None
    applied = report.metric.applied
    assert (report.metric.name, applied.value, applied.test_value, applied.examples) == ("exact_match", 0.5, 0.25, 6)
    assert applied.loss == report.measured_loss
    assert applied.test_loss is not None
    assert report.metric.before is not None
    assert report.metric.before.value == 0.5
    assert (report.metric.all_tasks, report.metric.target_only) == (None, None)
    # The run is one of `verify`, and so is its metric.
    _verify(chained, runs=2, seeds=1)
    again, events = _verify(chained)
    assert {(run.subset, run.metric) for run in again.runs} == {(s, 0.5) for s in [("alpha",), ("alpha", "beta"), ()]}
    assert not _notes(events, "curator repeats")


def test_apply_other_metric_of_kept_adapter_measures_without_training(chained: Path) -> None:
    project = curator.Project.open(chained)
    project.select(include=["alpha"], exclude=["beta"])
    first = project.apply(metric="loss")
    events: list[Event] = []
    later = curator.Project.open(chained, reporter=Reporter(events.append))
    done = later.apply()
    assert done.cached
    assert not [e for e in events if isinstance(e, StageStarted) and e.stage == "apply"]
    assert first.metric is not None
    assert done.metric is not None
    assert (first.metric.applied.value, done.metric.applied.value) == (first.measured_loss, 0.5)
    assert done.metric.applied.loss == first.measured_loss
    assert later.apply().metric == done.metric
    # The value also completes the run of `verify` on that subset.
    report, events = _verify(chained, runs=1, seeds=1)
    assert [run.metric for run in report.runs] == [0.5, 0.5]
    assert not _notes(events, "have no value")


def test_apply_output_names_every_model_and_its_metric(chained: Path) -> None:
    run_cli("select", "-p", str(chained), "-q")
    done = run_cli("apply", "-p", str(chained), str(chained / "curator-manifest.json"))
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["exact_match", "runs", "metric", "±", "loss", "test", "metric", "test", "loss"] in lines
    assert [line[2:5] for line in lines if line[:2] == ["this", "adapter"]] == [["1", "0.5000", "0.2041"]]
    assert [line[2:5] for line in lines if line[:2] == ["before", "training"]] == [["0", "0.5000", "0.2041"]]
    assert "means over" not in done.out
    done = run_cli("verify", "-p", str(chained), "--runs", "2", "--seeds", "2")
    assert "exact_match, higher is better, on the held-out rows" in done.out
    assert "rank correlation with loss" in done.out
    assert "flattery of the choice" in done.out
    assert "(before training)" in done.out
    # One run stands next to means of two, and the table says so.
    done = run_cli("apply", "-p", str(chained), str(chained / "curator-manifest.json"))
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[2] for line in lines if line[:2] == ["target", "alone"]] == ["2"]
    assert "this adapter is one run with seed 1" in done.out


def test_test_share_is_in_no_gradient_training_or_export(make_project: MakeProject, tmp_path: Path) -> None:
    tasks = {"target": pair_rows("target", 20), "alpha": pair_rows("alpha", 8) + pair_rows("target", 20)[:20]}
    folder = make_project(tasks=tasks, data={"test": 0.25}, train={"epochs": 1})
    project = curator.Project.open(folder)
    corpus = project.corpus(("target",))
    (target,) = corpus.target_tasks
    assert (len(target.split.test), len(target.split.validation), len(target.split.train)) == (5, 6, 9)
    tested = {target.version.index.hashes[n] for n in target.split.test}
    for task in corpus.tasks:
        version, numbers = task.held_out("validation")
        assert not tested & {task.version.index.hashes[n] for n in task.split.train}
        assert not tested & {version.index.hashes[n] for n in numbers}
    checked = {task.name: task for task in project.check().tasks}
    assert (checked["target"].test, checked["alpha"].test) == (5, 0)
    assert checked["alpha"].left_out["also in the target's test part"] == 5
    project.select()
    table = project.sql("SELECT split, count(*) AS n FROM examples WHERE task = 'target' GROUP BY ALL ORDER BY ALL")
    assert {row["split"]: row["n"] for row in table.rows()} == {"test": 5, "train": 9, "validation": 6}
    project.export(folder / "curator-manifest.json", output=tmp_path / "export")
    written = "".join(path.read_text() for path in (tmp_path / "export").rglob("*.jsonl"))
    prompts = {row["prompt"] for row in tasks["target"]}
    assert sum(json.dumps(prompt)[1:-1] in written for prompt in prompts) == 15
    report = project.apply()
    assert report.metric is not None
    assert report.metric.applied.test_loss is not None
    assert report.metric.before is not None
    assert report.metric.before.test_loss is not None


def test_verify_compare_shows_metric_and_test_part_of_each_method(chained: Path) -> None:
    done = run_cli("verify", "-p", str(chained), "--compare", "--seeds", "1", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    losses = {tuple(run["subset"]): run["test_loss"] for run in document["runs"]}
    assert document["comparison"]
    for method in document["comparison"]:
        assert (method["metric"], method["test_metric"]) == (0.5, 0.25)
        assert method["test_loss"] == losses[tuple(method["selected"])]
