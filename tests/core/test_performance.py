"""The waiting policy, the trial of threads, and slow half precision."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import MakeProject

from curator.core.performance import (
    _seconds,
    best_count,
    describe_trial,
    slow_arithmetic,
    thread_counts,
    try_threads,
    user_sets_threads,
    wait_passively,
)

_OPEN = "import os, sys, curator\ncurator.Project.open(sys.argv[1])\n"
_OPEN += "assert 'torch' not in sys.modules\nprint(os.environ.get('OMP_WAIT_POLICY'))"


@pytest.mark.parametrize(
    ("variables", "policy"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"GOMP_SPINCOUNT": "100"}, "None"),
        ({"KMP_BLOCKTIME": "0"}, "None"),
    ],
)
def test_project_open_sets_passive_policy_unless_user_sets_one(
    make_project: MakeProject, variables: dict[str, str], policy: str
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    command = [sys.executable, "-c", _OPEN, str(make_project())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == policy


def test_wait_passively_sets_policy_for_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    wait_passively()
    assert os.environ == {"OMP_WAIT_POLICY": "passive"}


@pytest.mark.parametrize(("variables", "by_user"), [({}, False), ({"OMP_NUM_THREADS": "3"}, True)])
def test_user_sets_threads_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], by_user: bool
) -> None:
    monkeypatch.setattr(os, "environ", variables)
    assert user_sets_threads() is by_user


def test_thread_counts_halve_down_to_one() -> None:
    assert thread_counts(1) == [1]
    assert thread_counts(2) == [2, 1]
    assert thread_counts(12) == [12, 6, 3, 1]


class _Machine:
    """A clock, and steps that take a given time with each number of threads."""

    def __init__(self, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now, self.threads, self.steps = seconds, 0.0, 0, 0
        monkeypatch.setattr("curator.core.performance.time.perf_counter", lambda: self.now)

    def use(self, threads: int) -> None:
        self.threads = threads

    def step(self) -> None:
        self.steps += 1
        self.now += self.seconds[self.threads]

    def tried(self) -> dict[int, float]:
        return try_threads(self.step, sorted(self.seconds, reverse=True), self.use)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({2: 0.10, 1: 0.19}, 2),
        ({2: 0.50, 1: 0.10}, 1),
        # One thread is as good, and leaves a core to others.
        ({2: 0.100, 1: 0.105}, 1),
        ({8: 0.30, 4: 0.10, 2: 0.12, 1: 0.20}, 4),
    ],
)
def test_try_threads_chooses_fastest_number(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int
) -> None:
    tried = _Machine(seconds, monkeypatch).tried()
    assert best_count(tried) == chosen
    assert all(tried[count] == pytest.approx(seconds[count]) for count in tried)


def test_try_threads_much_slower_number_leaves_out_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(_Machine({8: 0.1, 4: 0.19, 2: 0.37, 1: 0.7}, monkeypatch).tried()) == {8, 4}


def test_try_threads_slow_step_has_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _Machine({2: 5.0, 1: 6.0}, monkeypatch)
    machine.tried()
    # One step to warm up, then one of each number.
    assert machine.steps == 3


def test_describe_trial_names_numbers_and_durations() -> None:
    assert describe_trial({2: 0.5, 1: 0.1}, 1) == (
        "threads: 1 of 2 (a training step takes 100 ms with 1, 500 ms with 2). Set OMP_NUM_THREADS to decide."
    )


def test_peak_bytes_grows_with_memory_in_use() -> None:
    code = "from curator.core.performance import peak_bytes as p; a = p(); b = b'x' * 2**28; print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10**6
    assert 2**27 < after - before < 2**30


def test_slow_arithmetic_slow_dtype_returns_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: 3.0, torch.float16: 20.0}
    cpu = torch.device("cpu")
    with monkeypatch.context() as patched:
        patched.setattr("curator.core.performance._seconds", seconds.__getitem__)
        assert slow_arithmetic(cpu, torch.float32) is None
        assert slow_arithmetic(cpu, torch.bfloat16) is None
        words = slow_arithmetic(cpu, torch.float16)
        assert words is not None
        assert words.startswith("this CPU takes 20 times as long in float16 as in float32")
        assert slow_arithmetic(torch.device("cuda"), torch.float16) is None
    # Without the patch, durations are measured.
    assert _seconds(torch.bfloat16) > 0
