"""Sealed checkpoints: the model's state as safetensors, what belongs to it as JSON beside it. Nothing in them is executed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from genbench.errors import GenbenchError
from genbench.records import write_atomic

EXTRA = "_extra_state"


def seal(model: nn.Module, path: Path, about: dict[str, Any]) -> str:
    """Write `path` (safetensors) and its ``.json``, atomically; returns the SHA-256 of the safetensors file.

    `about` (JSON values) is kept beside the weights. Extra state must be tensors or JSON values.
    """
    tensors, extra = model_state(model)
    content = save_tensors(tensors)
    digest = hashlib.sha256(content).hexdigest()
    write_atomic(path, content)
    note = {"sha256": digest, "parameters": sum(p.numel() for p in model.parameters()), **about, "extra": extra}
    write_atomic(path.with_suffix(".json"), json.dumps(note, indent=1, allow_nan=False).encode() + b"\n")
    return digest


def unseal(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load a sealed checkpoint into a freshly built model; returns what was kept beside it.

    Raises GenbenchError where files are missing, damaged or of another model.
    """
    try:
        content = path.read_bytes()
        about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GenbenchError(f"checkpoint {path.name} can't be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        raise GenbenchError(f"checkpoint {path.name} is not the one its JSON describes: digests differ")
    try:
        load_model(model, {name: value.clone() for name, value in load_tensors(content).items()}, about.get("extra", {}))
    except (SafetensorError, RuntimeError) as error:
        raise GenbenchError(f"checkpoint {path.name} does not fit the model: {str(error).splitlines()[-1].strip()}") from None
    return about


def model_state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model's state as plain tensors (contiguous copies on the CPU) and its extra state as JSON values. Raises GenbenchError."""
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            # safetensors refuses views, ties and channels_last; load_state_dict restores the layout.
            tensors[name] = value.detach().cpu().contiguous().clone()
        elif name.endswith(EXTRA):
            extra[name] = value
        else:
            raise GenbenchError(f"the model's state {name!r} is a {type(value).__name__}; state must be parameters, buffers or extra state")
    try:
        return tensors, json.loads(json.dumps(extra, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise GenbenchError(f"the model's extra state can't be written as JSON ({error}); keep tensors in buffers") from None


def load_model(model: nn.Module, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
    """Put state as `model_state` gives it into a freshly built model."""
    state: dict[str, Any] = {**tensors, **extra}
    model.load_state_dict(state)


def state_digest(model: nn.Module) -> str:
    """SHA-256 over names and bytes of every parameter and buffer: equal before and after sampling."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        else:
            digest.update(json.dumps(value, sort_keys=True, default=repr).encode())
    return digest.hexdigest()
