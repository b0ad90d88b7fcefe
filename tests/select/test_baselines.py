"""Baselines: against slow references, each on a tiny project, and the comparison of all methods."""

import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import pair_rows, write_rows
from hostile import Outcome, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, get_scheduler

import curator
from curator.cli.selection_commands import METHODS_HELP
from curator.cli.verify_tables import show_verify
from curator.core.config import LoraSection, Method, ModelSection
from curator.core.errors import DataError, NumericalError
from curator.core.events import Event, Note, Reporter, StageFinished, StageStarted
from curator.core.load_config import load_config
from curator.data.corpus import training_examples, validation_examples
from curator.data.tokens import IGNORED, TokenizedExample
from curator.estimate.estimator import CheckpointSums
from curator.estimate.task_sums import ExampleSet, TaskSums
from curator.project.new_project import write_project
from curator.select.baseline_inputs import BaselineInputs, baseline_scores, kmm_weights
from curator.select.baselines import (
    NAMES,
    bm25_scores,
    cosine_scores,
    less_scores,
    match_scores,
    match_weights,
    point_weights,
    random_scores,
)
from curator.select.embeddings import embed, task_embeddings
from curator.select.mixture import MOST
from curator.select.search import Constraints, Scores, select_scored
from curator.training.fine_tune import MeasuredSubset
from curator.training.model import load_model
from curator.training.trainer import measure_losses
from curator.verify.comparison import noise_of_difference
from curator.verify.measure import run_seeds
from curator.workspace.store.measured import Measurement

MakeProject = Callable[..., Path]
ONE = np.ones(1)

# -- the formulas -----------------------------------------------------------------------------------------------------


def test_baseline_names_are_known_to_config_and_help(tmp_path: Path) -> None:
    path = write_project(tmp_path / "p", [], model="m", target="t").path
    for name in NAMES:
        assert name in get_args(Method)
        assert name in METHODS_HELP
        assert name in path.read_text()
    assert load_config(path).select.method == "forward"


def test_random_scores_are_uniform_seeded_and_independent() -> None:
    names = [f"task {n}" for n in range(4000)]
    scores = random_scores(names, seed=3)
    assert scores.min() >= 0
    assert scores.max() < 1
    assert np.histogram(scores, 4, (0, 1))[0] / 4000 == pytest.approx(np.full(4, 0.25), abs=0.03)
    assert random_scores(names[::-1], seed=3).tolist() == scores[::-1].tolist()
    assert random_scores(names[7:9], seed=3).tolist() == scores[7:9].tolist()
    assert abs(np.corrcoef(scores, random_scores(names, seed=4))[0, 1]) < 0.08


