"""Sampling speed: what is timed, and that a disturbed measurement says so."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from genbench import throughput
from genbench.budget import Meter
from genbench.throughput import sampling_throughput


class Sleeper(nn.Module):
    """Takes as long as it is told, on a clock of its own."""

    def __init__(self):
        super().__init__()
        self.now, self.asked = 0.0, []

    def sample(self, n, labels=None):
        self.asked.append((n, None if labels is None else labels.tolist(), self.training, torch.is_inference_mode_enabled()))
        self.now += 0.01 * n if len(self.asked) % 10 else 0.04 * n  # every tenth call is slow
        return torch.zeros(n, 1, 2, 2)


def measure(monkeypatch, model, sizes, **options):
    monkeypatch.setattr(throughput, "perf_counter", lambda: model.now)
    return sampling_throughput(model, sizes, synchronize=lambda: None, **options)


def test_rates_are_medians_with_their_spread_by_batch_size(monkeypatch):
    model = Sleeper()
    found = measure(monkeypatch, model, (2, 8), seconds=100)
    median, slow, fast = found.rates["8"]
    assert (median, slow, fast) == pytest.approx((100, 25, 100))
    assert [n for n, *_ in model.asked] == [2] * 40 + [8] * 40  # 10 to warm up, 30 timed
    assert {(training, inference) for *_, training, inference in model.asked} == {(False, True)}


def test_a_conditional_model_is_given_as_many_labels_as_images(monkeypatch):
    model = Sleeper()
    measure(monkeypatch, model, (2, 5), labels=np.array([7, 3, 1]), seconds=100)
    assert {(n, tuple(labels)) for n, labels, *_ in model.asked} == {(2, (7, 3)), (5, (7, 3, 1, 7, 3))}


def test_a_gpu_is_waited_for_by_its_number(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    throughput.synchronizer(torch.device("cuda:2"))()
    throughput.synchronizer(torch.device("cpu"))()
    assert asked == [torch.device("cuda:2")]


@pytest.mark.parametrize(("share", "contended"), [(0.05, False), (0.4, True)])
def test_waiting_for_a_core_is_told(monkeypatch, share, contended):
    """The kernel's counter of time in the run queue is read before and after the 40 calls, which take 8.32 s."""
    counters = iter([{"1": 5.0}, {"1": 5.0 + share * 8.32}])
    monkeypatch.setattr("genbench.budget._run_queue_wait", lambda: next(counters))
    model = Sleeper()
    monkeypatch.setattr(throughput, "Meter", partial(Meter, clock=lambda: model.now))
    found = measure(monkeypatch, model, (16,), seconds=100)
    assert model.now == pytest.approx(8.32)
    assert found.waited == pytest.approx(share)
    assert found.contended == contended
