"""The learning rates of estimates are those of the schedules in transformers, without an import of transformers."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from curator.training.meta_init import learning_rates


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (7, 0.0), (40, 0.1), (41, 0.33), (3, 0.9)])
def test_learning_rates_any_schedule_equal_those_of_transformers(schedule: str, steps: int, warmup: float) -> None:
    train: Any = SimpleNamespace(learning_rate=3e-3, schedule=schedule, warmup=warmup)
    config: Any = SimpleNamespace(train=train)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    first = math.ceil(warmup * steps)
    scheduler = get_scheduler(schedule, optimizer, num_warmup_steps=first, num_training_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert learning_rates(config, steps) == pytest.approx(expected)
