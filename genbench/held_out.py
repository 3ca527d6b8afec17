"""What a sealed model says of held-out test images: importance weights, reconstructions, latent means, as arrays and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genbench.datasets import Split
from genbench.datasets.resident import to_unit
from genbench.errors import GenbenchError
from genbench.metrics import Density, ModelEvidence
from genbench.metrics.likelihood import bounds
from genbench.sample import quantise, sampling
from genbench.seeds import stream

CHUNK = 100
"""Images in one call; part of what a seed means."""
SUBSET = 0
"""Seed of the images asked about: fixed by the protocol, so that models are compared on the same ones."""
METHODS = ("log_weights", "reconstruct", "encode")


def density(model: nn.Module) -> Density | None:
    """What the model says its log weights are of; None where it says nothing. Raises GenbenchError for a word that is none of the three."""
    said = _word(model, "density")
    if said and said not in get_args(Density):
        raise GenbenchError(f"the model's density is {said!r}; it must be one of {', '.join(get_args(Density))}")
    return next((kind for kind in get_args(Density) if kind == said), None)


def prior(model: nn.Module) -> str:
    """Where the latents of the model's samples come from, in its own words; empty where it does not say."""
    return _word(model, "prior")[:60]


def consult(
    model: nn.Module, test: Split, seed: int, device: torch.device, *, most: int = 500, k: int = 50,
    on_chunk: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Ask a model about a random subset of at most `most` test images -> arrays for `as_evidence`; empty where no method of it answers.

    `k` weights an image. 500 images and 50 weights bound the cost: 25 000 decoded images, 6 s of `conv-vae` at 3 x 32 x 32 on two cores.
    Images of a continuous density are dequantised for `log_weights`: level k becomes 2 (k + u) / 256 - 1, u uniform in [0, 1). A method
    that takes `labels` gets theirs. One that raises or answers in another form is noted, and costs only its own measures. `on_chunk` is
    called after every 100 images.
    """
    methods = {name: getattr(model, name) for name in METHODS if callable(getattr(model, name, None))}
    if not methods or len(test) == 0:
        return {}
    kind = density(model)
    index = np.sort(np.random.default_rng(SUBSET).permutation(len(test))[:most])
    images = torch.from_numpy(np.ascontiguousarray(test.images[index]))
    labels = None if test.labels is None else torch.from_numpy(test.labels[index]).to(device)
    labelled = "log_weights" in methods and _takes_labels(methods["log_weights"])
    found: dict[str, NDArray[Any]] = {"index": index, "density": np.array(kind or ""), "labelled": np.array(labelled)}
    found["prior"] = np.array(prior(model))
    for name, method in methods.items():
        try:
            answers = []
            for answer in _answers(name, method, images, labels, kind, seed, device, model, k):
                answers.append(answer)
                on_chunk()
            found[name] = np.concatenate(answers, axis=1 if name == "log_weights" else 0)
        except GenbenchError as error:
            found[f"problem {name}"] = np.array(str(error))
        except Exception as error:
            found[f"problem {name}"] = np.array(f"{name} raised {type(error).__name__}: {' '.join(str(error).split())[:150]}")
    return found


def holdout_nll(
    model: nn.Module, holdout: Split, seed: int, device: torch.device, on_chunk: Callable[[], None] = lambda: None
) -> float:  # fmt: skip
    """Minus the importance-weighted bound (k = 50) averaged over at most 500 holdout images: nats of black and white images, else bits
    per dimension; lower is better, NaN where the model says nothing."""
    found = consult(model, holdout, seed, device, on_chunk=on_chunk)
    if "log_weights" not in found:
        return math.nan
    bound = next(m for m in bounds(as_evidence(found, holdout)) if m.name.startswith("iwae"))
    return math.nan if bound.value is None else bound.value * (-1 if bound.better == "higher" else 1)


def as_evidence(arrays: Mapping[str, NDArray[Any]], test: Split) -> ModelEvidence:
    """What `consult` returned, perhaps read from a file, and the same test images -> what metrics see."""
    said = str(arrays["density"])
    return ModelEvidence(
        images=np.ascontiguousarray(test.images[arrays["index"]]),
        density=next((kind for kind in get_args(Density) if kind == said), None),
        prior=str(arrays["prior"]),
        log_weights=arrays.get("log_weights"),
        reconstructions=arrays.get("reconstruct"),
        means=arrays.get("encode"),
        labelled=bool(arrays["labelled"]),
        problems={name: str(arrays[f"problem {name}"]) for name in METHODS if f"problem {name}" in arrays},
    )


def dequantise(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 images -> float32 in [-1, 1), uniform within the cell of each level: 2 (k + u) / 256 - 1."""
    return (images + torch.rand(images.shape, generator=generator)) / 128 - 1


def _answers(
    name: str, method: Callable[..., Any], images: Tensor, labels: Tensor | None, kind: Density | None, seed: int,
    device: torch.device, model: nn.Module, k: int,
) -> Iterator[NDArray[Any]]:  # fmt: skip
    """One method's answers, a chunk of images at a time. Raises GenbenchError for one of another form."""
    told = labels if _takes_labels(method) else None
    with sampling(model):
        for start in range(0, len(images), CHUNK):
            number = stream(seed, f"held out/{name}/{start // CHUNK}")
            torch.manual_seed(number)
            some = images[start : start + CHUNK]
            continuous = name == "log_weights" and kind == "continuous"
            x = dequantise(some, torch.Generator().manual_seed(number)) if continuous else to_unit(some)
            x = x.to(device).contiguous(memory_format=torch.channels_last)
            more = {} if told is None else {"labels": told[start : start + CHUNK]}
            answer = method(x, k, **more) if name == "log_weights" else method(x, **more)
            yield _checked(name, answer, some, k)


def _checked(name: str, answer: object, images: Tensor, k: int) -> NDArray[Any]:
    """An answer -> its array. Raises GenbenchError that says what it must be."""
    n = len(images)
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise GenbenchError(f"{name} returned {answer.dtype if isinstance(answer, Tensor) else type(answer).__name__}, not a float tensor")
    expected = {"log_weights": (k, n), "reconstruct": tuple(images.shape)}.get(name)
    if expected is not None and tuple(answer.shape) != expected:
        raise GenbenchError(f"{name} returned shape {tuple(answer.shape)}; it must be {expected}")
    if answer.ndim < 2 or (expected is None and len(answer) != n):
        raise GenbenchError(f"{name} returned shape {tuple(answer.shape)}; it must be ({n}, d)")
    if name == "log_weights":  # a weight of 0 is a lawful answer
        if bool(answer.isnan().any()) or bool((answer == torch.inf).any()):
            raise GenbenchError("log_weights returned NaN or infinity")
        return np.asarray(answer.double().cpu().numpy())
    if not bool(answer.isfinite().all()):
        raise GenbenchError(f"{name} returned NaN or infinity")
    return quantise(answer).cpu().contiguous().numpy() if name == "reconstruct" else answer.float().flatten(1).cpu().numpy()


def _word(model: nn.Module, name: str) -> str:
    """An attribute that is text; empty for anything else a model may keep under that name."""
    said = getattr(model, name, "")
    return said if isinstance(said, str) else ""


def _takes_labels(method: Callable[..., Any]) -> bool:
    return "labels" in inspect.signature(method).parameters
