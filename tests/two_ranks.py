"""What two ranks do together on CPUs, run as a script: ``python tests/two_ranks.py FOLDER`` prints a JSON object of what was found.

The ranks are started as a run starts them; each check runs on both, and what the first finds is printed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from toys import Autoencoder, make_data

from genbench import devices, ranks, resume
from genbench.batch_statistics import JointBatchNorm, share_batch_statistics
from genbench.budget import Budget, Meter
from genbench.checkpoint import state_digest
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.model import ImageSpec, Optimizers
from genbench.train import train

CPU = torch.device("cpu")
IMAGE = ImageSpec(3, 8, 10, 103)


class Recording(torch.optim.SGD):
    """Plain SGD that keeps the gradients of every step."""

    def __init__(self, params):
        super().__init__(params, lr=0.05)
        self.seen = []

    def step(self, closure=None):
        self.seen += [parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]
        return super().step(closure)


class SharedNoise(TorchFunctionMode):
    """Every draw is made for the whole batch, and a rank takes its part of it."""

    def __init__(self, team):
        super().__init__()
        self.team = team

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.randn, torch.rand, torch.randn_like, torch.rand_like):
            size = args[0].shape if isinstance(args[0], torch.Tensor) else args
            draw = torch.randn if func in (torch.randn, torch.randn_like) else torch.rand
            with torch._C.DisableTorchFunction():
                whole = draw(self.team.of * size[0], *size[1:])
            return whole.chunk(self.team.of)[self.team.number].clone()
        return func(*args, **kwargs)


def gradients(team, build, clip_norm=None):
    """All gradients of one training step on a batch of 12, by this rank's part of it and of its noise."""
    torch.manual_seed(3)
    model = team.prepare(build().to(memory_format=torch.channels_last))
    meter = Meter(Budget.parse("1steps"))
    batches = TrainingBatches(make_data(), batch_size=12, seed=0, meter=meter, device=CPU, rank=team.number, ranks=team.of)
    model.batch_size = batches.part
    recording = {name: Recording(optimizer.param_groups[0]["params"]) for name, optimizer in model.configure_optimizers().items()}
    optimizers = Optimizers(recording, team.average)
    if clip_norm is not None:
        for optimizer in optimizers.values():
            optimizer.minimize = lambda loss, optimizer=optimizer: type(optimizer).minimize(optimizer, loss, clip_norm)
    torch.manual_seed(7)
    with SharedNoise(team):
        model.training_step(batches, optimizers)
    assert meter.images == 12 * batches.drawn
    return [gradient for optimizer in recording.values() for gradient in optimizer.seen], model


def compared(team, alone, build, clip_norm=None):
    """Largest difference between the ranks' gradients and those of one process, and how large the latter are."""
    found, model = gradients(team, build, clip_norm)
    expected, single = gradients(alone, build, clip_norm)
    assert len(found) == len(expected) > 0
    buffers = [(mine - theirs).abs().max() for mine, theirs in zip(model.buffers(), single.buffers(), strict=True) if mine.numel()]
    return {
        "difference": max(float((mine - theirs).abs().max()) for mine, theirs in zip(found, expected, strict=True)),
        "largest": max(float(theirs.abs().max()) for theirs in expected),
        "buffers": max(map(float, buffers), default=0.0),
    }


