"""Checks of training: what a step does and returns, what survives a checkpoint, and what of the process it leaves alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from genbench import checkpoint, resume, surroundings
from genbench.errors import GenbenchError
from genbench.testing.attributes import differing
from genbench.testing.subject import ConformanceError, NotApplicableError, Subject, Trial
from genbench.testing.where import explained

_WHERE_STATE_GOES = "state must be parameters, buffers (register_buffer) or extra state (get_extra_state, set_extra_state)"


def check_step(subject: Subject) -> None:
    """Steps draw batches, move what optimizers hold, leave no gradients behind and return finite named scalars."""
    trial = Trial(subject)
    named = dict(trial.model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    held = {name: {id(p) for p in optimizer.params} for name, optimizer in trial.optimizers.items()}
    for name, ids in held.items():
        if ids - {id(parameter) for parameter in named.values()}:
            raise ConformanceError(f"optimizer {name!r} holds a tensor that is no parameter of the model: it would be lost at a checkpoint")
    for scalars in trial.walk():
        _check_scalars(scalars, trial)
        left = [name for name, parameter in named.items() if parameter.grad is not None]
        if left:
            raise ConformanceError(
                f"{left[0]} has a gradient left over after a step: differentiate by optimizers[…].minimize(loss), which reaches its own"
                " parameters only; loss.backward() by itself also misses what the harness does around it"
            )
    if trial.batches.looked and not subject.spec.holdout:
        raise ConformanceError("training_step looked at batches.holdout: say so with ModelSpec(holdout=True), since scores compare with it")
    if subject.is_control:
        return
    if not held:
        raise ConformanceError("configure_optimizers returned none: return a dict of name -> torch optimizer over the model's parameters")
    moved = {id(parameter) for name, parameter in named.items() if not torch.equal(parameter, before[name])}
    for name, ids in held.items():
        if not ids & moved:
            raise ConformanceError(
                f"{trial.meter.steps} steps changed none of the parameters of optimizer {name!r}: does a loss that depends on them reach"
                f" optimizers[{name!r}].minimize?"
            )
    everyone = set().union(*held.values())
    for name, parameter in named.items():
        if parameter.requires_grad and id(parameter) not in everyone | moved:
            raise ConformanceError(
                f"parameter {name} is in no optimizer and never changes: give it to one, or freeze it: requires_grad_(False)"
            )


def _check_scalars(scalars: Mapping[str, Tensor], trial: Trial) -> None:
    if not scalars and not trial.subject.is_control:
        raise ConformanceError("training_step returned no scalar: return its losses, or a run that diverges is never noticed")
    for name, value in scalars.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ConformanceError(f"training_step returned {name!r} as {got}; return named scalar tensors, like loss.detach()")
        if value.requires_grad:
            raise ConformanceError(f"training_step returned {name!r} with its graph, which keeps memory: return {name}.detach()")
        if not bool(torch.isfinite(value)):
            raise ConformanceError(f"{name!r} was {float(value)} after {trial.meter.steps} steps on digits: losses must stay finite")


def check_bfloat16(subject: Subject) -> None:
    """Trains under bf16 autocast with float32 parameters and finite losses."""
    trial = Trial(subject, 3, bf16=True)
    remedy = "compute what needs float32 inside `with genbench.full_precision():`, on .float() tensors"
    try:
        losses = list(trial.walk())
    except RuntimeError as error:
        raise ConformanceError(f"under bf16 autocast a step raised {explained(error)}: {remedy}") from error
    for step, scalars in enumerate(losses, 1):
        for name, value in scalars.items():
            if not bool(torch.isfinite(value)):
                raise ConformanceError(f"under bf16 autocast {name!r} was {float(value)} after {step} steps: {remedy}")
    low = [name for name, p in trial.model.state_dict().items() if isinstance(p, Tensor) and p.dtype in (torch.bfloat16, torch.float16)]
    if low:
        raise ConformanceError(f"{low[0]} is of low precision after training under bf16 autocast: keep state in float32")


def check_checkpoint(subject: Subject) -> None:
    """A freshly built model that loads the checkpoint draws the same samples: its state is the model."""
    trial = Trial(subject)
    trial.run(6)
    torch.manual_seed(12345)
    fresh = subject.build()
    with tempfile.TemporaryDirectory() as folder:
        try:
            checkpoint.seal(trial.model, Path(folder, "checkpoint.safetensors"), {})
            checkpoint.unseal(fresh, Path(folder, "checkpoint.safetensors"))
        except GenbenchError as error:
            raise ConformanceError(f"{error}; {_WHERE_STATE_GOES}") from None
    if not torch.equal(subject.images(trial.model, 16), subject.images(fresh, 16)):
        suspects = _suspects(trial.model, fresh)
        raise ConformanceError(f"a fresh model with the checkpoint loaded draws other samples{suspects}: {_WHERE_STATE_GOES}")


def check_resume(subject: Subject) -> None:
    """Training interrupted and resumed from saved state gives the bits of training straight on."""
    half = 4
    straight = Trial(subject, 2 * half)
    first = straight.run(half)
    if straight.finished:
        raise NotApplicableError("it was finished before there was anything to interrupt")
    second = straight.run(half)
    stopped = Trial(subject, 2 * half)
    if not _equal(first, stopped.run(half)):
        raise ConformanceError("two trainings from the same seed differ: draw random numbers from torch's global generator only")
    with tempfile.TemporaryDirectory() as folder:
        try:
            resume.save(Path(folder), stopped.model, stopped.optimizers, stopped.batches, stopped.meter, [], [])
            surroundings.seed_all(12345)
            resumed = Trial(subject, 2 * half)
            resume.restore(Path(folder), resumed.model, resumed.optimizers, resumed.batches, resumed.meter)
        except (GenbenchError, RuntimeError, TypeError) as error:
            said = " ".join(str(error).split())
            raise ConformanceError(f"its state cannot be saved and restored: {said}; {_WHERE_STATE_GOES}") from error
    same_losses = _equal(second, resumed.run(half))
    if checkpoint.state_digest(straight.model) != checkpoint.state_digest(resumed.model) or not same_losses:
        raise ConformanceError(
            f"training resumed from a saved state gives other weights than training straight on{_suspects(straight.model, resumed.model)}:"
            f" {_WHERE_STATE_GOES}; random numbers come from torch's global generator"
        )
    hidden = differing(straight.model, resumed.model)
    if hidden:
        raise ConformanceError(f"training changes the plain attribute {hidden[0]!r}, which a resumed run has lost: {_WHERE_STATE_GOES}")


def _equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    same = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
    return all(a.keys() == b.keys() and all(same(a[name], b[name]) for name in a) for a, b in zip(one, other, strict=True))


def _suspects(one: nn.Module, other: nn.Module) -> str:
    """Words for the plain attributes that differ between two models that should be the same."""
    hidden = differing(one, other)
    return f" (plain attributes that differ: {', '.join(hidden[:4])})" if hidden else ""


def check_sampling_leaves_training_alone(subject: Subject) -> None:
    """Samples drawn on the way, as for a curve, change neither state nor what is learnt afterwards."""
    apart = Trial(subject, 6)
    apart.run(6)
    between = Trial(subject, 6)
    between.run(3)
    state = {name: value.clone() for name, value in between.model.state_dict().items() if isinstance(value, Tensor)}
    subject.images(between.model, 8)
    for name, value in between.model.state_dict().items():
        if isinstance(value, Tensor) and not (value.shape == state[name].shape and torch.equal(value, state[name])):
            raise ConformanceError(f"sample changed {name}: in eval mode the state must stay as it is (is a BatchNorm in train mode?)")
    between.run(3)
    if checkpoint.state_digest(apart.model) != checkpoint.state_digest(between.model):
        raise ConformanceError(
            "training goes on differently after sample was called: keep nothing from sample in attributes"
            " (the harness puts the whole model into eval() mode for it, and then every module back into its own)"
        )


def check_global_state(subject: Subject) -> None:
    """Settings of the process and seeds of its generators are the harness's: a model changes none."""
    untouched = surroundings.settings()
    warm = Trial(subject, 2)  # what torch imports on first use may change settings, and is not the model's doing
    warm.run(2)
    subject.images(warm.model, 2)
    surroundings.put_back(untouched)
    _watch("the constructor", subject.build)
    trial = Trial(subject)
    _watch("configure_optimizers", trial.model.configure_optimizers)  # type: ignore[arg-type]
    _watch("training_step", lambda: trial.run(1))
    trial.model.eval()
    with torch.inference_mode():
        _watch("sample", lambda: subject.ask(trial.model, min(2, int(getattr(trial.model, "num_available", 2)))))
    trial.model.train()
    if not subject.is_control:
        torch.manual_seed(1)
        one = subject.build()
        torch.manual_seed(2)
        other = subject.build()
        if checkpoint.state_digest(one) == checkpoint.state_digest(other):
            raise ConformanceError("every seed gives the same initial weights: draw them from torch's global generator, unseeded")


def _watch(what: str, act: Callable[[], object]) -> None:
    """Call twice under different seeds. Raises ConformanceError where a setting changed, or a generator forgot its seed."""
    after = []
    for seed in (1, 2):
        surroundings.seed_all(seed)
        with warnings.catch_warnings():
            before = surroundings.settings()
            try:
                act()
            finally:
                names = surroundings.changed(before)
                surroundings.put_back(before)
        if names:
            raise ConformanceError(
                f"{what} changes a setting of the whole process, by {names[0]} or the like: such settings are the harness's"
            )
        after.append(surroundings.generators())
    for name in after[0]:
        if after[0][name] == after[1][name]:
            raise ConformanceError(f"{what} seeds a global generator, by {name} or the like: every run would get the same random numbers")
