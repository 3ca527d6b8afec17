"""Samples from a trained model: drawn in seeded chunks, checked, and quantised once for every metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genbench.errors import GenbenchError
from genbench.model import ImageSpec
from genbench.seeds import stream

CHUNK = 500
"""Images drawn per call of `sample`; part of what a seed means."""
FEW = 16
"""Images that tell whether a model heeds its seed."""


@dataclass(frozen=True)
class Samples:
    """`images` (N, C, H, W) uint8; `clipped`: share of values that lay outside [-1, 1] by more than rounding."""

    images: NDArray[np.uint8]
    clipped: float
    labels: NDArray[np.int64] | None = None
    """(N,) classes that a conditional model was asked for."""


def quantise(images: Tensor) -> Tensor:
    """Float images in [-1, 1] -> uint8: clip, then floor(255 (x + 1) / 2 + 0.5). Round-trips all 256 levels."""
    return images.float().clamp(-1, 1).add(1).mul(127.5).add(0.5).floor().to(torch.uint8)


def marginal_labels(
    labels: NDArray[np.int64], n: int, seed: int, *, stream_name: str = "sampling", chunk: int = CHUNK
) -> NDArray[np.int64]:  # fmt: skip
    """Labels of the train split -> n labels drawn from their frequencies, from a stream per (seed, chunk)."""
    frequencies = np.bincount(labels) / len(labels)
    parts = []
    for start in range(0, n, chunk):
        rng = np.random.default_rng(stream(seed, f"{stream_name}/labels/{start // chunk}"))
        parts.append(rng.choice(len(frequencies), min(chunk, n - start), p=frequencies))
    return np.concatenate(parts).astype(np.int64)


def balanced_labels(classes: int, n: int, seed: int) -> NDArray[np.int64]:
    """n labels in a seeded random order, equally many of each class; of the first ones one more where n is no multiple."""
    return np.random.default_rng(stream(seed, "asked/labels")).permutation(np.arange(n, dtype=np.int64) % classes)


def draw(
    model: nn.Module, n: int, seed: int, image: ImageSpec, *,
    labels: NDArray[np.int64] | None = None, stream_name: str = "sampling", chunk: int = CHUNK, on_chunk: Callable[[], None] = lambda: None,
) -> Samples:  # fmt: skip
    """Draw n images under ``eval()`` and ``inference_mode``; the RNG is seeded per (seed, chunk) and restored.

    `labels` (n,) are those asked of a conditional model; `on_chunk` is called after each chunk. Raises GenbenchError naming what is
    wrong with the model's output.
    """
    parts: list[NDArray[np.uint8]] = []
    outside = 0
    with sampling(model):
        for start in range(0, n, chunk):
            count = min(chunk, n - start)
            torch.manual_seed(stream(seed, f"{stream_name}/{start // chunk}"))
            asked = {} if labels is None else {"labels": on_device(labels[start : start + count], model)}
            images = model.sample(count, **asked)  # type: ignore[operator]
            _check(images, count, image)
            outside += int((images.abs() > 1 + 1 / 255).sum())
            parts.append(quantise(images).cpu().contiguous().numpy())
            on_chunk()
    stacked = np.concatenate(parts)
    return Samples(stacked, outside / stacked.size, labels)


def heeds_its_seed(model: nn.Module, n: int, seed: int, image: ImageSpec, *, label: int | None = None, stored: bool = False) -> list[str]:
    """Draw n images twice from one stream and once from another -> what a reader should know: nothing, where all is well.

    Images of one kind only tell nothing of seeds; of a conditional model they are therefore all of one class, `label`. A model that
    deals `stored` images may do so in one order.
    """
    labels = None if label is None else np.full(n, label, np.int64)
    one, again, other = (draw(model, n, seed, image, labels=labels, stream_name=name).images for name in ("twice", "twice", "other"))
    if not _alike(one, again, model):
        return ["not repeatable: the same seed gave different images"]
    if not stored and np.array_equal(one, other) and bool((one != one[:1]).any()):
        return ["ignores the seed: another gave the same images"]
    return []


def _alike(one: NDArray[np.uint8], again: NDArray[np.uint8], model: nn.Module) -> bool:
    """Whether two draws are the same: on a CPU bit for bit; elsewhere sums may round differently."""
    if _device(model).type == "cpu":
        return np.array_equal(one, again)
    return float(np.mean(np.abs(one.astype(np.int16) - again) > 1)) < 0.01


def on_device(labels: NDArray[np.int64], model: nn.Module) -> Tensor:
    """(n,) labels -> int64 tensor where the model's parameters or buffers are."""
    return torch.from_numpy(labels).to(_device(model))


def _device(model: nn.Module) -> torch.device:
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def sampling(model: nn.Module) -> Iterator[None]:
    """Context in which samples are drawn: eval mode, no gradients; the RNG and the mode of every module restored afterwards.

    Of GPUs' generators it keeps that of the model's own: to ask any starts CUDA, which a run on a CPU has no memory for.
    """
    modes, device = [(module, module.training) for module in model.modules()], _device(model)
    devices = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode():
            yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:  # a part that is kept in eval mode stays there
            module.training = training


def _check(images: object, count: int, image: ImageSpec) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise GenbenchError(f"sample({count}) returned {kind}; it must return a float tensor")
    if tuple(images.shape) != (count, *image.shape):
        raise GenbenchError(f"sample({count}) returned shape {tuple(images.shape)}; it must be {(count, *image.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise GenbenchError(f"sample({count}) returned NaN or infinity")
