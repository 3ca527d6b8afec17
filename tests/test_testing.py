"""The conformance suite: a model that does everything passes, and for each thing it may do wrong the check that looks at it says so."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import warnings
from importlib.metadata import PathDistribution

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

from genbench import ImageSpec, ModelSpec
from genbench.surroundings import settings
from genbench.testing import ConformanceError, NotApplicableError, check_model, checks, learning, outcomes, parametrize_checks
from genbench.testing.attributes import attributes, differing
from genbench.testing.subject import Subject, digits


class Good(nn.Module):
    """A small variational autoencoder that does all that is asked, in pieces that can be broken one by one."""

    density, prior = "continuous", "N(0, I)"

    def __init__(self, image: ImageSpec, z_dim: int = 8, width: int = 64, batch_size: int = 32, lr: float = 3e-3):
        super().__init__()
        self.z_dim, self.batch_size, self.lr = z_dim, batch_size, lr
        pixels = math.prod(image.shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.SiLU(), nn.Linear(width, 2 * z_dim))
        self.decoder = nn.Sequential(nn.Linear(z_dim, width), nn.SiLU(), nn.Linear(width, pixels), nn.Tanh(), nn.Unflatten(1, image.shape))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def configure_optimizers(self):
        return {"all": Adam(self.parameters(), self.lr)}

    def loss(self, images):
        mu, logvar = self.encoder(images).float().chunk(2, 1)
        z = mu + (logvar / 2).exp() * self.noise(len(images))
        error = (self.decoder(z) - images).square().flatten(1).sum(1)
        return (5 * error + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)).mean()

    def noise(self, n):
        return torch.randn(n, self.z_dim, device=self.seen.device)

    def training_step(self, batches, optimizers):
        images = next(batches).images
        self.seen += len(images)
        loss = self.loss(images)
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}

    def sample(self, n):
        return self.decoder(self.noise(n))

    def log_weights(self, images, k):
        return torch.zeros(k, len(images))

    def encode(self, images):
        return self.encoder(images).chunk(2, 1)[0]

    def decode(self, z):
        return self.decoder(z)

    def reconstruct(self, images):
        return self.decode(self.encode(images))


class Told(Good):
    """Conditional: an embedding of the label is added to the latent."""

    def __init__(self, image: ImageSpec, batch_size: int = 32):
        super().__init__(image, batch_size=batch_size)
        self.embedding = nn.Embedding(image.num_classes, self.z_dim)

    def training_step(self, batches, optimizers):
        batch = next(batches)
        mu = self.encode(batch.images)
        loss = (self.decoder(mu + self.embedding(batch.labels)) - batch.images).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}

    def sample(self, n, labels):
        return self.decoder(self.noise(n) + self.embedding(labels))

    def decode(self, z, labels):
        return self.decoder(z + self.embedding(labels))

    def reconstruct(self, images, labels):
        return self.decode(self.encode(images), labels)


def spec_of(cls, **said):
    """A ModelSpec with nothing to complain of."""
    return ModelSpec("toy", cls, **{"family": "vae", "paper": "arXiv:1312.6114", "description": "A toy", **said})


def failures(spec):
    """Check -> message of those that fail, but for learning, which takes long where there is something wrong."""
    failed = {}
    for check in checks(spec):
        if check.name != "learns":
            try:
                check()
            except ConformanceError as error:
                failed[check.name] = str(error)
            except NotApplicableError:
                pass
    return failed


@pytest.mark.parametrize("cls", [Good, Told])
def test_a_good_model_passes(cls):
    found = {outcome.check: outcome for outcome in outcomes(spec_of(cls))}
    assert [outcome for outcome in found.values() if outcome.status == "failed"] == []
    skipped = {name for name, outcome in found.items() if outcome.status == "skipped"}
    assert skipped == {"licence"}
    assert ("labels" in found) == (cls is Told)
    assert all(outcome.seconds > 0 for outcome in found.values())


# ---- what may be wrong, the one check that sees it, and a part of what it says --------------------------------------


class Untyped(Good):
    def __init__(self, image: ImageSpec, width=32):
        super().__init__(image, width=width)


class NoDefault(Good):
    def __init__(self, image: ImageSpec, width: int):
        super().__init__(image, width=width)


class Anything(Good):
    def __init__(self, image: ImageSpec, **hparams: int):
        super().__init__(image, **hparams)


SAID = [
    (spec_of(Untyped), "hparams have types and defaults", "write width: int = 32"),
    (spec_of(NoDefault), "hparams have types and defaults", "'width' needs a default"),
    (spec_of(Anything), "hparams have types and defaults", "name each one"),
    (spec_of(Good, presets={"mnist-60s": {"widht": 3}}, trials=1), "hparams have types and defaults", "did you mean 'width'"),
    (spec_of(Good, presets={"mnist-60s": {"width": 0.5}}, trials=1), "hparams have types and defaults", "is not a whole number"),
    (ModelSpec("My_GAN", Good, family="vae", paper="none", description="A toy"), "name paper and description", "like 'wgan-gp'"),
    (spec_of(Good, paper=""), "name paper and description", "arXiv:NNNN.NNNNN"),
    (spec_of(Good, paper="arXiv:13.6114"), "name paper and description", "like arXiv:1511.06434"),
    (spec_of(Good, description=""), "name paper and description", "in one line"),
    (spec_of(Good, presets={"mnist-60s": {"width": 3}}), "name paper and description", "how many trials"),
]


@pytest.mark.parametrize(("spec", "check", "message"), SAID)
def test_what_is_said_of_a_model(spec, check, message):
    (found,) = [one for one in checks(spec) if one.name == check]
    with pytest.raises(ConformanceError, match="(?s).*" + message):
        found()


class EightPixels(Good):
    """The decoder gives 8 x 8 pixels whatever the size."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.decoder[2], self.decoder[4] = nn.Linear(64, 64 * image.channels), nn.Unflatten(1, (image.channels, 8, 8))


