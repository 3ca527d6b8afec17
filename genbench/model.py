"""What a model is: the shapes it is given, the iterator it draws from, the optimizers it steps.

A model is an ``nn.Module`` with ``configure_optimizers``, ``training_step`` and ``sample``; see `Model`.
The harness owns devices, precision, the clock and the data; a model mentions none of them.
"""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Family = Literal["gan", "vae", "control", "other"]


@dataclass(frozen=True)
class ImageSpec:
    """The images of a track: `channels` (1 or 3), square `size` in pixels, `num_classes` (0: no labels), `num_train` images."""

    channels: int
    size: int
    num_classes: int = 0
    num_train: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)


@dataclass(frozen=True)
class Batch:
    """`images` (B, C, H, W) float in [-1, 1] on the device; `labels` (B,) int64, or None where the data has none."""

    images: Tensor
    labels: Tensor | None = None


class Batches(Protocol):
    """Endless iterator over training batches; images are counted where they are drawn."""

    progress: float
    """Share of the budget spent, in [0, 1]; frozen within a step."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...

    @property
    def holdout(self) -> Batch:
        """All images carved from train for validation, at once."""
        ...


class Model(Protocol):
    """The contract of a plugin's model; `tests` for authors: ``genbench check MODEL``.

    Optional abilities are found by method or attribute: ``batch_size`` (int attribute, default 64), ``finished`` (true:
    the model needs no more budget), ``sample(n, labels)`` with labels (n,) int64 (conditional), ``log_weights(images, k) -> (k, B)``
    log p(x, z) / q(z|x) in nats, ``reconstruct(images) -> (B, C, H, W)`` in [-1, 1], ``encode(images) -> (B, d)`` means of q(z|x),
    ``decode``. Beside ``log_weights``: ``density`` says what it is of, ``"continuous"`` (a density on [-1, 1]; the harness
    dequantises), ``"discrete"`` (probabilities of 256 levels) or ``"bernoulli"`` (of black and white pixels); ``prior`` names where
    the latents of samples come from: ``"N(0, I)"``. Abilities but ``sample`` may take ``labels`` too.
    """

    def configure_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Name -> optimizer over this model's own parameters; may be empty."""
        ...

    def training_step(self, batches: Batches, optimizers: Optimizers) -> Mapping[str, Tensor]:
        """One turn of the paper's loop: draw at least one batch, step, return named scalars that stay on the device."""
        ...

    def sample(self, n: int) -> Tensor:
        """n -> (n, C, H, W) images in [-1, 1]; called under ``eval()`` and ``inference_mode`` with a seeded RNG."""
        ...


@dataclass(frozen=True)
class ModelSpec:
    """A model as a plugin registers it: ``ModelSpec("dcgan", DCGAN, family="gan", paper="arXiv:1511.06434")``.

    `cls(image: ImageSpec, **hparams)` builds it. `sizes` lists the image sizes it supports (None: any from 8 to 64 and
    beyond). `presets` maps a track's name to hparams tuned for it on the holdout split in `trials` trials.
    `pretrained` declares outside weights or data, in words. `holdout` says that it learns from the holdout split. `single_device` says why
    it can't train on several devices: its loss is no mean over images, or its state follows the batch. Where only some hparams make it
    so, it maps them, written as on a command line, to the reason: ``{"likelihood=gaussian sigma=none": "..."}``.
    """

    name: str
    cls: type[nn.Module]
    family: Family
    paper: str = ""
    description: str = ""
    sizes: tuple[int, ...] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trials: int = 0
    pretrained: str = ""
    holdout: bool = False
    single_device: str | Mapping[str, str] = ""

    @property
    def conditional(self) -> bool:
        """True where it is told which classes to make."""
        return is_conditional(self.cls)

    @property
    def hparams(self) -> dict[str, Hparam]:
        """Name -> default, type and choices, in the order of the constructor."""
        return hparams(self.cls)


@dataclass(frozen=True)
class Hparam:
    """A hyper-parameter: its default, its type's name (``int``, ``float``, ``bool``, ``str``) and, for a Literal, its choices."""

    default: Any
    type: str
    choices: tuple[Any, ...] | None = None


