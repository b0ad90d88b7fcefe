"""Dropped examples as part of a selection: estimate, manifest, export, verify and apply, on a tiny project."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import pair_rows
from hostile import run_cli
from manifests import rows_of

import curator
from curator.core.errors import ConfigError, DataError
from curator.data.corpus import training_examples
from curator.data.dropped import Dropped, lines_of, without
from curator.data.left_out import DROPPED
from curator.export import FORMATS
from curator.select.manifest import read_manifest

MakeProject = Callable[..., Path]
Named = list[tuple[str, str]]


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """Make a project whose task `alpha` holds one row twice."""
    tasks = {"target": pair_rows("target", 12)} | {t: pair_rows(t, 8) for t in ("alpha", "beta", "gamma")}
    tasks["alpha"].append(tasks["alpha"][2])
    return make_project(tasks=tasks, estimate={"method": "trajectory"}, gradients={"projection_dim": 16})


def _hashes(folder: Path, task: str, *rows: int) -> Named:
    corpus = curator.Project.open(folder).corpus(("target",))
    index = {t.name: t for t in corpus.tasks}[task].version.index.hashes
    return [(task, index[row]) for row in rows]


def _file(folder: Path, named: Named) -> Path:
    path = folder / "dropped.jsonl"
    path.write_text(lines_of(named), encoding="utf-8")
    return path


def test_select_dropped_examples_are_in_the_manifest_with_their_places(folder: Path) -> None:
    named = _hashes(folder, "alpha", 2) + _hashes(folder, "beta", 0)
    project = curator.Project.open(folder)
    result = project.select(include=["alpha", "beta"], drop_examples=_file(folder, named))
    manifest = read_manifest(folder / "curator-manifest.json")
    # Row 8 of alpha is a copy of row 2.
    assert [(row.task, row.number, row.place) for row in manifest.dropped_examples] == [
        ("alpha", 2, "alpha.jsonl:3"),
        ("alpha", 8, "alpha.jsonl:9"),
        ("beta", 0, "beta.jsonl:1"),
    ]
    assert {(row.task, row.sha256) for row in manifest.dropped_examples} == set(named)
    tasks = {task.name: task for task in manifest.tasks}
    assert (tasks["alpha"].examples, tasks["beta"].examples, tasks["gamma"].examples) == (7, 7, 8)
    assert tasks["alpha"].left_out[DROPPED] == (2, 8)
    assert result.to_json()["dropped_examples"][0]["sha256"] == named[0][1]
    assert set(result.reference) == {"all_tasks", "target_only", "with_dropped"}
    whole = project.estimate_all([result.selected, ["alpha", "beta", "gamma"]]).estimates
    assert result.reference["with_dropped"] == whole[0].estimated_loss != result.estimated_loss
    assert result.reference["all_tasks"] == whole[1].estimated_loss
    assert project.estimate(result.selected, drop_examples=named).estimated_loss == result.estimated_loss


def test_select_same_dropped_examples_in_any_order_give_same_manifest(folder: Path, tmp_path: Path) -> None:
    named = _hashes(folder, "alpha", 1, 5) + _hashes(folder, "gamma", 3)
    project = curator.Project.open(folder)
    project.select(drop_examples=named)
    first = (folder / "curator-manifest.json").read_bytes()
    assert project.select(drop_examples=_file(folder, named[::-1])).cached
    assert (folder / "curator-manifest.json").read_bytes() == first
    assert not project.select().cached
    assert read_manifest(folder / "curator-manifest.json").dropped_examples == ()


@pytest.mark.parametrize(
    ("lines", "words", "kind"),
    [
        ('{"task": "missing", "sha256": "0"}', ":1: unknown task: 'missing'", ConfigError),
        ('{"task": "target", "sha256": "0"}', ":1: cannot drop an example of the target 'target'", ConfigError),
        ('{"task": "alpha", "sha256": "0"}', ":1: no training example of task 'alpha' has the hash '0'", ConfigError),
        ('{"task": "alpha"}', ":1: not an object with texts `task` and `sha256`", DataError),
        ("[1]", ":1: not an object with texts `task` and `sha256`", DataError),
        ("task\n", ":1: not valid JSON", DataError),
        ("\x1b\n", ":1: not valid JSON", DataError),
    ],
)
def test_select_drop_file_with_wrong_line_names_the_line(
    folder: Path, lines: str, words: str, kind: type[Exception]
) -> None:
    path = folder / "wrong.jsonl"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(kind, match="wrong") as found:
        curator.Project.open(folder)._dropped(path, ("target",))
    assert words in str(found.value)


def test_select_drop_file_with_repeated_line_names_both_lines(folder: Path) -> None:
    path = _file(folder, _hashes(folder, "alpha", 1, 3, 1))
    with pytest.raises(ConfigError, match="named twice") as found:
        curator.Project.open(folder)._dropped(path, ("target",))
    assert ":3: " in str(found.value)
    assert str(found.value).endswith("as on line 1")


def test_select_drop_file_missing_or_empty_is_handled(folder: Path) -> None:
    project = curator.Project.open(folder)
    with pytest.raises(DataError, match="cannot read"):
        project._dropped(folder / "nothing.jsonl", ("target",))
    (folder / "empty.jsonl").write_text("\n", encoding="utf-8")
    assert not project._dropped(folder / "empty.jsonl", ("target",))


def test_drop_examples_with_quadratic_estimator_is_refused(make_project: MakeProject) -> None:
    folder = make_project()
    with pytest.raises(ConfigError, match="need the trajectory estimator"):
        curator.Project.open(folder).select(drop_examples=_hashes(folder, "alpha", 0))


def test_dropped_examples_change_the_key_of_measured_runs(folder: Path) -> None:
    from curator.training.fine_tune import subset_content

    corpus = curator.Project.open(folder).corpus(("target",))
    less = without(corpus, Dropped.of(_hashes(folder, "alpha", 0)))
    before, after = subset_content(corpus, ("alpha", "beta")), subset_content(less, ("alpha", "beta"))
    assert before["alpha"] != after["alpha"]
    assert before["beta"] == after["beta"]
    tasks = {task.name: task for task in less.tasks}
    store = curator.Project.open(folder).store
    assert len(training_examples(tasks["alpha"], store)) == 8
    # The same rows in another file have the same content, so their runs are shared.
    path = folder / "tasks" / "alpha.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    changed = curator.Project.open(folder).corpus(("target",))
    assert subset_content(changed, ("alpha",)) == subset_content(less, ("alpha",))


@pytest.mark.parametrize("format", FORMATS)
def test_export_leaves_out_dropped_rows_in_every_format(folder: Path, tmp_path: Path, format: str) -> None:
    named = _hashes(folder, "alpha", 2) + _hashes(folder, "beta", 0, 1, 2)
    curator.Project.open(folder).select(include=["alpha", "beta"], exclude=["gamma"], drop_examples=named)
    report = curator.Project.open(folder).export("curator-manifest.json", format=format, output=tmp_path / format)
    rows = {task.name: task.rows for task in report.tasks}
    assert (rows["alpha"], rows["beta"]) == (7, 5)
    assert "alpha: 2 rows are dropped from the selection" in report.notes
    exported = read_manifest(tmp_path / format / "curator-manifest.json")
    assert [row.number for row in exported.dropped_examples] == [2, 8, 0, 1, 2]
    if format == "jsonl":
        texts = [json.dumps(row) for row in rows_of(tmp_path / format / "beta.jsonl")]
        source = (folder / "tasks" / "beta.jsonl").read_text(encoding="utf-8").splitlines()
        assert texts == [json.dumps(json.loads(line)) for line in source[3:]]


def test_export_changed_file_drops_rows_by_hash(folder: Path, tmp_path: Path) -> None:
    named = _hashes(folder, "beta", 5)
    curator.Project.open(folder).select(include=["beta"], drop_examples=named)
    path = folder / "tasks" / "beta.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[5], *lines[:5], *lines[6:]]), encoding="utf-8")
    curator.Project.open(folder).export("curator-manifest.json", output=tmp_path / "out", allow_changed=True)
    assert lines[5] not in (tmp_path / "out" / "beta.jsonl").read_text(encoding="utf-8")


def test_manifest_dropped_rows_that_differ_from_left_out_are_refused(folder: Path) -> None:
    curator.Project.open(folder).select(include=["beta"], drop_examples=_hashes(folder, "beta", 5))
    path = folder / "curator-manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["dropped_examples"] = []
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="`dropped_examples` and the rows"):
        read_manifest(path)


def test_apply_trains_without_dropped_rows_and_keeps_the_loss(folder: Path) -> None:
    named = _hashes(folder, "alpha", 2)
    project = curator.Project.open(folder)
    project.select(include=["alpha"], exclude=["beta", "gamma"], drop_examples=named)
    less = project.apply()
    assert {task.name: task.examples for task in less.tasks}["alpha"] == 7
    assert read_manifest(folder / "curator-manifest.json").measured_loss == less.measured_loss
    assert project.select(include=["alpha"], exclude=["beta", "gamma"], drop_examples=named).measured_loss == (
        less.measured_loss
    )
    project.select(include=["alpha"], exclude=["beta", "gamma"])
    more = project.apply()
    assert {task.name: task.examples for task in more.tasks}["alpha"] == 9
    assert more.measured_loss != less.measured_loss
    project = curator.Project.open(folder)
    assert project.estimate(["alpha"]).measured_loss == more.measured_loss
    assert project.estimate(["alpha"], drop_examples=named).measured_loss == less.measured_loss


def test_verify_measures_the_selection_with_and_without_dropped_rows(folder: Path) -> None:
    named = _hashes(folder, "alpha", 2)
    project = curator.Project.open(folder)
    project.select(include=["alpha"], exclude=["beta", "gamma"], drop_examples=named)
    found = project.verify(runs=1, seeds=2).dropping
    assert found is not None
    assert (found.subset, found.dropped_examples) == (("alpha",), 2)
    assert len(found.measured_losses) == len(found.measured_losses_with_dropped) == 2
    assert found.measured_difference == pytest.approx(
        sum(found.measured_losses) / 2 - sum(found.measured_losses_with_dropped) / 2, abs=2e-6
    )
    assert found.measured_noise is not None
    again = curator.Project.open(folder).verify(seeds=2).dropping
    assert again == found


def test_verify_metric_is_measured_with_and_without_dropped_rows(folder: Path) -> None:
    project = curator.Project.open(folder)
    project.select(include=["alpha"], exclude=["beta", "gamma"], drop_examples=_hashes(folder, "alpha", 2))
    report = project.verify(runs=1, seeds=2, metric="exact_match")
    found = report.dropping
    assert found is not None
    assert found.metric is not None
    values = [run.metric for run in report.runs if run.subset == ("alpha",)]
    assert found.metric_with_dropped == pytest.approx(sum(values) / 2, abs=1e-6)  # type: ignore[arg-type]
    assert curator.Project.open(folder).verify(seeds=2, metric="exact_match").dropping == found


def test_curve_datasets_and_dry_run_leave_dropped_rows_out(folder: Path) -> None:
    named = _hashes(folder, "alpha", 2)
    file = _file(folder, named)
    plan = run_cli("select", "-p", folder, "--include", "alpha", "--drop-examples", file, "--dry-run", "--json").check(
        0
    )
    assert [stage["stage"] for stage in json.loads(plan.out)["stages"]][:2] == ["train", "gradients"]
    assert not (folder / "curator-manifest.json").exists()
    project = curator.Project.open(folder)
    project.select(include=["alpha"], exclude=["beta", "gamma"], drop_examples=named)
    kept = next(point for point in project.curve().points if point.subset == ("alpha",))
    less = project.estimate(["alpha"], drop_examples=named)
    assert kept.estimated_loss == pytest.approx(less.estimated_loss, abs=2e-6)
    rows = project.to_datasets(folder / "curator-manifest.json")["train"]
    assert sum(task == "alpha" for task in rows["task"]) == 7
    project.select(include=["alpha"], exclude=["beta", "gamma"])
    more = next(point for point in project.curve().points if point.subset == ("alpha",))
    # Two of the nine rows of alpha are dropped.
    assert kept.tokens < more.tokens
    assert more.estimated_loss == pytest.approx(project.estimate(["alpha"]).estimated_loss, abs=2e-6)
    assert sum(task == "alpha" for task in project.to_datasets(folder / "curator-manifest.json")["train"]["task"]) == 9


def test_examples_drop_harmful_writes_lines_that_select_reads(folder: Path) -> None:
    curator.Project.open(folder).select()
    worst = curator.Project.open(folder).examples("beta").most_harmful(3)
    out = folder / "drop.jsonl"
    outcome = run_cli("examples", "-p", folder, "--drop-harmful", "3", "--of", "beta", "-o", out)
    assert outcome.code == 0, outcome
    assert [tuple(row.values()) for row in rows_of(out)] == [("beta", digest) for digest in worst]
    outcome = run_cli("examples", "-p", folder, "--drop-harmful", "3", "--of", "beta")
    assert outcome.out == out.read_text(encoding="utf-8")
    gains = [example.gain for example in curator.Project.open(folder).examples("beta").examples]
    shown = run_cli("examples", "beta", "-p", folder).check(0).out
    effect = "lower" if sum(gains) > 0 else "raise"
    assert f"beta: {sum(gain > 0 for gain in gains)} of 8 examples lower the loss of target." in shown
    assert f"All 8 together {effect} it by {abs(sum(gains)):.4f} nats" in shown
    outcome = run_cli("select", "-p", folder, "--include", "beta", "--drop-examples", out, "--json")
    assert outcome.code == 0, outcome
    assert {row["sha256"] for row in json.loads(outcome.out)["dropped_examples"]} == set(worst)
    assert run_cli("examples", "-p", folder).code == 2
    assert run_cli("examples", "beta", "-p", folder, "-o", out).code == 2


def test_examples_dropped_ones_are_named_and_not_counted(folder: Path) -> None:
    named = _hashes(folder, "alpha", 2)
    project = curator.Project.open(folder)
    project.select(include=["alpha"], drop_examples=named, name="without")
    (stage,) = [stage for stage in project.status().stages if stage.stage == "select"]
    assert (stage.state, stage.detail) == ("done", "without")
    report = project.examples("alpha")
    # Row 9 is a copy of row 3.
    assert sorted(example.row for example in report.examples if example.dropped) == [3, 9]
    kept = [example.gain for example in report.examples if not example.dropped]
    shown = run_cli("examples", "alpha", "-p", str(folder)).check(0).out
    assert shown.startswith(f"alpha: {sum(gain > 0 for gain in kept)} of 7 examples lower the loss")
    assert f"{abs(sum(kept)):.4f} nats" in shown
    assert "The selection drops 2 others." in shown
    assert shown.count("(dropped)") == 2