class Grey(Good):
    def sample(self, n):
        return super().sample(n).mean(1, keepdim=True)


class NeedsLabels(Good):
    def training_step(self, batches, optimizers):
        next(batches).labels.sum()
        return super().training_step(batches, optimizers)


class Listed(Good):
    """Networks in a list, where torch does not see them."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.networks = [self.encoder, self.decoder]
        del self.encoder, self.decoder

    def configure_optimizers(self):
        return {"all": Adam([p for network in self.networks for p in network.parameters()])}

    def loss(self, images):
        return self.networks[0](images).square().mean() + self.networks[1](self.noise(len(images))).square().mean()

    def sample(self, n):
        return self.networks[1](self.noise(n))

    encode = decode = reconstruct = log_weights = None


class NoiseOnCPU(Good):
    def noise(self, n):
        return torch.randn(n, self.z_dim)


class ConstantOnCPU(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.scale = torch.linspace(1, 2, self.z_dim)

    def noise(self, n):
        return super().noise(n) * self.scale


class SamplesOnCPU(Good):
    def sample(self, n):
        return super().sample(n).cpu() if self.seen.device.type == "cpu" else torch.zeros(n, 1, 8, 8)


class Waits(Good):
    def loss(self, images):
        loss = super().loss(images)
        return loss if loss > 0 else -loss


class DrawsNothing(Good):
    def training_step(self, batches, optimizers):
        loss = self.decoder(self.noise(32)).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}

    encode = decode = reconstruct = log_weights = None

    def configure_optimizers(self):
        self.encoder.requires_grad_(False)
        return {"all": Adam(self.decoder.parameters())}


class SetsProgress(Good):
    def training_step(self, batches, optimizers):
        batches.progress = 1.0
        return super().training_step(batches, optimizers)


class ReturnsList(Good):
    def training_step(self, batches, optimizers):
        return list(super().training_step(batches, optimizers).values())


class Step(Good):
    """A step whose returned scalars can be spoilt."""

    def training_step(self, batches, optimizers):
        return self.returned(super().training_step(batches, optimizers))


class ReturnsNothing(Step):
    def returned(self, scalars):
        return {}


class ReturnsNumbers(Step):
    def returned(self, scalars):
        return {"loss": 1.0}


class ReturnsVector(Step):
    def returned(self, scalars):
        return {"loss": scalars["loss"].expand(3)}


class ReturnsGraph(Step):
    def returned(self, scalars):
        return {"loss": self.decoder[0].weight.sum()}


class ReturnsNaN(Step):
    def returned(self, scalars):
        return {"loss": scalars["loss"] * math.nan}


class Stuck(Good):
    def configure_optimizers(self):
        return {"all": Adam(self.parameters(), 0.0)}


class Orphan(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.forgotten = nn.Linear(2, 2)

    def configure_optimizers(self):
        return {"all": Adam([*self.encoder.parameters(), *self.decoder.parameters()], self.lr)}


class Foreign(Good):
    """Its optimizer holds a tensor that is not the model's."""

    def configure_optimizers(self):
        return {"all": Adam([*self.parameters(), nn.Parameter(torch.zeros(2))], self.lr)}


