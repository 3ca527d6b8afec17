"""The state of an unfinished training: everything a later process needs to go on as if nothing had happened.

Tensors go to safetensors, the rest to JSON beside it; nothing in them is executed. Two states are kept, each checked by its digest: a
crash while one is written costs no more than the time since the one before. On a CPU, with a budget of steps, the continued run
gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from genbench.budget import Ledger, Meter
from genbench.checkpoint import load_model, model_state
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.model import Optimizers
from genbench.records import sync_folder, write_atomic
from genbench.states import HEADER, KEPT, TENSORS, header, new_name, saved, seal
from genbench.train import Point

MOST_LOST = 60.0
"""Seconds of training between two states, at most: what a crash can undo."""
LEAST = 0.5
"""Seconds between two states, at least."""
COST = 0.01
"""Share of the time that saving may take, unless more than `MOST_LOST` would be at stake."""
CPU = torch.device("cpu")
Drawn = Sequence[NDArray[np.uint8]]


class Restored(NamedTuple):
    """What a saved state tells beside what it brings back: the curve so far, its images, and how the training stood."""

    points: list[Point]
    drawn: list[NDArray[np.uint8]]
    last: Point | None


def save(
    folder: Path, model: nn.Module, optimizers: Optimizers, batches: TrainingBatches, meter: Meter, points: Sequence[Point], drawn: Drawn,
    others: Mapping[str, Tensor] = MappingProxyType({}), devices: int = 1, device: torch.device = CPU, threads: int | None = None,
    last: Point | None = None,
) -> None:  # fmt: skip
    """Write the state between two steps as ``<folder>/<steps>``: new beside the old, flushed, renamed, read back, and only then pruned.

    `device` is this process's own, and `threads` are those that it was given; None: those it has now. Where the run has several
    `devices`, `others` are the states of the other ranks' generators (`genbench.ranks`): all else is the same.
    """
    tensors: dict[str, Tensor] = {}
    weights, extra = model_state(model)
    tensors |= {f"model/{name}": value for name, value in weights.items()}
    told = {name: _plain(optimizer.torch.state_dict(), f"optimizer/{name}", tensors) for name, optimizer in optimizers.items()}
    tensors["rng/cpu"] = torch.get_rng_state()
    if device.type == "cuda":  # under no number: the run may go on on another GPU
        tensors["rng/cuda"] = torch.cuda.get_rng_state(device)
    numpy_name, numpy_keys, *numpy_rest = np.random.get_state(legacy=True)
    tensors["rng/numpy"] = torch.from_numpy(np.asarray(numpy_keys).astype(np.int64))
    tensors |= others
    tensors |= {f"curve/{index}": torch.from_numpy(images) for index, images in enumerate(drawn)}
    content = save_tensors(tensors)
    state = {
        "tensors": hashlib.sha256(content).hexdigest(), "made": _surroundings(device, devices, threads),
        "extra": extra, "optimizers": told, "drawn": batches.drawn, "ledger": asdict(meter.ledger()),
        "points": [_told(point) for point in points], "last": _told(last) if last else None, "curve": len(drawn),
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]], "numpy": [numpy_name, *numpy_rest],
    }  # fmt: skip
    new = folder / f".new-{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    write_atomic(new / TENSORS, content)
    write_atomic(new / HEADER, seal(state))
    place = folder / new_name(folder, meter.steps)
    new.rename(place)
    sync_folder(folder)
    if _content(place) is None:
        raise GenbenchError(f"the state written to {place.name} can't be read back; is the disk full or failing?")
    for old in saved(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def restore(
    folder: Path, model: nn.Module, optimizers: Optimizers, batches: TrainingBatches, meter: Meter, rank: int = 0, devices: int = 1,
    device: torch.device = CPU, threads: int | None = None,
) -> Restored | None:  # fmt: skip
    """Bring freshly built objects to the newest whole state -> what else it tells; None, and nothing changed, without one.

    Raises GenbenchError where that state was made with another torch, or on a CPU with other threads: it would go on, but not with the
    same bits. A run sees that before it comes here (`genbench.run`).
    """
    found = next(filter(None, map(_read, saved(folder))), None)
    if found is None:
        return None
    state, tensors = found
    here = _surroundings(device, devices, threads)
    if state["made"] != here:
        was = ", ".join(f"{name} {value}" for name, value in state["made"].items())
        now = ", ".join(f"{name} {value}" for name, value in here.items())
        raise GenbenchError(f"this run was begun with {was}; here it is {now}: go on there, or delete its folder to begin anew")
    load_model(model, {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}, state["extra"])
    for name, optimizer in optimizers.items():
        optimizer.torch.load_state_dict(_restored(state["optimizers"][name], tensors))
        _match_layout(optimizer.torch)
    batches.drawn = state["drawn"]
    meter.restore(Ledger(**state["ledger"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, *rest = state["numpy"]
    np.random.set_state((name, tensors["rng/numpy"].numpy().astype(np.uint32), *rest))
    whose = f"rng/{rank}" if rank else "rng"
    torch.set_rng_state(tensors[f"{whose}/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"{whose}/cuda"], device)
    points, last = [_point(said) for said in state["points"]], state.get("last")
    return Restored(points, [tensors[f"curve/{index}"].numpy() for index in range(state["curve"])], _point(last) if last else None)


class Cadence:
    """When to save: at most a minute apart, and otherwise so seldom that saving takes less than one per cent of the time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether to save now."""
        return self._clock() - self._last >= min(MOST_LOST, max(LEAST, self._cost / COST))

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: how long it takes decides when the next is due."""
        started = self._clock()
        yield
        self._last = self._clock()
        self._cost = self._last - started


