"""The state of an interrupted training: everything a later process needs to go on as if nothing had happened.

Tensors go to safetensors, the rest to JSON beside it; nothing in them is executed. On a CPU, with a budget of steps and as many
threads, the continued run gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from genbench.model import Optimizers
from genbench.records import write_atomic
from genbench.train import Point


def save(
    folder: Path,
    model: nn.Module,
    optimizers: Optimizers,
    batches: TrainingBatches,
    meter: Meter,
    points: Sequence[Point],
    drawn: Sequence[NDArray[np.uint8]],
) -> None:
    """Write the state between two steps. The JSON goes last and names the tensors' file: half a state is none."""
    tensors: dict[str, Tensor] = {}
    weights, extra = model_state(model)
    tensors |= {f"model/{name}": value for name, value in weights.items()}
    told = {name: _plain(optimizer.torch.state_dict(), f"optimizer/{name}", tensors) for name, optimizer in optimizers.items()}
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"rng/cuda/{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    numpy_name, numpy_keys, *numpy_rest = np.random.get_state(legacy=True)
    tensors["rng/numpy"] = torch.from_numpy(np.asarray(numpy_keys).astype(np.int64))
    tensors |= {f"curve/{index}": torch.from_numpy(images) for index, images in enumerate(drawn)}
    state = {
        "extra": extra, "optimizers": told, "drawn": batches.drawn, "ledger": asdict(meter.ledger()),
        "points": [asdict(point) for point in points], "curve": len(drawn),
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]], "numpy": [numpy_name, *numpy_rest],
    }  # fmt: skip
    write_atomic(folder / "state.safetensors", save_tensors(tensors))
    write_atomic(folder / "state.json", json.dumps(state, allow_nan=False).encode())


def restore(
    folder: Path, model: nn.Module, optimizers: Optimizers, batches: TrainingBatches, meter: Meter
) -> tuple[list[Point], list[NDArray[np.uint8]]] | None:
    """Bring freshly built objects to the saved state -> (the curve so far, its images); None, and nothing changed, without one."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
        # Loaded tensors alias the file's buffer.
        tensors = {name: value.clone() for name, value in load_tensors((folder / "state.safetensors").read_bytes()).items()}
    except (OSError, ValueError, SafetensorError):
        return None
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
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            with contextlib.suppress(KeyError):
                torch.cuda.set_rng_state(tensors[f"rng/cuda/{index}"], index)
    torch.set_rng_state(tensors["rng/cpu"])
    return [Point(**point) for point in state["points"]], [tensors[f"curve/{index}"].numpy() for index in range(state["curve"])]


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