class NoOptimizers(Good):
    def configure_optimizers(self):
        return {}

    def training_step(self, batches, optimizers):
        return {"loss": self.loss(next(batches).images).detach()}


class Backward(Good):
    """Its own backward: gradients stay behind."""

    def training_step(self, batches, optimizers):
        loss = self.loss(next(batches).images)
        loss.backward()
        optimizers["all"].torch.step()
        return {"loss": loss.detach()}


class Peeks(Good):
    def training_step(self, batches, optimizers):
        batches.holdout  # noqa: B018
        return super().training_step(batches, optimizers)


class LowPrecision(Good):
    """bf16 features meet a float32 buffer in an operation that mixes nothing."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.register_buffer("mean", torch.zeros(64))

    def loss(self, images):
        features = self.encoder[1](self.encoder[0](images)).mean(0)
        self.mean.lerp_(features.detach(), 0.1)
        return super().loss(images)


class Overflows(Good):
    """Exact in float32; in bf16 the sum loses the 1 and the logarithm has nothing left."""

    def loss(self, images):
        ones = torch.ones(1, 1, device=images.device)
        big = torch.cat([1e4 * ones, ones], 1) @ torch.ones(2, 1, device=images.device)
        return super().loss(images) + (big - 1e4).log().sum()


class HalfState(Good):
    def training_step(self, batches, optimizers):
        scalars = super().training_step(batches, optimizers)
        if torch.is_autocast_enabled("cpu"):
            self.decoder[0].weight.data = self.decoder[0].weight.data.bfloat16()
        return scalars


class SeedsItself(Good):
    def __init__(self, image: ImageSpec):
        torch.manual_seed(0)
        super().__init__(image)


class SeedsNumpy(Good):
    def training_step(self, batches, optimizers):
        np.random.seed(0)
        return super().training_step(batches, optimizers)


class OwnGenerator(Good):
    """Initial weights from a generator of its own."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


class SetsDtype(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image)
        torch.set_default_dtype(torch.float64)


class SetsThreads(Good):
    def sample(self, n):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().sample(n)


class SetsEnvironment(Good):
    def training_step(self, batches, optimizers):
        os.environ["TOY"] = "1"
        return super().training_step(batches, optimizers)


class HidesWarnings(Good):
    def training_step(self, batches, optimizers):
        warnings.filterwarnings("ignore", message="toy")
        return super().training_step(batches, optimizers)


class LearntOutside(Good):
    """What training found is kept in a plain attribute."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.shift = torch.zeros(self.z_dim)

    def training_step(self, batches, optimizers):
        batch = next(batches)
        self.shift = 0.9 * self.shift + self.encode(batch.images).detach().mean(0).to("cpu" if self.seen.device.type == "cpu" else "meta")
        return super().training_step(batches, optimizers)

    def noise(self, n):
        return super().noise(n) + self.shift


class DrawnInTheConstructor(Good):
    """A constant that every process draws anew."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.directions = torch.randn(self.z_dim, self.z_dim)

    def noise(self, n):
        return super().noise(n) @ self.directions.to(self.seen.device)


class Grows(Good):
    """A buffer whose shape a fresh model does not have."""

    def training_step(self, batches, optimizers):
        self.register_buffer("bank", torch.zeros(int(getattr(self, "bank", torch.zeros(0)).shape[0]) + 1, device=self.seen.device))
        return super().training_step(batches, optimizers)


class Counts(Good):
    """A learning rate that decays by a counter kept beside the state."""

    steps = 0

    def training_step(self, batches, optimizers):
        self.steps += 1
        optimizers["all"].lr = self.lr / self.steps
        return super().training_step(batches, optimizers)


