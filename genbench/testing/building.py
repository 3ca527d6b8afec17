"""Checks at every image size, on torch's meta device: shapes without arithmetic, so that the paper's own sizes cost nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.datasets.builtin import builtin_datasets
from genbench.model import Batch, ImageSpec, Optimizers
from genbench.sample import sampling
from genbench.testing.subject import ConformanceError, NotApplicableError, Subject, batch_size
from genbench.testing.where import authors_line, explained
from genbench.track import shipped_tracks

_SLOW = 1.0
"""Seconds of one call of `sample` above which larger sizes are not sampled: an autoregressive model takes its turns even on meta."""
_DEVICE = ("same device", "expected device")
_READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)


class Blanks:
    """Batches without content: on the meta device, or uniform noise on the CPU. Labels only where there are classes."""

    progress = 0.0

    def __init__(self, image: ImageSpec, size: int, device: str) -> None:
        self._image, self._size, self._device = image, size, device

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        images = torch.rand(self._size, *self._image.shape, device=self._device) * 2 - 1
        labels = torch.arange(self._size, device=self._device) % self._image.num_classes if self._image.num_classes else None
        return Batch(images.contiguous(memory_format=torch.channels_last), labels)

    @property
    def holdout(self) -> Batch:
        """Another batch."""
        return next(self)


def check_every_size(subject: Subject) -> None:
    """Builds, trains a step and samples with 1 and 3 channels at every size, with and without labels as it needs them."""
    slow = False
    for size, channels in itertools.product(subject.sizes, (1, 3)):
        image = ImageSpec(channels, size, 10 if subject.spec.conditional else 0, 1000)
        try:
            slow = _try(subject, image, "meta", {}, sample=not slow) or slow
        except ConformanceError:
            raise
        except Exception:
            # What reads values cannot run without them: see whether a small model can with them.
            try:
                _try(subject, image, "cpu", subject.quick, sample=not slow)
            except ConformanceError:
                raise
            except Exception as error:
                labels = "" if image.num_classes else " without labels"
                sizes = ", ".join(map(str, subject.sizes))
                raise ConformanceError(
                    f"images of {channels} x {size} x {size}{labels}: {explained(error)}; it must work with 1 and 3 channels at {sizes}"
                    " pixels (or declare the sizes it is for: ModelSpec(sizes=…))"
                ) from error


def _try(subject: Subject, image: ImageSpec, device: str, hparams: dict[str, Any], *, sample: bool) -> bool:
    """Build, step and, where asked, sample -> whether sampling was slow."""
    with torch.device(device):
        model: nn.Module = subject.spec.cls(image, **hparams)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not subject.is_control and not sum(p.numel() for p in model.parameters()):
            raise ConformanceError(
                "it has no parameters: keep networks as attributes or in nn.ModuleList, where torch finds them, not in lists"
            )
        optimizers = Optimizers(model.configure_optimizers())  # type: ignore[operator]
        if device == "meta":
            _stand_still(optimizers)
        model.training_step(Blanks(image, batch_size(model), device), optimizers)  # type: ignore[operator]
        if not sample:
            return False
        n = min(3, int(getattr(model, "num_available", 3)))
        started = time.perf_counter()
        with sampling(model):
            images = subject.ask(model, n)
    if tuple(images.shape) != (n, *image.shape):
        raise ConformanceError(
            f"sample({n}) returned shape {tuple(images.shape)}; it must be {(n, *image.shape)} for images of {image.shape}"
        )
    return time.perf_counter() - started > _SLOW


def check_presets(subject: Subject) -> None:
    """Every preset of a track that ships builds, trains a step and samples on images of that track."""
    tracks = {track.name: track for track in shipped_tracks()}
    channels = {dataset.name: dataset.channels for dataset in builtin_datasets()}
    tried: list[tuple[ImageSpec, dict[str, Any]]] = []
    for name, hparams in subject.spec.presets.items():
        track = tracks.get(name)
        if track is None or track.dataset not in channels:
            continue
        case = (ImageSpec(channels[track.dataset], track.size, 10, 1000), dict(hparams))
        if case in tried:
            continue
        tried.append(case)
        try:
            _try(subject, case[0], "meta", case[1], sample=False)
        except Exception:
            try:
                _try(subject, case[0], "cpu", case[1], sample=False)
            except Exception as error:
                raise ConformanceError(f"preset {name!r} on images of {case[0].shape}: {explained(error)}") from error


def check_follows_its_device(subject: Subject) -> None:
    """A model that was moved makes its tensors where it is."""
    error = _moved(subject).error
    if error is None:
        return
    if any(words in str(error) for words in _DEVICE):
        raise ConformanceError(
            f"moved to another device, it mixes in a tensor on the CPU{authors_line(error)}: make tensors with device=other.device,"
            " and keep constant ones in register_buffer"
        ) from error
    raise NotApplicableError(f"it cannot be traced without data: {explained(error)}")


def check_step_does_not_wait(subject: Subject) -> None:
    """A step reads no value back: on a GPU each reading waits for all that was queued."""
    moved = _moved(subject)
    if moved.reads:
        raise ConformanceError(
            f"training_step reads a tensor's value{moved.reads[0]}, by .item(), float(…), int(…) or if: on a GPU that waits for all queued"
            " work. Compute with the tensor (torch.where, torch.lerp, clamp), or keep a counter as a number in extra state"
        )
    if moved.error is not None and not moved.stepped:
        raise NotApplicableError(f"it cannot be traced without data: {explained(moved.error)}")


@dataclass
class _Moved:
    """How a model fared on the meta device."""

    error: Exception | None = None
    stepped: bool = False
    """The step came to its end."""
    reads: list[str] = field(default_factory=list)
    """Where the step read a value."""


def _moved(subject: Subject) -> _Moved:
    """A small model built here, moved to meta, then a step and a sample."""
    model, moved = subject.build().to("meta"), _Moved()
    try:
        optimizers = Optimizers(model.configure_optimizers())  # type: ignore[operator]
        _stand_still(optimizers)
        with _Reads(moved.reads):
            model.training_step(Blanks(subject.image, batch_size(model), "meta"), optimizers)  # type: ignore[operator]
        moved.stepped = True
        with sampling(model), _Reads([]):
            images = subject.ask(model, min(3, int(getattr(model, "num_available", 3))))
    except Exception as error:
        moved.error = error
        return moved
    if images.device.type != "meta":
        raise ConformanceError("sample returned images on the CPU although the model was moved: pass device=… where it draws its noise")
    return moved


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers readings of tensors that have no values, and notes in `places` where an author's code made them."""

    def __init__(self, places: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READING and args[0].device.type == "meta":
            place = authors_line(None)
            if place:  # AveragedModel reads its own counter
                self._places.append(place)
            return False if args[0].dtype == torch.bool else 0.5 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def _stand_still(optimizers: Optimizers) -> None:
    """On meta there is nothing to update, and fused kernels refuse it."""
    for optimizer in optimizers.values():
        optimizer.torch.step = lambda closure=None: None  # type: ignore[method-assign, assignment]
