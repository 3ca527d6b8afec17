"""What the ranks of a run do together: average gradients, keep one clock, agree on what they saw, share the statistics of a batch.

Each rank has its own part of every batch and its own noise; parameters, clock and decisions are the same on all. Modules are not wrapped:
a step may differentiate more than once, which DistributedDataParallel does not survive. Fabric launches; its collectives, which wait for
each other twice, are torch's here.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from time import perf_counter  # this one, whatever a plugin puts in its place
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from genbench.batch_statistics import share_batch_statistics
from genbench.devices import Rank
from genbench.errors import GenbenchError

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another, which may be drawing samples. One that dies is noticed at once, through its process."""
ALIKE = 0.02
"""Seconds of training, about, between two words of the first rank about the time: all of them look at its clock."""
MOST_STEPS = 64
"""Steps between two such words, at most."""
DRIFT = 1e-3
"""Relative difference up to which a buffer may differ between ranks: rounding, which the first rank's value replaces."""


class Alone:
    """The only rank of a run on one device: nothing to wait for and nobody to ask."""

    number, of = 0, 1

    def __init__(self, device: torch.device, synchronize: Callable[[], None]) -> None:
        self.device, self.synchronize = device, synchronize
        self.average: Callable[[Sequence[Tensor]], None] | None = None
        """What `Optimizers` do to the gradients of parameters."""
        self.finished: Callable[[], bool] | None = None
        """Whether the model of any rank said that it needs no more budget; None where there is no other to ask."""

    def clock(self) -> float:
        """Device-seconds."""
        return perf_counter()

    def wall(self) -> float:
        """Seconds."""
        return perf_counter()

    def after_step(self, note: Callable[[], None]) -> Callable[[], None]:
        """What the first rank notes after each step -> what this one does then."""
        return note

    def tell(self, seconds: float) -> float:
        """A number that the first rank knows."""
        return seconds

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return here

    def agree(self, losses: dict[str, float], bad: bool) -> tuple[dict[str, float], bool]:
        """Losses of this rank's part of a batch, whether one was not finite -> means over the ranks, whether any was not."""
        return losses, bad

    def most(self, here: float) -> float:
        """The largest of all ranks."""
        return here

    def total(self, here: Sequence[float]) -> list[float]:
        """Sums over the ranks."""
        return list(here)

    def prepare(self, model: nn.Module) -> nn.Module:
        """A built model -> the model to train: all ranks begin with the same weights and share the statistics of a batch."""
        return model

    def align(self, model: nn.Module, trained: Sequence[Tensor]) -> None:
        """See that all ranks have the same model."""

    def randomness(self) -> dict[str, Tensor]:
        """States of the other ranks' generators of noise."""
        return {}


