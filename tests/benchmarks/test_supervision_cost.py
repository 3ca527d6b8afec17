"""What supervision costs: a run in its child process, witnessed, saved and listened to, against the same loop called directly.

Run by hand: ``pytest tests/benchmarks/test_supervision_cost.py --benchmark-only``. Both train the same model for as many steps, in turns.
Images/s are those between the first and the last tick by the wall clock of who listens, so that pauses for saving count.
"""

import statistics
import textwrap
import time

import pytest
import torch

from genbench import run as runs
from genbench.budget import Budget, Meter
from genbench.datasets.prepare import prepare
from genbench.datasets.resident import TrainingBatches
from genbench.inventory import describe_file
from genbench.model import ImageSpec, Optimizers
from genbench.supervisor import Supervisor
from genbench.track import Track
from genbench.train import train

STEPS, ROUNDS, THREADS = 6000, 5, 1
MODEL = """
    import torch
    from torch import nn

    class Denoiser(nn.Module):
        family = "other"
        def __init__(self, image):
            super().__init__()
            self.image, self.batch_size = image, 64
            inner = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
            self.net = nn.Sequential(*inner, nn.Conv2d(32, 1, 1))
        def configure_optimizers(self):
            return {"all": torch.optim.Adam(self.parameters(), 1e-3)}
        def training_step(self, batches, optimizers):
            real = next(batches).images
            loss = (self.net(real + torch.randn_like(real)) - real).square().mean()
            optimizers["all"].minimize(loss)
            return {"loss": loss}
        def sample(self, n):
            return self.net(torch.randn(n, *self.image.shape)).tanh()
"""


class Rate:
    """Images/s between the first and the last tick heard."""

    def __init__(self):
        self.heard = []

    def tick(self, images):
        self.heard.append((time.perf_counter(), images))

    @property
    def value(self):
        (begun, first), (ended, last) = self.heard[0], self.heard[-1]
        return (last - first) / (ended - begun)


def direct(cls):
    torch.manual_seed(0)
    data = prepare("digits", 8)
    model = cls(ImageSpec(1, 8, 10, len(data.train))).to(memory_format=torch.channels_last)
    meter, rate = Meter(Budget.parse(f"{STEPS}steps")), Rate()
    batches = TrainingBatches(data, batch_size=64, seed=0, meter=meter, device=torch.device("cpu"))
    optimizers = Optimizers(model.configure_optimizers())
    train(model, optimizers, batches, meter, device=torch.device("cpu"), at=(1.0,), on_tick=lambda point: rate.tick(point.images))
    return rate.value


def supervised(file, folder, supervisor):
    track = Track(
        name="tiny", dataset="digits", size=8, budget=f"{STEPS}steps", num_samples=60, extractor="digits-cnn", metrics=("fid",),
        curve=(1.0,), curve_samples=0,
    )  # fmt: skip
    place = runs.check(track, supervisor, results=folder, device="cpu", threads=THREADS)
    (planned,) = runs.plan([describe_file(f"{file}:Denoiser")], track, [0], place, {})
    rate = Rate()

    def listen(event):
        if event["kind"] == "tick" and event["phase"] == "train":
            rate.tick(event["images"])

    record = runs.run(planned, place, supervisor, listen)
    assert record.status == "done", record.reason
    return rate.value


@pytest.mark.timeout(1200)
@pytest.mark.benchmark(group="supervision")
def test_supervision(benchmark, tmp_path):
    file = tmp_path / "denoiser.py"
    file.write_text(textwrap.dedent(MODEL))
    names = {}
    exec(file.read_text(), names)
    supervisor, rates, before = Supervisor(), {"supervised": [], "direct": []}, torch.get_num_threads()

    def one_round():
        number = len(rates["direct"])
        rates["supervised"].append(supervised(file, tmp_path / f"results-{number}", supervisor))
        rates["direct"].append(direct(names["Denoiser"]))

    torch.set_num_threads(THREADS)
    try:
        benchmark.pedantic(one_round, rounds=ROUNDS)
    finally:
        torch.set_num_threads(before)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    benchmark.extra_info |= {f"{name} images/s": round(median) for name, median in medians.items()}
    benchmark.extra_info["supervised/direct"] = round(medians["supervised"] / medians["direct"], 4)