def is_conditional(model: Any) -> bool:
    """True where the model, or its class, is told which classes to make: ``sample(n, labels)``."""
    return "labels" in inspect.signature(model.sample).parameters


def hparams(cls: type) -> dict[str, Hparam]:
    """Model class -> its hparams, read from the constructor's signature after `image`.

    Raises TypeError where a parameter has no default or a type that a command line cannot spell.
    """
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    found: dict[str, Hparam] = {}
    for name, parameter in list(inspect.signature(cls).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise TypeError(f"{cls.__name__}.__init__: *args and **kwargs hide hparams; name each one")
        if parameter.default is parameter.empty:
            raise TypeError(f"{cls.__name__}.__init__: hparam {name!r} needs a default (the paper's value)")
        hint = hints.get(name, type(parameter.default))
        choices: tuple[Any, ...] | None = None
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            hint = type(choices[0])
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(t for t in typing.get_args(hint) if t is not type(None))
        if hint not in (bool, int, float, str):
            raise TypeError(f"{cls.__name__}.__init__: hparam {name!r} must be a bool, int, float, str or Literal")
        found[name] = Hparam(parameter.default, hint.__name__, choices)
    return found


Average = Callable[[Sequence[Tensor]], None]


class Optimizer:
    """One named optimizer: ``minimize(loss)`` differentiates with respect to its own parameters only, and steps.

    `average`, where a run has several devices, replaces the gradients of parameters by their means over the devices.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, average: Average | None = None) -> None:
        self.torch = optimizer
        self._average = average
        self.params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        _prefer_fused(optimizer)

    def minimize(self, loss: Tensor, clip_norm: float | None = None) -> None:
        """Scalar loss -> gradients of this optimizer's parameters alone, clipped to `clip_norm` (2-norm), one step."""
        self._differentiate(loss, clip_norm, retain_graph=False)
        self._step()

    @property
    def lr(self) -> float:
        """Learning rate; settable, for schedules."""
        return float(self.torch.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.torch.param_groups:
            group["lr"] = value

    def _differentiate(self, loss: Tensor, clip_norm: float | None, retain_graph: bool) -> None:
        # inputs=: no junk gradients in D while G steps. Backward runs outside autocast, as torch asks.
        with full_precision():
            loss.backward(inputs=self.params, retain_graph=retain_graph)  # type: ignore[no-untyped-call]
            if self._average is not None:
                self._average(self.params)
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(self.params, clip_norm)

    def _step(self) -> None:
        self.torch.step()
        self.torch.zero_grad(set_to_none=True)
        # Autocast keeps bf16 copies of the weights until its block ends; after a step they are stale.
        torch.clear_autocast_cache()


class Optimizers(Mapping[str, Optimizer]):
    """The optimizers of a model by name. Losses that share a graph go into one `minimize` call."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer], average: Average | None = None) -> None:
        self._by_name = {name: Optimizer(optimizer, average) for name, optimizer in optimizers.items()}

    def __getitem__(self, name: str) -> Optimizer:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def minimize(self, losses: Mapping[str, Tensor], clip_norm: float | None = None) -> None:
        """Name -> scalar loss: take all gradients first, then step all (in-place steps would spoil a shared graph)."""
        for position, (name, loss) in enumerate(losses.items()):
            self[name]._differentiate(loss, clip_norm, retain_graph=position < len(losses) - 1)
        for name in losses:
            self[name]._step()


def full_precision() -> contextlib.AbstractContextManager[Any]:
    """Context in which an algorithm computes in float32 (gradient penalties, codebook distances, covariances)."""
    stack = contextlib.ExitStack()
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def _prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Use the fused kernel where the optimizer has one and the author did not choose: 1.2-1.6x on small models."""
    for group in optimizer.param_groups:
        floats = all(p.is_floating_point() for p in group["params"])
        if group.get("fused", False) is None and group.get("foreach") is None and floats and not group.get("differentiable"):
            group["fused"], group["foreach"] = True, False
