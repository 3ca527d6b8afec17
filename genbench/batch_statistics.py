"""Statistics of a batch whose parts lie on several devices: BatchNorm over all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from genbench.errors import GenbenchError

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def share_batch_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """BatchNorm over a rank's part of the batch -> over the whole, forward and backward. Its parameters and buffers stay what they are.

    Raises GenbenchError for a kind of BatchNorm that torch does not have.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and type(module) not in KNOWN:
            raise GenbenchError(
                f"{type(module).__name__} is a BatchNorm of the model's own, whose statistics several devices can't share; train it on one"
            )
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = JointBatchNorm
    return model


class JointBatchNorm(_BatchNorm):
    """BatchNorm over the parts of all ranks on CPUs, which torch's SyncBatchNorm refuses. Differentiable any number of times."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape; every rank has as many images."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float()
        rest = [dim for dim in range(x.dim()) if dim != 1]
        n = dist.get_world_size() * x.numel() // x.shape[1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean = _summed(x.sum(rest)) / n
        centred = x - mean.view(shape)
        variance = _summed(centred.square().sum(rest)) / n
        self._follow(mean.detach(), variance.detach() * n / max(1, n - 1))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        normalised: Tensor = y.to(input.dtype)
        return normalised

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """The sum over all ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, here: Tensor) -> Tensor:
        total = here.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _summed(gradients[0].contiguous())


def _summed(here: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(here)  # type: ignore[no-untyped-call]
    return total
