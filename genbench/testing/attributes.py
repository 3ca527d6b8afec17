"""State that a model keeps outside its `state_dict`: plain attributes, told apart by fingerprints of their values."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_TORCHS = frozenset(vars(nn.Module()))
_DEEPEST = 6


def attributes(model: nn.Module) -> dict[str, str]:
    """Plain attributes and non-persistent buffers of a model and its submodules -> fingerprints. What no fingerprint fits is left out."""
    own = set(model.modules())
    found = {}
    for path, module in model.named_modules():
        plain = {name: value for name, value in vars(module).items() if name not in _TORCHS}
        plain |= {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        for name, value in plain.items():
            fingerprint = _fingerprint(value, own, 0)
            if fingerprint and name != "finished":
                found[f"{path}.{name}" if path else name] = fingerprint
    return found


def differing(one: nn.Module, other: nn.Module) -> list[str]:
    """Plain attributes whose values differ between two models of the same class, or that only one of them has."""
    left, right = attributes(one), attributes(other)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def _fingerprint(value: Any, own: set[nn.Module], depth: int) -> str:
    """A value -> a digest of what it holds; empty for what holds no state of its own (functions, the model's own submodules)."""
    if depth > _DEEPEST or (callable(value) and not isinstance(value, nn.Module)):
        return ""
    parts: Any
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return _digest(type(value).__name__, repr(value))
        case Tensor():
            bits = value.detach().cpu().contiguous().flatten()
            content = bits.view(torch.uint8).numpy().tobytes() if bits.numel() else b""
            return _digest("tensor", str(value.dtype), str(tuple(value.shape)), content)
        case np.ndarray():
            return _digest("array", str(value.dtype), str(value.shape), value.tobytes())
        case torch.Generator():
            return _digest("generator", value.get_state().numpy().tobytes())
        case random.Random():
            return _digest("random", repr(value.getstate()))
        case np.random.Generator():
            return _digest("random", repr(value.bit_generator.state))
        case np.random.RandomState():
            return _digest("random", repr(value.get_state()))
        case nn.Module():
            if value in own:
                return ""
            parts = list(value.state_dict().values())  # hidden in a list or a dict, where torch does not find it
        case Mapping():
            parts = [part for item in value.items() for part in item]
        case list() | tuple() | deque():
            parts = list(value)
        case set() | frozenset():
            parts = sorted(value, key=repr)
        case _:
            parts = [part for item in sorted(getattr(value, "__dict__", {}).items()) for part in item]
    inner = [_fingerprint(part, own, depth + 1) for part in parts]
    return _digest(type(value).__name__, *inner)


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()