def _told(point: Point) -> dict[str, Any]:
    """A point as strict JSON, and so as records have it: what is no number is None."""
    return {**asdict(point), "losses": {name: value if math.isfinite(value) else None for name, value in point.losses.items()}}


def _point(said: dict[str, Any]) -> Point:
    return Point(**{**said, "losses": {name: math.nan if value is None else value for name, value in said["losses"].items()}})


def _surroundings(device: torch.device, devices: int, given: int | None) -> dict[str, Any]:
    """What bits depend on beside the state itself: on a CPU the threads `given`; what a model makes of them it does each time.

    Memory layout is the harness's own choice.
    """
    threads = {"threads": given or torch.get_num_threads()} if device.type == "cpu" else {}
    several = {"devices": devices} if devices > 1 else {}
    return {**threads, "torch": str(torch.__version__), **several}


def _read(place: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """A saved state and its tensors, or None where a byte of them is not as it was written."""
    found = _content(place)
    if found is None:
        return None
    state, content = found
    try:
        # Loaded tensors alias the file's buffer.
        return state, {name: value.clone() for name, value in load_tensors(content).items()}
    except (ValueError, SafetensorError):
        return None


def _content(place: Path) -> tuple[dict[str, Any], bytes] | None:
    """A saved state and the bytes of its tensors, or None where their digests are others."""
    state = header(place)
    if state is None:
        return None
    try:
        content = (place / TENSORS).read_bytes()
        return (state, content) if hashlib.sha256(content).hexdigest() == state["tensors"] else None
    except (OSError, KeyError):
        return None


def _plain(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A nest of tensors, numbers and words -> JSON values; tensors go to `tensors` under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"$": "tensor", "at": path}
    if isinstance(value, Mapping):
        return {"$": "dict", "of": [[key, _plain(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (tuple, list)):
        items = [_plain(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return {"$": "tuple", "of": items} if isinstance(value, tuple) else items
    return {"$": "float", "hex": value.hex()} if isinstance(value, float) else value


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_plain` was given."""
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value["$"]:
        case "tensor":
            return tensors[value["at"]]
        case "dict":
            return {key: _restored(item, tensors) for key, item in value["of"]}
        case "tuple":
            return tuple(_restored(item, tensors) for item in value["of"])
        case _:
            return float.fromhex(value["hex"])


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give each moment its parameter's strides: a fused Adam beside a channels_last parameter is silently wrong without."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