def batch_norm(team, alone):
    """Output, gradient, gradient of the gradient and running statistics against torch's own on the whole batch."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(8, 3, 5, 5, generator=generator) * 2 + 1
    weight = torch.randn(8, 3, 5, 5, generator=generator)
    part = slice(4 * team.number, 4 * team.number + 4)
    results = []
    for layer, x, w in (
        (nn.BatchNorm2d(3, momentum=0.3), whole, weight),
        (share_batch_statistics(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3)), CPU)[0], whole[part].clone(), weight[part]),
    ):
        x.requires_grad_()
        y = layer(x)
        (gradient,) = torch.autograd.grad((y.sigmoid() * w).sum(), x, create_graph=True)
        gradient.square().sum().backward()
        results.append([y.detach(), gradient.detach(), x.grad])
        results[-1] += [layer.running_mean, layer.running_var]
        assert (type(layer) is JointBatchNorm) == (len(results) == 2)
    (one, *rest), (two, *theirs) = results
    expected = [one[part], rest[0][part], rest[1][part], rest[2], rest[3]]
    return [float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, [two, *theirs], strict=True)]


def built(team, budget, seed=0):
    torch.manual_seed(seed)
    model = team.prepare(Autoencoder(IMAGE).to(memory_format=torch.channels_last))
    optimizers = Optimizers(model.configure_optimizers(), team.average)
    meter = Meter(Budget.parse(budget), team.synchronize, team.clock)
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=CPU, flip=True, rank=team.number, ranks=team.of)
    torch.manual_seed(100 + team.number)
    return model, optimizers, batches, meter


def trained(team, model, optimizers, batches, meter, **options):
    return train(
        model, optimizers, batches, meter, device=CPU, devices=team.of, clock=team.wall, agree=team.agree,
        any_finished=team.finished, after_step=team.after_step(lambda: None), **options,
    )  # fmt: skip


def parameters(optimizers):
    return [parameter for optimizer in optimizers.values() for parameter in optimizer.params]


def resumed(team, folder):
    """Whether 9 steps give the bits of 4 steps, a save, and 5 more in fresh objects, next noise included."""
    model, optimizers, batches, meter = built(team, "9steps")
    trained(team, model, optimizers, batches, meter)
    whole = state_digest(model), torch.rand(3).tolist()
    model, optimizers, batches, meter = built(team, "4steps")
    trained(team, model, optimizers, batches, meter)
    others = team.randomness()
    if team.number == 0:
        resume.save(folder, model, optimizers, batches, meter, [], [], others, team.of)
    team.tell(0.0)  # it is there
    model, optimizers, batches, meter = built(team, "9steps", seed=5)
    resume.restore(folder, model, optimizers, batches, meter, team.number, team.of)
    trained(team, model, optimizers, batches, meter)
    again = state_digest(model), torch.rand(3).tolist()
    noise = team.total(whole[1] if team.number else [0.0] * 3)
    return {"same": whole == again, "same on both": not team.any(whole != again), "own noise": noise != whole[1], "images": meter.images}


def timed(team):
    """A time budget: the ledger, the steps of both ranks, and what was seen of it on the way."""
    model, optimizers, batches, meter = built(team, "2s")
    shares = []
    step = model.training_step

    def training_step(batches, optimizers):
        shares.append(batches.progress)
        return step(batches, optimizers)

    model.training_step = training_step
    team.synchronize()  # the clock was told last at the end of another training
    began = team.wall()
    training = trained(team, model, optimizers, batches, meter, at=(0.5, 1.0), on_point=lambda point: None)
    team.align(model, parameters(optimizers))
    steps, images, progress = team.total([meter.steps, meter.images, sum(shares)])
    return {
        "seconds": meter.seconds, "wall": team.wall() - began, "steps": [meter.steps, steps - meter.steps],
        "images": [meter.images, images - meter.images], "progress": [sum(shares), progress - sum(shares)],
        "points": [point.progress for point in training.points],
    }  # fmt: skip


def finished(team):
    """One rank's model says that it is, after three steps."""
    model, optimizers, batches, meter = built(team, "100000steps")
    step = model.training_step

    def training_step(batches, optimizers):
        model.finished = team.number == 1 and batches.drawn >= 3
        return step(batches, optimizers)

    model.training_step = training_step
    training = trained(team, model, optimizers, batches, meter)
    return {"early": training.finished_early, "steps": [meter.steps, team.total([meter.steps])[0] - meter.steps]}


def refusals(team):
    """What ranks that went apart are told, check by check."""

    def told(call):
        try:
            call()
        except GenbenchError as error:
            return str(error)
        return ""

    found = {}
    torch.manual_seed(team.number)
    found["weights"] = told(lambda: team.prepare(nn.Linear(2, 2)))
    torch.manual_seed(0)
    model = team.prepare(Autoencoder(IMAGE))
    model.register_buffer("k", torch.tensor(1.0 + 0.01 * team.number))
    found["buffer"] = told(lambda: team.align(model, []))
    model.k.copy_(torch.tensor(1.0 + 1e-5 * team.number))
    found["rounding"] = told(lambda: team.align(model, []))
    found["k"] = float(team.total([float(model.k)])[0])
    found["parameters"] = told(lambda: team.align(model, [torch.full((2,), float(team.number))]))
    found["loss"] = list(team.agree({"a": 1.0 + team.number, "b": 5.0}, team.number == 1))
    apart = Autoencoder(IMAGE)
    apart.register_buffer("kept", torch.zeros(2 + team.number))
    found["shapes"] = told(lambda: team.align(apart, []))

    class Own(nn.BatchNorm2d):
        pass

    found["own"] = told(lambda: share_batch_statistics(Own(3), CPU))
    if team.number:
        team._steps += 1  # as if its model had gone on
    found["steps"] = [told(team.synchronize) for _ in range(2)]
    return found


def checks(team, alone, folder):
    from genbench_gans.dcgan import DCGAN
    from genbench_gans.sngan import SNGAN
    from genbench_gans.wgan_gp import WGANGP
    from genbench_vaes.vae import VAE

    builds = {
        "vae": lambda: VAE(IMAGE, z_dim=4, hidden=16),
        "wgan-gp": lambda: WGANGP(IMAGE, z_dim=4, width=4, n_critic=2),
        "sngan": lambda: SNGAN(IMAGE, z_dim=4, width_G=4, width_D=4, n_dis=2),
        "dcgan": lambda: DCGAN(IMAGE, z_dim=4, width=4),
    }
    found = {name: compared(team, alone, build) for name, build in builds.items()}
    found["clipped"] = compared(team, alone, builds["vae"], clip_norm=0.5)
    found["batch norm"] = batch_norm(team, alone)
    found["resumed"] = resumed(team, folder)
    found["timed"] = timed(team)
    found["finished"] = finished(team)
    found["refusals"] = refusals(team)
    return found


class Printed:
    """Stands for the pipe to a supervisor."""

    def send(self, kind, **content):
        print(json.dumps({"kind": kind, **content}), flush=True)


def main():
    rank, channel = devices.start(2, Printed())
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        team = ranks.join(rank, CPU, lambda: None)
        channel.send("result", value=checks(team, ranks.join(devices.ALONE, CPU, lambda: None), Path(sys.argv[1])))
    except BaseException as error:
        traceback.print_exc()
        channel.send("failed", reason=f"{type(error).__name__}: {error}")
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
