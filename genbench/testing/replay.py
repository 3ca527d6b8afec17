"""Random draws recorded in one call of a model and replayed, for fewer images, in another: samples must not depend on their company."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.testing.subject import NotApplicableError


@dataclass(frozen=True)
class Draw:
    """One random operation: its name, what it was given and what came out."""

    name: str
    given: tuple[Tensor, ...]
    """Floating-point tensors it depends on: probabilities, means, scales."""
    out: Tensor


class Recorded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every random draw made inside it, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[Draw] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _given(func, args) if _is_random(func) else ()
        out = func(*args, **(kwargs or {}))
        if _is_random(func):
            if not isinstance(out, Tensor):
                raise NotApplicableError(f"sample draws by {func._schema.name}, which this check cannot replay")
            self.draws.append(Draw(func._schema.name, given, out.clone()))
        return out


class Replayed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives the first `k` images of a call the draws that they had among `n`.

    Raises NotApplicableError where it cannot tell which of the draws were theirs.
    """

    def __init__(self, draws: list[Draw], n: int, k: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draws, self._n, self._k = iter(draws), n, k
        self.differs = 0.0
        """Largest difference between what a draw was given now and then."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_random(func):
            return func(*args, **(kwargs or {}))
        given = _given(func, args)
        out = func(*args, **(kwargs or {}))
        draw = next(self._draws, None)
        if draw is None or draw.name != func._schema.name or len(draw.given) != len(given):
            raise NotApplicableError("how often sample draws random numbers depends on the number of images")
        for now, then in zip(given, draw.given, strict=True):
            self.differs = max([self.differs, *(now - self._first(then, now)).abs().flatten().tolist()])
        return out.copy_(self._first(draw.out, out))

    def _first(self, then: Tensor, like: Tensor) -> Tensor:
        """The part of a tensor of `n` images that belongs to the first `k`."""
        if then.shape == like.shape:
            return then
        if then.ndim == like.ndim:
            unlike = [d for d in range(then.ndim) if then.shape[d] != like.shape[d]]
            if len(unlike) == 1 and (then.shape[unlike[0]], like.shape[unlike[0]]) == (self._n, self._k):
                return then.narrow(unlike[0], 0, self._k)
        shapes = f"{tuple(then.shape)} for {self._n} images and {tuple(like.shape)} for {self._k}"
        raise NotApplicableError(f"sample draws {shapes}: which belong to which image cannot be told")


def _is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _given(func: Any, args: Any) -> tuple[Tensor, ...]:
    name = func._schema.name
    # the first argument of x.normal_() and randn_like(x) is there for its shape
    known = args[1:] if name.endswith(("_", "_like")) else args
    return tuple(value.detach().clone() for value in known if isinstance(value, Tensor) and value.is_floating_point())