def _slow_bm25(tasks: list[list[list[int]]], target: list[list[int]], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """Return Okapi BM25, one query and one document at a time."""
    documents = [document for task in tasks for document in task]
    mean_length = sum(map(len, documents)) / len(documents)

    def score(query: list[int], document: list[int]) -> float:
        total = 0.0
        for word in query:
            holding = sum(word in d for d in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            count = document.count(word)
            total += idf * count * (k1 + 1) / (count + k1 * (1 - b + b * len(document) / mean_length))
        return total

    return [
        float(np.mean([score(query, document) for query in target for document in task])) if task else 0.0
        for task in tasks
    ]


def _arrays(examples: list[list[int]]) -> list[np.ndarray]:
    return [np.array(example, dtype=np.int64) for example in examples]


_DOCUMENT = st.lists(st.integers(0, 9), max_size=6)


@given(
    tasks=st.lists(st.lists(_DOCUMENT, max_size=3), min_size=1, max_size=4),
    # Some words of the target are in no document.
    target=st.lists(st.lists(st.integers(0, 12), max_size=6), min_size=1, max_size=3),
)
def test_bm25_scores_equal_sum_over_single_queries(tasks: list[list[list[int]]], target: list[list[int]]) -> None:
    found = bm25_scores([_arrays(task) for task in tasks], [_arrays(target)], ONE)
    if any(word for task in tasks for word in task):
        np.testing.assert_allclose(found, _slow_bm25(tasks, target), rtol=1e-12, atol=1e-12)
    else:
        assert found.tolist() == [0.0] * len(tasks)


def test_bm25_scores_weigh_targets_by_share_and_rare_words() -> None:
    tasks = [[[1, 1, 2], [2, 3]], [[4, 2], [2, 5]], [[2, 6, 7]]]
    arrays = [_arrays(task) for task in tasks]
    both = bm25_scores(arrays, [_arrays([[1]]), _arrays([[4, 6], [7]])], np.array([0.25, 0.75]))
    expected = 0.25 * np.array(_slow_bm25(tasks, [[1]])) + 0.75 * np.array(_slow_bm25(tasks, [[4, 6], [7]]))
    np.testing.assert_allclose(both, expected)
    # Word 2 is in almost all documents, word 4 in one example only.
    rare = bm25_scores(arrays, [_arrays([[2, 4]])], ONE)
    assert rare.argmax() == 1


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_cosine_scores_equal_cosines_of_vectors() -> None:
    rng = np.random.default_rng(0)
    tasks, targets, shares = rng.normal(size=(5, 7)), rng.normal(size=(2, 7)), np.array([0.3, 0.7])
    found = cosine_scores(tasks, targets, shares)
    expected = [0.3 * _cosine(task, targets[0]) + 0.7 * _cosine(task, targets[1]) for task in tasks]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(cosine_scores(tasks * [[1e-9], [1], [3], [1e9], [2]], 5 * targets, shares), expected)
    assert cosine_scores(np.zeros((1, 7)), targets, shares).tolist() == [0.0]
    assert cosine_scores(np.zeros((0, 7)), targets, shares).shape == (0,)


def test_less_scores_sum_over_points_and_average_over_task() -> None:
    first, second = np.array([0.1, 0.5, -0.2, 0.3]), np.array([0.4, 0.0, 0.2, -0.6])
    found = less_scores([first, second], [3, 0, 1], np.array([0.75, 0.25]))
    whole = 0.75 * first + 0.25 * second
    np.testing.assert_allclose(found, [whole[:3].mean(), 0.0, whole[3]])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_point_weights_equal_mean_learning_rate_of_trainer(schedule: str, warmup: float) -> None:
    steps, shares = 2000, [0.2, 0.25, 0.7, 1.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=round(warmup * steps), num_training_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    ends = [0, *(round(share * steps) for share in shares)]
    means = np.array([np.mean(rates[begin:end]) for begin, end in itertools.pairwise(ends)])
    np.testing.assert_allclose(point_weights(shares, schedule, warmup), means / means.sum(), atol=2e-3)


# -- matching ---------------------------------------------------------------------------------------------------------


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), dim=st.integers(1, 12))
def test_match_scores_are_a_local_optimum(seed: int, count: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    tasks, target = rng.normal(size=(count, dim)) * rng.uniform(0.01, 9, (count, 1)), rng.normal(size=dim)
    s = match_scores(tasks, target)
    assert (s >= 0).all()
    # Karush, Kuhn and Tucker: the gradient is zero at a free weight, and points outwards at a weight of 0.
    kernel = _unit(tasks) @ _unit(tasks).T + 1e-3 * np.eye(count)
    slope = kernel @ s - _unit(tasks) @ _unit(target)
    assert np.abs(slope[s > 0]).max(initial=0) < 1e-9
    assert slope.min() > -1e-9


def test_match_scores_recover_the_tasks_of_a_sum() -> None:
    rng = np.random.default_rng(1)
    tasks = rng.normal(size=(6, 40))
    target = 2.0 * _unit(tasks[1]) + 1.0 * _unit(tasks[4])
    s = match_scores(tasks, target)
    assert s[1] / s[4] == pytest.approx(2.0, rel=0.02)
    assert s[[0, 2, 3, 5]].max() < 0.02 * s[1]
    assert match_scores(-tasks[1:2], target).tolist() == [0.0]
    assert match_scores(np.zeros((2, 40)), target).tolist() == [0.0, 0.0]
    assert match_scores(np.zeros((0, 40)), target).shape == (0,)


def test_match_scores_equal_tasks_share_their_weight() -> None:
    tasks = np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.3], [2.0, 0.4, 0.0]])
    s = match_scores(tasks, np.array([1.0, 0.3, 0.1]))
    assert s[0] == pytest.approx(s[2])