class CountsForLater(Good):
    """A counter that would matter in the thousandth step."""

    steps = 0

    def training_step(self, batches, optimizers):
        self.steps += 1
        return super().training_step(batches, optimizers)


class KeepsCounter(CountsForLater):
    """The same counter in extra state: nothing is wrong with it."""

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


class TrainsFromOwnGenerator(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.generator = torch.Generator().manual_seed(3)

    def loss(self, images):
        return super().loss(images + 0.1 * torch.randn(images.shape, generator=self.generator).to(images.device))


class Python(Good):
    """Randomness that no seed of the harness reaches."""

    generator = random.Random(1)

    def loss(self, images):
        return super().loss(images) * (1 + self.generator.random())


class SamplesInTrainMode(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.norm = nn.BatchNorm1d(self.z_dim)

    def loss(self, images):
        return super().loss(images) + self.norm(self.noise(len(images))).square().mean() * 0.01

    def sample(self, n):
        self.norm.train()
        return self.decoder(self.noise(n) + 0 * self.norm(self.noise(8)).mean())


class Frozen(Good):
    """A part put into eval mode once, where the harness leaves it."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.teacher = nn.Sequential(nn.Dropout(0.5)).eval()

    def loss(self, images):
        return super().loss(self.teacher(images))


class Remembers(Good):
    """What sample leaves in an attribute changes what is learnt."""

    drawn = 0

    def loss(self, images):
        return super().loss(images) * (1 + self.drawn)

    def sample(self, n):
        self.drawn = 1
        return super().sample(n)


class Unbounded(Good):
    def sample(self, n):
        return 3 * super().sample(n)


class Integers(Good):
    def sample(self, n):
        return super().sample(n).mul(127).int()


class NotANumber(Good):
    def sample(self, n):
        return super().sample(n) * math.nan


class TooFew(Good):
    def sample(self, n):
        return super().sample(max(1, n - 1))


class Same(Good):
    def sample(self, n):
        return super().sample(1).expand(n, -1, -1, -1)


class FromNumpy(Good):
    def noise(self, n):
        return torch.from_numpy(np.random.randn(n, self.z_dim)).float().to(self.seen.device)


class NoRandomness(Good):
    def sample(self, n):
        return self.decoder(torch.linspace(-1, 1, n * self.z_dim, device=self.seen.device).view(self.z_dim, n).T)


class Centred(Good):
    """Latents less their mean over the batch."""

    def sample(self, n):
        z = self.noise(n)
        return self.decoder(z - z.mean(0))


class NoStatistics(Good):
    """BatchNorm without running statistics."""

    def __init__(self, image: ImageSpec):
        super().__init__(image)
        self.decoder.insert(1, nn.BatchNorm1d(64, track_running_stats=False))


class Autoregressive(Good):
    """Probabilities of the next bits follow from those before, and by mistake from the other images."""

    def sample(self, n):
        bits = torch.bernoulli(torch.full((n, self.z_dim), 0.5, device=self.seen.device))
        more = torch.bernoulli((bits - bits.mean(0)).sigmoid())
        return self.decoder(bits + more)


class Deaf(Told):
    def sample(self, n, labels):
        return self.decoder(self.noise(n))


class WeightsTransposed(Good):
    def log_weights(self, images, k):
        return torch.zeros(len(images), k)


class NoDensity(Good):
    density = ""


class NoPrior(Good):
    prior = ""


class WrongDensity(Good):
    density = "gaussian"


class DecodesFlat(Good):
    def decode(self, z):
        return self.decoder(z).flatten(1)

    def reconstruct(self, images):
        return self.decoder(self.encode(images))


class EncodesNothing(Good):
    def encode(self, images):
        return self.encoder(images).mean()

    reconstruct = None


SABOTAGE = [
    (EightPixels, {"every size"}, r"1 x 16 x 16.*sizes=…"),
    (Grey, {"every size"}, r"shape \(3, 1, 8, 8\)"),
    (NeedsLabels, {"every size"}, r"without labels: AttributeError.*\(test_testing.py:\d+\)"),
    (Listed, {"every size", "follows its device", "step does not wait", "step", "checkpoint", "resume", "global state"}, "nn.ModuleList"),
    (NoiseOnCPU, {"follows its device"}, r"\(test_testing.py:\d+\): make tensors with device=other.device"),
    (ConstantOnCPU, {"follows its device"}, r"register_buffer"),
    (SamplesOnCPU, {"every size"}, "every size|sample"),
    (Waits, {"step does not wait"}, r"reads a tensor's value \(test_testing.py:\d+\)"),
    (DrawsNothing, None, r"call next\(batches\)"),
    (SetsProgress, None, "it is the harness that says"),
    (ReturnsList, None, "return a dict"),
    (ReturnsNothing, {"step"}, "return its losses"),
    (ReturnsNumbers, {"step", "resume", "bfloat16"}, "as a float; return named scalar tensors"),
    (ReturnsVector, {"step", "bfloat16"}, r"as a tensor of shape \(3,\)"),
    (ReturnsGraph, {"step"}, r"return loss.detach\(\)"),
    (ReturnsNaN, {"step", "bfloat16"}, "'loss' was nan after 1 steps"),
    (Stuck, {"step"}, "changed none of the parameters of optimizer 'all'"),
    (Orphan, {"step"}, r"forgotten.weight is in no optimizer.*requires_grad_\(False\)"),
    (Foreign, {"step"}, "is no parameter of the model"),
    (NoOptimizers, {"step"}, "configure_optimizers returned none"),
    (Backward, {"step", "resume"}, r"optimizers\[…\].minimize\(loss\)"),
    (Peeks, {"step"}, r"ModelSpec\(holdout=True\)"),
    (LowPrecision, {"bfloat16"}, "full_precision"),
    (Overflows, {"bfloat16"}, "full_precision"),
    (HalfState, {"bfloat16"}, "under bf16 autocast a step raised RuntimeError"),
    (SeedsItself, {"global state"}, "the constructor seeds a global generator, by torch.manual_seed"),
    (SeedsNumpy, {"global state"}, "training_step seeds a global generator, by numpy.random.seed"),
    (OwnGenerator, {"global state"}, "every seed gives the same initial weights"),
    (SetsDtype, None, "must have the same dtype"),
    (SetsThreads, {"global state"}, "sample changes .* torch.set_num_threads"),
    (SetsEnvironment, {"global state"}, "training_step changes .* os.environ"),
    (HidesWarnings, {"global state"}, "training_step changes .* warnings.filterwarnings"),
    (LearntOutside, {"checkpoint", "resume", "follows its device"}, r"plain attributes that differ: shift\): state must be"),
    (DrawnInTheConstructor, {"checkpoint"}, r"plain attributes that differ: directions\)"),
    (Grows, {"checkpoint", "resume", "sampling leaves training alone"}, "register_buffer"),
    (Counts, {"resume"}, r"plain attributes that differ: steps\)"),
    (CountsForLater, {"resume"}, "'steps', which a resumed run has lost"),
    (TrainsFromOwnGenerator, {"resume"}, r"plain attributes that differ: generator\)"),
    (Python, {"resume", "sampling leaves training alone"}, "two trainings from the same seed differ"),
    (Remembers, {"sampling leaves training alone"}, "training goes on differently after sample was called: keep nothing from sample"),
    (SamplesInTrainMode, {"sampling leaves training alone", "independence of batch size"}, "sample changed norm.running_mean"),
    (Unbounded, {"samples"}, "lie outside .* tanh"),
    (Integers, {"samples", "independence of batch size"}, "must return a float tensor"),
    (NotANumber, {"samples", "checkpoint", "sampling seed", "independence of batch size"}, "NaN or infinity"),
    (TooFew, {"every size", "samples", "independence of batch size"}, "it must be"),
    (Same, {"samples"}, "one latent for each"),
    (FromNumpy, None, "under the same seed"),
    (NoRandomness, {"sampling seed", "independence of batch size"}, "under every seed"),
    (Centred, {"independence of batch size"}, "depend on its company"),
    (NoStatistics, {"independence of batch size"}, "depend on its company"),
    (Autoregressive, {"independence of batch size"}, "depend on its company"),
    (Deaf, {"labels"}, "must use its labels"),
    (WeightsTransposed, {"abilities"}, r"returned shape \(20, 50\); it must be \(50, 20\)"),
    (NoDensity, {"abilities"}, 'Set density = "continuous"'),
    (NoPrior, {"abilities"}, 'set prior = "N'),
    (WrongDensity, {"abilities"}, "must be one of continuous"),
    (DecodesFlat, {"abilities"}, r"decode\(z\) returned shape \(5, 64\)"),
    (EncodesNothing, {"abilities"}, r"encode returned shape"),
]
"""A broken model, checks that see it (others may as well; None: it differs), and a part of what one of them says."""


@pytest.mark.parametrize(("cls", "expected", "message"), SABOTAGE, ids=[cls.__name__ for cls, _, _ in SABOTAGE])
def test_sabotage(cls, expected, message):
    before = settings()
    failed = failures(spec_of(cls))
    assert failed
    assert expected is None or expected & set(failed), failed
    import re

    assert any(re.search(message, said, re.DOTALL) for said in failed.values()), failed
    assert all("\n" not in said for said in failed.values())
    assert settings() == before


def test_a_part_in_eval_mode_may_stay_there():
    assert failures(spec_of(Frozen)) == {}


def test_a_counter_in_extra_state_is_state():
    assert failures(spec_of(KeepsCounter)) == {}


def test_declared_sizes_are_the_only_ones_asked_for():
    assert failures(spec_of(EightPixels, sizes=(8,))) == {}
    assert failures(spec_of(Good, sizes=(12, 20))) == {}


def test_digits_are_enlarged_for_models_of_larger_images():
    small, large = digits(8).train.images, digits(20).train.images
    assert large.shape[2:] == (20, 20)
    assert (large[:, :, 2:18:2, 2:18:2] == small).all()
    assert (large[:, :, 3:18:2, 2:18:2] == small).all()
    assert large.sum() == 4 * small.sum(dtype=large.sum().dtype)
    assert learning._features_of(large[:50]).distance(learning._features_of(small[:50])) == pytest.approx(0, abs=1e-6)


class LearnsTheMean(Good):
    """Collapses onto one image."""

    def loss(self, images):
        return (self.decoder(self.noise(len(images))) - images).square().mean()


class Slow(Good):
    def __init__(self, image: ImageSpec):
        super().__init__(image, lr=1e-7)


class Diverges(Good):
    def loss(self, images):
        return super().loss(images) * torch.where(self.seen > 800, math.nan, 1.0)


@pytest.mark.parametrize(
    ("cls", "message"), [(LearnsTheMean, "does not learn digits: FID"), (Slow, "preset"), (Diverges, "a loss was not finite by step")]
)
def test_what_does_not_learn_is_told(cls, message, monkeypatch):
    monkeypatch.setattr(learning, "BUDGETS", (60, 240))
    (check,) = [one for one in checks(spec_of(cls)) if one.name == "learns"]
    with pytest.raises(ConformanceError, match=message):
        check()


def test_licence(site):
    import importlib

    code = "from tests.test_testing import Good\nclass Own(Good):\n    pass\n"
    for name, said in (
        ("unlicensed", "License: UNKNOWN"),
        ("licensed", "License-Expression: MIT"),
        ("classified", "Classifier: License :: X"),
    ):
        point = site.install(name, code)
        assert isinstance(point.dist, PathDistribution)
        metadata = point.dist._path / "METADATA"
        metadata.write_text(metadata.read_text() + said + "\n")
        importlib.invalidate_caches()
        spec = spec_of(importlib.import_module(name).Own)
        (check,) = [one for one in checks(spec) if one.name == "licence"]
        if name == "unlicensed":
            with pytest.raises(ConformanceError, match='unlicensed names no licence: put license = "…"'):
                check()
        else:
            check()


class Control(nn.Module):
    """No parameters, no losses, no randomness, and done after a step."""

    def __init__(self, image: ImageSpec):
        super().__init__()
        self.finished = False
        self.register_buffer("first", torch.zeros(image.shape))

    def configure_optimizers(self):
        return {}

    def training_step(self, batches, optimizers):
        self.first.copy_(next(batches).images[0])
        self.finished = True
        return {}

    def sample(self, n):
        return self.first.expand(n, *self.first.shape).clone()


def test_controls_need_not_learn_but_everything_else_holds():
    assert failures(spec_of(Control, family="control", paper="")) == {}
    assert "learns" not in [check.name for check in checks(spec_of(Control, family="control"))]
    failed = failures(spec_of(Control, family="other"))
    assert {"step", "samples", "sampling seed", "every size"} <= set(failed)


def test_plain_attributes_and_modules_hidden_in_lists_are_seen():
    one, other = Good(ImageSpec(1, 8)), Good(ImageSpec(1, 8))
    assert "seen" not in attributes(one)
    assert differing(one, other) == []
    one.decoder[1].calls = {"n": [1, (2, torch.zeros(2))]}
    other.decoder[1].calls = {"n": [1, (2, torch.ones(2))]}
    one.hidden, other.hidden = [nn.Linear(2, 2)], [nn.Linear(2, 2)]
    one.alias, other.alias = [one.encoder], [other.encoder]  # registered elsewhere: nothing hidden
    one.rng, other.rng = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    one.rates, other.rates = np.zeros(3), np.zeros(3)
    one.register_buffer("cache", torch.zeros(2), persistent=False)
    other.register_buffer("cache", torch.ones(2), persistent=False)
    assert differing(one, other) == ["cache", "decoder.1.calls", "hidden", "rng"]


def test_check_model_names_every_failure():
    check_model(ModelSpec("noise", Control, family="control", description="A toy"))
    with pytest.raises(ConformanceError, match=r"(?s)toy fails 2 checks\nname paper and description: .*\nstep: "):
        check_model(spec_of(NoisyName, paper=""))


class NoisyName(Peeks):
    """Learns, but looks at the holdout split."""


@parametrize_checks([spec_of(Control, family="control"), ModelSpec("other", Control, family="control", description="Another")])
def test_checks_are_parameters_of_a_test(check):
    check()
    assert str(check) == f"{check.spec.name}: {check.name}"


def test_they_have_readable_ids():
    (mark,) = [mark for mark in test_checks_are_parameters_of_a_test.pytestmark if mark.name == "parametrize"]
    assert [one.id for one in mark.args[1]][:2] == ["toy-hparams-have-types-and-defaults", "toy-name-paper-and-description"]


def genbench(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-m", "genbench", *arguments], capture_output=True, text=True, cwd=cwd, timeout=200)


def test_the_command_line_says_what_each_check_found(tmp_path):
    done = genbench("check", "noise", "mean-image")
    assert done.returncode == 0, done.stderr
    assert "noise  (genbench-controls " in done.stdout
    assert "ok      independence of batch size" in done.stdout
    (tmp_path / "mine.py").write_text(MINE)
    done = genbench("check", "./mine.py:Mine", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = {item["check"]: item for item in json.loads(done.stdout)}
    assert "sampling seed" in {name for name, item in found.items() if item["status"] == "failed"}
    assert "under the same seed" in found["sampling seed"]["message"]
    assert "once it is registered" in found["name paper and description"]["message"]


MINE = """
import torch
from torch import nn
from genbench import ImageSpec

class Mine(nn.Module):
    family = "control"

    def __init__(self, image: ImageSpec, offset: float = 0.0):
        super().__init__()
        self.register_buffer("image", torch.zeros(image.shape))

    def configure_optimizers(self):
        return {}

    def training_step(self, batches, optimizers):
        self.image.copy_(next(batches).images[0])
        return {}

    def sample(self, n):
        self.calls = getattr(self, "calls", 0) + 1
        return (self.image * 0.5 + 0.001 * self.calls).expand(n, *self.image.shape)
"""


def test_unknown_models_are_the_users_mistake():
    done = genbench("check", "nosie")
    assert done.returncode == 2
    assert "did you mean 'noise'?" in done.stderr
    assert done.stdout == ""


def test_isolation_puts_everything_back(monkeypatch):
    before, state = settings(), (random.getstate(), torch.get_rng_state())

    def rude(subject: Subject) -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        os.environ["TOY"] = "1"
        os.chdir("/")
        sys.path.insert(0, "/nowhere")
        random.seed(3)
        torch.manual_seed(3)
        raise KeyError("rude")

    from genbench.testing import Check

    with pytest.raises(ConformanceError, match=r"it raised KeyError: 'rude' \(test_testing.py:\d+\)"):
        Check(spec_of(Good), rude)()
    assert settings() == before
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