class Together(Alone):
    """One of several ranks. What is called here, all of them call, at the same step."""

    def __init__(self, rank: Rank, device: torch.device, synchronize: Callable[[], None]) -> None:
        self.number, self.of = rank.number, rank.of
        _launch(rank, device)
        # On GPUs a group of its own: what is said there is said by the hosts, and no host waits for its GPU.
        self._hosts = dist.new_group(backend="gloo", timeout=PATIENCE) if device.type == "cuda" else dist.group.WORLD
        self._wait_for_device = synchronize
        self._steps = self._ahead = 0
        self._block, self._now, self._then = 1, 0.0, 0.0
        self._model: nn.Module | None = None
        self._finished = False
        super().__init__(device, self._synchronize)
        self.average, self.finished = self._average, self._is_finished
        self._synchronize()

    def clock(self) -> float:
        """Device-seconds by the first rank's clock, as it told last."""
        return self.of * self._now

    def wall(self) -> float:
        """Seconds by the first rank's clock, as it told last."""
        return self._now

    def after_step(self, note: Callable[[], None]) -> Callable[[], None]:
        """What the first rank notes after each step -> what this one does then: look at the clock, now and then."""

        def turn_and_note() -> None:
            self._turn()
            note()

        return self._turn if self.number else turn_and_note

    def tell(self, seconds: float) -> float:
        """The first rank's number, on all."""
        told = torch.tensor([seconds], dtype=torch.float64)
        dist.broadcast(told, 0, group=self._hosts)
        return float(told)

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return self.most(float(here)) > 0

    def agree(self, losses: dict[str, float], bad: bool) -> tuple[dict[str, float], bool]:
        """Losses of this rank's part of a batch, whether one was not finite -> means over the ranks, whether any was not."""
        *sums, bads = self.total([*losses.values(), float(bad)])
        return {name: value / self.of for name, value in zip(losses, sums, strict=True)}, bads > 0

    def most(self, here: float) -> float:
        """The largest of all ranks."""
        told = torch.tensor([here], dtype=torch.float64)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._hosts)
        return float(told)

    def total(self, here: Sequence[float]) -> list[float]:
        """Sums over the ranks."""
        told = torch.tensor(list(here), dtype=torch.float64)
        dist.all_reduce(told, group=self._hosts)
        return [float(value) for value in told]

    def prepare(self, model: nn.Module) -> nn.Module:
        """A built model -> the model to train. Raises GenbenchError where ranks begin with different weights."""
        if not self._same(_digest(model.state_dict())):
            raise GenbenchError(
                "the devices begin with different weights: a model must draw them from torch's generator, numpy or random, nothing else"
            )
        self._model = share_batch_statistics(model, self.device)
        return self._model

    def align(self, model: nn.Module, trained: Sequence[Tensor]) -> None:
        """See that all ranks have the same model; buffers that differ by rounding become the first rank's.

        `trained` are the parameters that optimizers step. Raises GenbenchError naming what differs: the model's step on a part of the
        batch is then no part of its step on the whole.
        """
        state = model.state_dict()
        if not self._same(_digest({str(index): value for index, value in enumerate(trained)})):
            self._refuse("its parameters are no longer the same on all devices")
        if not self._same(json.dumps([random.getstate(), _numpy_state()]).encode()):
            self._refuse("the devices drew different numbers from numpy or random, whose numbers are for all alike")
        if self._same(_digest(state)):
            return
        rest = [(name, f"{value.dtype} {value.shape}" if isinstance(value, Tensor) else value) for name, value in state.items()]
        if not self._same(json.dumps(rest).encode()):
            self._refuse("its state has other shapes, or its extra state other values, on one device than on another")
        for name, value in state.items():
            if isinstance(value, Tensor):
                self._take_first(name, value)

    def randomness(self) -> dict[str, Tensor]:
        """States of all other ranks' generators of noise: ``rng/1/cpu``, ``rng/1/cuda``, ..."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        found: dict[str, Tensor] = {}
        for kind, state in states.items():
            gathered = [torch.empty_like(state) for _ in range(self.of)]
            dist.all_gather(gathered, state, group=self._hosts)
            found |= {f"rng/{number}/{kind}": other for number, other in enumerate(gathered) if number}
        return found

    def _average(self, parameters: Sequence[Tensor]) -> None:
        """Gradients -> their means over the ranks, in place: one sum over all of them in one piece."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.of
        for gradient, part in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))  # in the gradient's own layout, which its optimizer relies on

    def _is_finished(self) -> bool:
        return self._finished

    def _turn(self) -> None:
        self._steps += 1
        self._ahead -= 1
        if self._ahead > 0:
            return
        self._look(kind=1)
        seconds = (self._now - self._then) / self._block
        self._block = max(1, min(MOST_STEPS, 2 * self._block, int(ALIKE / seconds) if seconds > 0 else MOST_STEPS))
        self._ahead, self._then = self._block, self._now

    def _synchronize(self) -> None:
        self._wait_for_device()
        self._look(kind=2)
        self._then, self._ahead, self._block = self._now, 1, 1

    def _look(self, kind: int) -> None:
        """Take the first rank's time, and whether a model is finished. Raises GenbenchError where ranks are not at the same place."""
        now = 0.0 if self.number else perf_counter()
        done = bool(getattr(self._model, "finished", False))
        told = torch.tensor([now, self._steps, -self._steps, kind, -kind, done], dtype=torch.float64)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._hosts)
        self._now, most, least, latest, earliest, finished = told.tolist()
        if most != -least or latest != -earliest:
            raise GenbenchError(f"the devices went different ways: one is at step {most:.0f}, another at {-least:.0f}")
        self._finished = finished > 0

    def _same(self, content: bytes) -> bool:
        """Whether all ranks have the same bytes."""
        mine = torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8)
        first = mine.clone()
        dist.broadcast(first, 0, group=self._hosts)
        return not self.any(not torch.equal(mine, first))

    def _take_first(self, name: str, value: Tensor) -> None:
        mine = value.detach().clone(memory_format=torch.contiguous_format)
        first = mine.clone()
        # as bytes: not every collective knows every type
        dist.broadcast(first.view(-1).view(torch.uint8), 0, group=self._hosts if value.device.type == "cpu" else None)
        near = torch.equal(mine.view(-1).view(torch.uint8), first.view(-1).view(torch.uint8))
        if not near and value.is_floating_point():
            near = bool((mine - first).abs().max() <= DRIFT * first.abs().max())
        if self.any(not near):
            self._refuse(f"its {name!r} differs between them")
        with torch.no_grad():
            value.copy_(first)

    def _refuse(self, what: str) -> None:
        raise GenbenchError(
            f"after {self._steps} steps on {self.of} devices, {what}: something follows a part of the batch by itself. "
            "Train it on one device; its plugin should say ModelSpec(single_device=…)"
        )


def join(rank: Rank, device: torch.device, synchronize: Callable[[], None]) -> Alone:
    """This process's rank on its device; with others, all of them come together here. `synchronize` waits for the device."""
    return Alone(device, synchronize) if rank.of == 1 else Together(rank, device, synchronize)


def _launch(rank: Rank, device: torch.device) -> None:
    """Bring the ranks of this machine together through Fabric, which also makes `device` this process's own."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(rank.port), "LOCAL_RANK": str(rank.number), "NODE_RANK": "0"}
    # They never leave this machine, and a host's name need not lead back to it.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    indices = [(device.index or 0) + number - rank.number for number in range(rank.of)]
    strategy = DDPStrategy(cluster_environment=LightningEnvironment(), timeout=PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(accelerator=device.type, devices=indices if device.type == "cuda" else rank.of, strategy=strategy)
        fabric.launch()


def _digest(state: Mapping[str, Any]) -> bytes:
    """A state -> a digest of names, tensors and JSON values."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.digest()


def _numpy_state() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return [name, np.asarray(keys).tolist(), *rest]