def test_match_weights_give_matched_gradient_in_training() -> None:
    rng = np.random.default_rng(2)
    tasks, sizes, tokens = rng.normal(size=(3, 5)), np.array([10.0, 400.0, 55.0]), np.array([80.0, 900.0, 60.0])
    s = np.array([0.1, 2.0, 0.4])
    weights = match_weights(s, tasks, sizes, tokens)
    # Training on all examples sums this, each as often as its task weighs.
    trained = (weights * sizes) @ tasks
    assert _cosine(trained, s @ _unit(tasks)) == pytest.approx(1.0)
    assert weights @ tokens == pytest.approx(tokens.sum())
    # A selected task with score 0 keeps weight 1. The other weights do not depend on it.
    pinned = match_weights(np.array([0.2, 0.0, 0.9]), tasks, sizes, tokens)
    assert pinned[1] == 1.0
    assert pinned @ tokens == pytest.approx(tokens.sum())
    assert match_weights(np.zeros(3), tasks, sizes, tokens).tolist() == [1.0, 1.0, 1.0]


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_match_weights_are_bounded_and_keep_total_tokens(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    s, tasks = rng.exponential(size=count) ** 3, rng.normal(size=(count, 4))
    sizes, tokens = rng.integers(1, 1000, count).astype(float), rng.integers(1, 5000, count).astype(float)
    weights = match_weights(s, tasks, sizes, tokens)
    assert weights.max() <= MOST
    assert weights @ tokens == pytest.approx(tokens.sum())
    # The match decides between the tasks below the bound.
    free = weights < MOST
    wanted = s / (np.linalg.norm(tasks, axis=1) * sizes)
    assert np.ptp(weights[free] / wanted[free]) <= 1e-9 * (weights[free] / wanted[free]).max(initial=0.0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_match_scores_order_of_tasks_has_no_effect(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    vectors, target = rng.normal(size=(5, 4)), rng.normal(size=(1, 4))
    words = [[rng.integers(0, 9, rng.integers(0, 6)) for _ in range(rng.integers(0, 4))] for _ in range(5)]
    cosines = [rng.normal(size=n) for n in (1, 4, 0, 2, 3)]
    sizes = [len(c) for c in cosines]
    names = list("abcde")
    first = [
        random_scores(names, 0),
        bm25_scores(words, [words[0]], ONE),
        cosine_scores(vectors, target, ONE),
        less_scores([np.concatenate(cosines)], sizes, ONE),
        match_scores(vectors, target[0]),
    ]
    second = [
        random_scores([names[n] for n in order], 0),
        bm25_scores([words[n] for n in order], [words[0]], ONE),
        cosine_scores(vectors[order], target, ONE),
        less_scores([np.concatenate([cosines[n] for n in order])], [sizes[n] for n in order], ONE),
        match_scores(vectors[order], target[0]),
    ]
    for here, there in zip(first, second, strict=True):
        np.testing.assert_allclose(here[order], there, rtol=1e-9, atol=1e-9)


# -- selecting by scores ----------------------------------------------------------------------------------------------


class _Adding:
    """An estimator with additive effects."""

    validation_weights = np.full(2, 0.5)

    def __init__(self, count: int) -> None:
        self.task_count = count

    def validation_losses(self, masks: np.ndarray) -> np.ndarray:
        return np.repeat(5.0 - 0.1 * masks.sum(axis=1, keepdims=True), 2, axis=1)

    def losses_and_readings(self, masks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.validation_losses(masks), np.zeros((len(masks), 0))

    def reading_noise(self, readings: np.ndarray) -> np.ndarray:
        return np.zeros(readings.shape[:-1])


@settings(max_examples=100)
@given(data=st.data(), count=st.integers(1, 7))
def test_select_scored_keeps_limits_and_uses_budget(data: st.DataObject, count: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    values, tokens, examples = rng.normal(size=count), rng.integers(1, 9, count) * 10, rng.integers(1, 9, count)
    pins = data.draw(st.lists(st.sampled_from(["free", "in", "out"]), min_size=count, max_size=count))
    include = frozenset(t for t, pin in enumerate(pins) if pin == "in")
    constraints = Constraints(
        tokens=tokens,
        examples=examples,
        include=include,
        exclude=frozenset(t for t, pin in enumerate(pins) if pin == "out"),
        k=data.draw(st.none() | st.integers(len(include), count)),
        max_tokens=data.draw(st.none() | st.integers(sum(int(tokens[t]) for t in include), int(tokens.sum()) + 10)),
        max_examples=data.draw(
            st.none() | st.integers(sum(int(examples[t]) for t in include), int(examples.sum()) + 5)
        ),
        threshold=data.draw(st.none() | st.floats(-1, 1)),
    )
    scores = Scores(values, cutoff=0.1, least=data.draw(st.sampled_from([-np.inf, 0.0])))
    found = select_scored(_Adding(count), constraints, scores)
    assert constraints.allows(found.mask)
    assert found.mask[list(include)].all()
    assert not found.mask[list(constraints.exclude)].any()
    assert found.loss == pytest.approx(5 - 0.1 * found.mask.sum())
    limited = (constraints.k, constraints.max_tokens, constraints.max_examples) != (None, None, None)
    least = constraints.threshold if constraints.threshold is not None else -np.inf if limited else 0.1
    chosen = [t for t in constraints.free() if found.mask[t]]
    assert all(values[t] > max(least, scores.least) for t in chosen)
    # Best first: a good task that is out did not fit together with all better tasks.
    assert [step.tasks[0] for step in found.steps] == sorted(chosen, key=lambda t: -values[t])
    for out in [t for t in constraints.free() if not found.mask[t] and values[t] > max(least, scores.least)]:
        better = constraints.start(full=False)
        better[[t for t in chosen if values[t] > values[out]] + [out]] = True
        assert not constraints.allows(better)


# -- embeddings -------------------------------------------------------------------------------------------------------


def _by_hand(folder: Path, example: TokenizedExample, *, encoder_decoder: bool) -> np.ndarray:
    """Return the mean last hidden state of one example by the base model, as transformers loads it."""
    auto = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    model = auto.from_pretrained(folder).eval()
    ids = torch.tensor([list(example.input_ids)])
    with torch.no_grad():
        if encoder_decoder:
            states = model.get_encoder()(input_ids=ids).last_hidden_state
        else:
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    return states[0].double().mean(dim=0).numpy()


@pytest.mark.parametrize("name", ["tiny_llama_folder", "tiny_gpt2_folder", "tiny_t5_folder"])
def test_embed_batch_equals_base_model_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    tuned = load_model(folder, ModelSection(name_or_path=str(folder)), LoraSection(r=2, dropout=0.5))
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    rng = np.random.default_rng(0)
    examples = []
    for length in (3, 17, 5, 11, 1):
        ids = rng.integers(3, 300, length).tolist()
        labels = [4, 5, 2] if tuned.encoder_decoder else ids
        examples.append(TokenizedExample(ids, labels))
    before = measure_losses(tuned, examples[:2], batch_tokens=36)
    tuned.model.train()
    found = embed(tuned, examples, batch_tokens=36)
    expected = np.stack([_by_hand(folder, e, encoder_decoder=tuned.encoder_decoder) for e in examples])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # The adapter is on again and can be trained.
    np.testing.assert_array_equal(measure_losses(tuned, examples[:2], batch_tokens=36), before)
    assert {name for name, p in tuned.model.named_parameters() if p.requires_grad} == set(tuned.layout.shapes)
    assert embed(tuned, [], batch_tokens=36).shape == (0, 0)


def test_embed_model_without_hidden_states_raises_error(
    tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaModel

    tuned = load_model(tiny_llama_folder, ModelSection(name_or_path="m"), LoraSection(r=2))
    monkeypatch.setattr(LlamaModel, "forward", lambda *_, **__: object())
    with pytest.raises(DataError, match="LlamaForCausalLM has no hidden states"):
        embed(tuned, [TokenizedExample([3, 4], [3, 4])], batch_tokens=8)


# -- a project --------------------------------------------------------------------------------------------------------


def _open(folder: Path, events: list[Event] | None = None) -> curator.Project:
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _started(events: list[Event]) -> list[str]:
    return [event.stage for event in events if isinstance(event, StageStarted)]


def _inputs(project: curator.Project, *targets: str) -> BaselineInputs:
    targets = targets or ("target",)
    corpus = project.corpus(targets)
    return BaselineInputs(
        workspace=project.workspace,
        corpus=corpus,
        points=project.estimates(targets).points,
        embeddings=lambda: task_embeddings(project.workspace, corpus, project._pipeline.load),
    )


def _scores(project: curator.Project, method: str, *targets: str) -> dict[str, float]:
    inputs = _inputs(project, *targets)
    tasks = inputs.corpus.auxiliary
    found = baseline_scores(method, inputs, np.ones(len(tasks), dtype=bool))
    return dict(zip((task.name for task in tasks), found.values.tolist(), strict=True))


_made: dict[str, Path] = {}


@pytest.fixture
def ready(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project of five tasks of different sizes, with gradients."""
    if not _made:
        tasks = {"target": pair_rows("target", 12)}
        tasks |= {name: pair_rows(name, 5 + 2 * n) for n, name in enumerate(("alpha", "beta", "gamma", "delta", "eps"))}
        folder = make_project("made", tasks=tasks, project={"name": "p"}, train={"learning_rate": 1e-2})
        _open(folder).gradients()
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p"))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p"))


def _run(folder: Path, *arguments: str) -> Outcome:
    return run_cli(*arguments, "-p", folder).check(0)


@pytest.mark.parametrize("method", NAMES)
def test_select_by_every_baseline_writes_manifest(ready: Path, method: str) -> None:
    project = _open(ready)
    result = project.select(method=method)
    scores = _scores(project, method)
    least = {"random": 0.5, "kmm": 0.0}.get(method, float(np.mean(list(scores.values()))))
    assert result.selected == [name for name, score in scores.items() if score > least]
    manifest = json.loads((ready / "curator-manifest.json").read_text())
    assert manifest["method"] == manifest["name"] == method
    weights = {task["name"]: task["weight"] for task in manifest["tasks"]}
    if method == "kmm":
        tokens = {task.name: task.tokens for task in result.tasks}
        total = sum(weights[name] * tokens[name] for name in result.selected)
        assert total == pytest.approx(sum(tokens[name] for name in result.selected), rel=1e-4)
        assert all(weights[name] > 0 for name in result.selected)
        answers = project.estimates(("target",))
        by_number = np.array([weights[task.name] * (task.name in result.selected) for task in answers.tasks])
        assert answers.estimator.weighted(by_number)[0] == pytest.approx(result.estimated_loss, abs=1e-5)
    else:
        assert set(weights.values()) == {1.0}
        assert project.estimate(result.selected).estimated_loss == result.estimated_loss
    assert project.select(method=method).cached
    # Limits: the best tasks that fit, with the pins.
    tokens = {task.name: task.tokens for task in result.tasks}
    best = max(scores, key=lambda name: scores[name])
    worst = min(scores, key=lambda name: scores[name])
    assert project.select(method=method, k=1).selected == [best]
    assert project.select(method=method, k=1, include=[worst]).selected == [worst]
    assert best not in project.select(method=method, exclude=[best]).selected
    cheap = project.select(method=method, max_tokens=tokens[best])
    assert sum(tokens[name] for name in cheap.selected) <= tokens[best]
    assert best in cheap.selected
    assert len(project.select(method=method, max_examples=12).selected) < 5
    above = sorted(scores.values())[-2]
    assert project.select(method=method, threshold=above).selected == [best]


def test_baseline_scores_equal_formulas(ready: Path) -> None:
    project = _open(ready)
    inputs = _inputs(project)
    store, corpus = project.store, inputs.corpus
    (target,) = corpus.target_tasks
    held_out = validation_examples(target, store)
    everything = training_examples(target, store) + held_out
    words = [[list(e.input_ids) for e in training_examples(task, store)] for task in corpus.auxiliary]
    bm25 = _slow_bm25(words, [list(e.input_ids) for e in everything])
    assert list(_scores(project, "bm25").values()) == pytest.approx(bm25)

    def mean(examples: list[TokenizedExample]) -> np.ndarray:
        return np.mean([_by_hand(ready / "model", e, encoder_decoder=False) for e in examples], axis=0)

    cosines = [_cosine(mean(training_examples(task, store)), mean(everything)) for task in corpus.auxiliary]
    assert list(_scores(project, "embedding").values()) == pytest.approx(cosines, abs=1e-5)

    weights = point_weights([point.share for point in inputs.points], "linear", 0.0)
    by_mean, by_example = np.zeros(5), np.zeros(5)
    for point, weight in zip(inputs.points, weights, strict=True):
        slope = point.validation.gradients.mean(axis=0)
        for number, task in enumerate(point.read(range(5))):
            weighted = (task.weights[:, None] * task.gradients).sum(axis=0) / task.weights.sum()
            by_mean[number] += _cosine(weighted, slope) / len(inputs.points)
            by_example[number] += weight * np.mean([_cosine(gradient, slope) for gradient in task.gradients])
    assert list(_scores(project, "gradient-cosine").values()) == pytest.approx(by_mean.tolist(), abs=1e-6)
    assert list(_scores(project, "less").values()) == pytest.approx(by_example.tolist(), abs=1e-6)


def test_kmm_excluded_task_does_not_affect_match(ready: Path) -> None:
    project = _open(ready)
    best = max(scores := _scores(project, "kmm"), key=lambda name: scores[name])
    inputs = _inputs(project)
    allowed = np.array([task.name != best for task in inputs.corpus.auxiliary])
    found = baseline_scores("kmm", inputs, allowed).values
    tasks, target = inputs.joined_gradients()
    np.testing.assert_allclose(found[allowed], match_scores(tasks[allowed], target))
    assert found[~allowed].tolist() == [0.0]
    assert kmm_weights(inputs, allowed)[~allowed].tolist() == [0.0]


def test_joined_gradients_are_token_means_in_units_of_target() -> None:
    rng = np.random.default_rng(3)

    def drawn(count: int, weights: np.ndarray) -> ExampleSet:
        return ExampleSet(losses=np.ones(count), gradients=rng.normal(size=(count, 4)), weights=weights)

    points = []
    for share in (0.5, 1.0):
        tasks = [drawn(3, np.array([1.0, 7.0, 2.0])), drawn(2, np.array([30.0, 10.0])), drawn(1, np.ones(1))]
        held_out = drawn(2, np.array([0.25, 0.75]))
        points.append((CheckpointSums(share=share, sums=TaskSums.of(tasks), validation=held_out, read=list), tasks))
    nothing: Any = None
    inputs = BaselineInputs(
        workspace=nothing, corpus=nothing, points=[point for point, _ in points], embeddings=nothing
    )
    found, target = inputs.joined_gradients()
    for number, (point, tasks) in enumerate(points):
        part = slice(4 * number, 4 * number + 4)
        slope = 0.25 * point.validation.gradients[0] + 0.75 * point.validation.gradients[1]
        length = np.linalg.norm(slope)
        np.testing.assert_allclose(target[part], slope / length)
        # The last set is the target's own training set, which is not a candidate.
        for row, task in zip(found, tasks[:-1], strict=True):
            np.testing.assert_allclose(row[part], np.average(task.gradients, axis=0, weights=task.weights) / length)


def test_kmm_weights_match_target_gradient_in_training(ready: Path) -> None:
    inputs = _inputs(_open(ready))
    for selected in (np.array([True, True, False, True, False]), np.ones(5, dtype=bool)):
        trained, wanted = [], []
        weights = kmm_weights(inputs, selected)
        tasks, target = inputs.joined_gradients()
        scores = match_scores(tasks[selected], target)
        for point in inputs.points:
            # Sum over training examples, each weighed by its tokens and its task's weight, without tasks of score 0.
            needed = [t for t, score in zip(np.flatnonzero(selected), scores, strict=True) if score > 0]
            slope = point.validation.gradients.mean(axis=0)
            sums = [weights[t] * e.weights @ e.gradients for t, e in zip(needed, point.read(needed), strict=True)]
            trained.append(np.sum(sums, axis=0) / np.linalg.norm(slope))
            wanted.append(slope / np.linalg.norm(slope))
        matched = scores @ _unit(tasks[selected])
        assert _cosine(np.concatenate(trained), matched) == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(target, np.concatenate(wanted))


@pytest.mark.parametrize("method", ["embedding", "bm25", "gradient-cosine", "less"])
def test_baseline_scores_several_targets_count_by_their_shares(ready: Path, method: str) -> None:
    path = ready / "curator.toml"
    path.write_text(path.read_text().replace("[data]", "[data]\ntarget_weights = { alpha = 3.0 }"))
    project = _open(ready)
    both = _inputs(project, "target", "alpha")
    assert both.shares.tolist() == [0.25, 0.75]
    alone = [_Only(both, number) for number in (0, 1)]
    every = np.ones(len(both.corpus.auxiliary), dtype=bool)
    one, other = (baseline_scores(method, inputs, every).values for inputs in alone)
    np.testing.assert_allclose(baseline_scores(method, both, every).values, 0.25 * one + 0.75 * other, atol=1e-9)
    assert np.abs(one - other).max() > 1e-6


class _Only(BaselineInputs):
    """Return inputs in which one target has all of the weight."""

    def __init__(self, of: BaselineInputs, number: int) -> None:
        names = ("workspace", "corpus", "points", "embeddings")
        super().__init__(**{name: getattr(of, name) for name in names})
        self.__dict__["shares"] = np.eye(2)[number]


def test_task_embeddings_are_cached_for_known_tasks(ready: Path) -> None:
    events: list[Event] = []
    project = _open(ready, events)
    first = project.select(method="embedding")
    assert "embedding" in _started(events)
    events.clear()
    project.select(method="embedding", fresh=False, k=2)
    assert "embedding" not in _started(events)
    write_rows(ready / "tasks" / "zeta.jsonl", pair_rows("zeta", 4))
    more = _open(ready, events)
    more.select(method="embedding")
    (begun,) = [e for e in events if isinstance(e, StageStarted) and e.stage == "embedding"]
    assert begun.total == 4
    assert first.selected


def test_make_embeddings_interrupted_keeps_finished_tasks(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import curator.select.embeddings

    real, calls = curator.select.embeddings.embed, Counter[str]()

    def broken(*arguments: Any, **options: Any) -> np.ndarray:
        calls["all"] += 1
        found = real(*arguments, **options)
        return np.full_like(found, np.nan) if calls["all"] == 3 else found

    monkeypatch.setattr(curator.select.embeddings, "embed", broken)
    project = _open(ready)
    with pytest.raises(NumericalError, match="hidden states of task '"):
        project.select(method="embedding")
    calls["all"] = 10
    project.select(method="embedding")
    assert calls["all"] == 10 + 4


def test_select_by_all_baselines_on_encoder_decoder_works(make_project: MakeProject, tiny_t5_folder: Path) -> None:
    project = _open(make_project(model=tiny_t5_folder))
    for method in NAMES:
        scores = _scores(project, method)
        assert np.isfinite(list(scores.values())).all()
        assert len(project.select(method=method, k=2).selected) == 2 or method == "kmm"
    # The decoder's tokens count too.
    inputs = _inputs(project)
    words = [
        [
            [*e.input_ids, *(label for label in e.labels if label != IGNORED)]
            for e in training_examples(t, project.store)
        ]
        for t in inputs.corpus.auxiliary
    ]
    (target,) = inputs.corpus.target_tasks
    examples = training_examples(target, project.store) + validation_examples(target, project.store)
    queries = [[*e.input_ids, *e.labels] for e in examples]
    assert list(_scores(project, "bm25").values()) == pytest.approx(_slow_bm25(words, queries))


def test_select_by_all_baselines_with_logistic_estimator_works(make_project: MakeProject) -> None:
    project = _open(make_project(estimate={"method": "logistic"}))
    for method in NAMES:
        assert np.isfinite(project.select(method=method).estimated_loss)


# -- the comparison ---------------------------------------------------------------------------------------------------


def _subset(name: str, *losses: float) -> MeasuredSubset:
    now = datetime.now(UTC)
    runs = [Measurement(subset={name: "x"}, seed=n, loss=loss, seconds=1, made=now) for n, loss in enumerate(losses)]
    return MeasuredSubset(frozenset([name]), tuple(runs))


def test_noise_of_difference_covers_nine_in_ten_differences() -> None:
    one, two = _subset("a", 1.0, 1.2), _subset("b", 2.0, 2.2, 2.1)
    expected = student.ppf(0.95, 3) * 0.05 * math.sqrt(1.1**2 / 2 + 2.1**2 / 3)
    assert noise_of_difference(one, two, 0.05, 3) == pytest.approx(expected)
    # Two seeds of six subsets that differ by noise only.
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        losses = 1 + 0.02 * rng.standard_normal((6, 2))
        spread = math.sqrt((np.diff(losses, axis=1) ** 2 / 2).sum() / 6)
        pair = [_subset(str(n), *row) for n, row in enumerate(losses[:2].tolist())]
        inside.append(abs(pair[0].mean - pair[1].mean) <= noise_of_difference(*pair, spread, 6))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_verify_compare_runs_all_methods_at_same_budget(ready: Path) -> None:
    project = _open(ready)
    chosen = project.select(method="exchange", include=["gamma"], exclude=["delta"], k=2, max_tokens=300)
    tokens = {task.name: task.tokens for task in chosen.tasks}
    budget = sum(tokens[name] for name in chosen.selected)
    report = json.loads(_run(ready, "verify", "--compare", "--seeds", "2", "--json").out)
    rows = report["comparison"]
    assert [row["method"] for row in rows] == ["exchange", "forward", "ensemble", *NAMES]
    assert rows[0]["selected"] == chosen.selected
    runs = {(tuple(run["subset"]), run["seed"]): run["measured_loss"] for run in report["runs"]}
    assert {subset for subset, _ in runs} == {tuple(row["selected"]) for row in rows}
    best = min(row["measured_loss"] for row in rows)
    for row in rows:
        assert row["tokens"] == sum(tokens[name] for name in row["selected"]) <= budget
        assert row["tokens_left"] == budget - row["tokens"]
        assert row["measured_losses"] == [runs[tuple(row["selected"]), seed] for seed in run_seeds(project.config, 2)]
        assert row["measured_loss"] == pytest.approx(np.mean(row["measured_losses"]), abs=1e-6)
        assert row["as_good_as_best"] or row["measured_loss"] > best
        assert "gamma" in row["selected"]
        assert "delta" not in row["selected"]
    for row in rows[2:]:
        # A method that uses up its budget leaves out only tasks that do not fit.
        if row["method"] in ("random", "embedding", "bm25", "gradient-cosine", "less"):
            left = [tokens[name] for name in tokens.keys() - {*row["selected"], "delta"}]
            assert min(left, default=budget) > row["tokens_left"]

    # No run is repeated. The same subsets are compared, though they calibrate the estimates now.
    events: list[Event] = []
    again = _open(ready, events).verify(compare=True)
    assert not {"verify", "compare", "embedding"} & set(_started(events))
    assert any(e.stage == "verify" and e.cached for e in events if isinstance(e, StageFinished))
    assert again.comparison is not None
    assert [list(row.selected) for row in again.comparison] == [row["selected"] for row in rows]
    # The current selection has not changed.
    assert project.selections(("target",)).last_names_or_select() == chosen.selected
    assert _open(ready).verify().comparison is None
    table = _run(ready, "verify", "--compare").out
    assert "gradient-cosine" in table
    assert f"{budget:,}" in table
    assert "≈ best" in table
    # A third seed only adds runs.
    events.clear()
    third = _open(ready, events).verify(compare=True, seeds=3)
    assert third.comparison is not None
    assert all(len(row.measured_losses) == 3 for row in third.comparison)
    assert sum(isinstance(e, Note) and e.message.startswith("run ") for e in events) == len(runs) // 2


def test_verify_compare_with_one_seed_reports_no_ranking(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = _open(ready)
    # Two tasks with arbitrary effects.
    project.select(k=2, threshold=-9.0)
    report = project.verify(compare=True, seeds=1)
    assert report.comparison is not None
    losses = {row.selected: row for row in report.comparison}
    best = min(losses.values(), key=lambda row: row.measured_loss)
    assert {row.as_good_as_best for row in losses.values()} == {None, True}
    assert all((row.as_good_as_best is True) == (row.selected == best.selected) for row in losses.values())
    show_verify(report)
    assert "?" in capsys.readouterr().out


def test_verify_compare_empty_selection_has_no_budget(ready: Path) -> None:
    events: list[Event] = []
    project = _open(ready, events)
    project.select(k=0)
    report = project.verify(compare=True, seeds=1)
    assert any(isinstance(e, Note) and "selection is empty" in e.message for e in events)
    assert report.comparison is not None
    assert report.comparison[0].selected == ()
    by_method = {row.method: row for row in report.comparison}
    assert by_method["bm25"].selected == tuple(sorted(project.select(method="bm25").selected))
    assert {row.tokens_left for row in report.comparison} == {None}
