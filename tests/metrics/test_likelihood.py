"""Bounds against a model whose log p(x) is known, code lengths in closed form, SSIM against scikit-image's values."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import nn

from genbench import held_out
from genbench.datasets import Split
from genbench.datasets.resident import to_unit
from genbench.errors import GenbenchError
from genbench.held_out import as_evidence, consult
from genbench.metrics import Evidence, ModelEvidence, likelihood
from genbench.model import ImageSpec
from tests.toys import LinearGaussian

IMAGE = ImageSpec(1, 4)
CPU = torch.device("cpu")


def grey(n, seed=0, shape=(1, 4, 4)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def ask(model, images, seed=0, labels=None):
    test = Split(images, labels)
    return as_evidence(consult(model, test, seed, CPU), test)


def measured(said):
    evidence = Evidence(None, None, None, "test", 0, False, model=said)
    return {m.name: m for m in likelihood.compute(evidence)}


# ---- bounds ---------------------------------------------------------------------------------------------------------


def test_bounds_by_hand():
    weights = np.log(np.array([[1.0, 2.0], [3.0, 2.0]]))  # two weights of two images
    assert likelihood.elbo(weights) == pytest.approx([math.log(3) / 2, math.log(2)])
    assert likelihood.iwae(weights) == pytest.approx([math.log(2), math.log(2)])
    far = np.array([[-5000.0], [-5001.0]])  # exp(-5000) is 0 in float64
    assert likelihood.iwae(far) == pytest.approx([-5000 + math.log((1 + math.exp(-1)) / 2)])


def test_a_weight_of_zero_costs_the_elbo_everything_and_the_iwae_its_share():
    weights = np.array([[0.0], [-np.inf]])
    assert likelihood.elbo(weights)[0] == -np.inf
    assert likelihood.iwae(weights)[0] == pytest.approx(-math.log(2))


def test_the_exact_posterior_gives_log_p_at_any_k():
    model, x = LinearGaussian(IMAGE), to_unit(torch.from_numpy(grey(20)))
    for k in (1, 7):
        weights = model.log_weights(x, k).numpy()
        assert likelihood.elbo(weights) == pytest.approx(model.log_p(x).numpy(), abs=2e-3)
        assert likelihood.iwae(weights) == pytest.approx(model.log_p(x).numpy(), abs=2e-3)


def test_bounds_rise_to_log_p_with_k():
    torch.manual_seed(0)
    model, x = LinearGaussian(IMAGE, off=0.1), to_unit(torch.from_numpy(grey(20)))
    exact = float(model.log_p(x).mean())
    weights = model.log_weights(x, 20_000).double()
    bounds = [likelihood.iwae(weights.unflatten(0, (k, -1)).flatten(1).numpy()).mean() for k in (1, 2, 10, 100)]
    assert bounds[0] == pytest.approx(likelihood.elbo(weights.numpy()).mean())
    assert bounds == sorted(bounds)
    assert exact - bounds[0] > 0.1
    assert bounds[-1] < exact
    assert likelihood.iwae(weights.numpy()).mean() == pytest.approx(exact, abs=0.01)


# ---- code lengths ---------------------------------------------------------------------------------------------------


class Uniform(nn.Module):
    """The uniform density on [-1, 1]: or the uniform probability of levels, or of black and white."""

    def __init__(self, density="continuous"):
        super().__init__()
        self.density, self.seen = density, []

    def log_weights(self, images, k):
        self.seen.append(images)
        options = {"continuous": 2, "discrete": 256, "bernoulli": 2}.get(self.density, 1)
        return torch.full((k, len(images)), -images[0].numel() * math.log(options))


@pytest.mark.parametrize("density", ["continuous", "discrete"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 5)])
def test_a_uniform_density_needs_8_bits(density, shape):
    found = measured(ask(Uniform(density), grey(30, shape=shape)))
    for name in ("elbo_bpd", "iwae_bpd"):
        assert found[name].value == pytest.approx(8, abs=1e-6)
        assert found[name].better == "lower"
        assert "model-reported" in found[name].note
        assert "k = 50" in found[name].note
        assert "30 images" in found[name].note
        assert "prior not named" in found[name].note
        assert ("dequantisation" in found[name].note) == (density == "continuous")


def test_black_and_white_is_in_nats():
    binary = np.where(grey(30) > 100, 255, 0).astype(np.uint8)
    found = measured(ask(Uniform("bernoulli"), binary))
    assert found["elbo_nats"].value == pytest.approx(-16 * math.log(2))
    assert (found["iwae_nats"].better, found["iwae_nats"].unit) == ("higher", "nats")
    assert "elbo_bpd" not in found


def test_cross_entropy_on_grey_pixels_is_no_likelihood():
    almost = np.where(grey(30) > 100, 255, 0).astype(np.uint8)
    almost[7, 0, 2, 1] = 254
    found = measured(ask(Uniform("bernoulli"), almost))
    assert found["elbo_nats"].value is found["iwae_nats"].value is None
    assert "grey pixels" in found["elbo_nats"].note


def test_an_undeclared_density_is_not_guessed():
    found = measured(ask(Uniform(None), grey(30)))
    assert found["elbo_bpd"].value is None
    assert "does not say" in found["elbo_bpd"].note
    mute = Uniform(None)
    mute.density, mute.prior = nn.Linear(1, 1), nn.Linear(1, 1)  # a model's own affair
    assert measured(ask(mute, grey(30)))["iwae_bpd"].value is None
    with pytest.raises(GenbenchError, match="'gaussian'; it must be one of continuous, discrete, bernoulli"):
        ask(Uniform("gaussian"), grey(30))


def test_dequantised_images_fill_the_cells_of_their_levels():
    images = np.tile(np.array([0, 1, 128, 255], np.uint8), (500, 1, 4, 1))
    model = Uniform()
    ask(model, images)
    seen = torch.cat(model.seen)
    u = (seen + 1) * 128 - torch.from_numpy(images)
    assert u.min() >= -1e-4
    assert u.max() <= 1 + 1e-4
    assert ttest_1samp(u.flatten(), 0.5).pvalue > 0.01
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.05)
    exact = Uniform("discrete")
    ask(exact, images)
    assert torch.equal(torch.cat(exact.seen), to_unit(torch.from_numpy(images)))


def test_bits_per_dim_is_the_code_length_of_the_levels():
    """The mean of -log2 P(level) under N(0, 0.3^2), its cells integrated exactly, is met from above and nearly reached."""
    sigma, images = 0.3, grey(200)

    class Normal(nn.Module):
        density = "continuous"

        def log_weights(self, x, k):
            return torch.distributions.Normal(0.0, sigma).log_prob(x).flatten(1).sum(1).expand(k, -1)

    edges = torch.distributions.Normal(0.0, sigma).cdf(torch.linspace(-1, 1, 257, dtype=torch.float64))
    exact = float(-(edges.diff().log2()[torch.from_numpy(images).long()]).mean())
    found = measured(ask(Normal(), images))["elbo_bpd"]
    assert exact < found.value + 0.01
    assert found.value == pytest.approx(exact, abs=0.01)
    assert found.interval[0] < exact < found.interval[1]


# ---- reconstructions ------------------------------------------------------------------------------------------------


def textured(channels, height, width):
    """A pair of images made of integers alone."""
    c, i, j = np.indices((channels, height, width))
    x = (17 * i + 29 * j + 41 * c + i * j) % 256
    return x.astype(np.uint8)[None], np.clip(x + (7 * i * j + 13 * j) % 61 - 30, 0, 255).astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 16, 16), 0.9690964048132304), ((3, 32, 32), 0.9743855560749358), ((1, 20, 14), 0.9714424645247632)]
)
def test_ssim_is_scikit_images(shape, expected):
    """structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255) of scikit-image 0.26."""
    assert likelihood.ssim(*textured(*shape))[0] == pytest.approx(expected, abs=1e-10)


def test_ssim_of_small_images_has_the_largest_window_that_fits():
    x, y = (image[0, 0].astype(float) for image in textured(1, 8, 8))
    g = np.exp(-((np.arange(7) - 3) ** 2) / (2 * 1.5**2))
    w = np.outer(g, g) / g.sum() ** 2
    similar = []
    for top, left in np.ndindex(2, 2):
        a, b = (image[top : top + 7, left : left + 7] for image in (x, y))
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, cov = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
        similar.append((2 * ma * mb + 6.5025) * (2 * cov + 58.5225) / ((ma**2 + mb**2 + 6.5025) * (va + vb + 58.5225)))
    assert likelihood.ssim(*textured(1, 8, 8))[0] == pytest.approx(np.mean(similar), abs=1e-10)
    assert likelihood.ssim(grey(2, shape=(1, 1, 1)), grey(2, shape=(1, 1, 1))) == pytest.approx([1, 1])


def test_reconstruction_errors_by_hand():
    black, images = np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 1, 4, 4), np.uint8)
    images[0], images[1, 0, 0, 0] = 1, 255
    assert likelihood.mse(images, black) == pytest.approx([1 / 255**2, 1 / 16])
    assert likelihood.psnr(images, black) == pytest.approx([20 * math.log10(255), 10 * math.log10(16)])
    assert likelihood.psnr(images, images) == pytest.approx(10 * math.log10(12 * 255**2))
    assert likelihood.ssim(images, images) == pytest.approx(1)


def test_active_units_by_hand():
    means = np.zeros((5, 4), np.float32)
    means[:, 0] = [-2, -1, 0, 1, 2]
    means[:, 1] = 7  # far away and still
    means[0, 2], means[0, 3] = 0.23, 0.22  # variances 0.01058 and 0.00968
    assert likelihood.active_units(means) == 2


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    mean, (low, high) = likelihood.mean_interval(values)
    assert (mean, (low, high)) == (4, pytest.approx(ttest_1samp(values, 0).confidence_interval(0.95)))
    assert likelihood.mean_interval(np.array([3.0])) == (3, None)


# ---- a whole consultation -------------------------------------------------------------------------------------------


def test_what_a_model_says_of_itself():
    images = grey(60)
    model = LinearGaussian(IMAGE)
    found = measured(ask(model, images))
    assert list(found) == ["elbo_bpd", "iwae_bpd", "reconstruction_mse", "psnr", "ssim", "active_units"]
    exact = -(float(model.log_p(torch.cat(model.seen)).mean()) + 16 * math.log(2 / 256)) / (16 * math.log(2))
    assert found["elbo_bpd"].value == pytest.approx(exact, abs=1e-3)
    assert found["iwae_bpd"].value == pytest.approx(exact, abs=1e-3)
    assert "prior N(0, I)" in found["elbo_bpd"].note
    again = held_out.quantise(model.reconstruct(to_unit(torch.from_numpy(images)))).numpy()
    assert found["psnr"].value == pytest.approx(likelihood.psnr(images, again).mean())
    assert found["active_units"].value == 2
    assert {(m.n_real, m.n_fake, m.split, m.pixels_only) for m in found.values()} == {(60, 0, "test", True)}
    loose = measured(ask(LinearGaussian(IMAGE, off=0.1), images))
    assert exact < loose["iwae_bpd"].value < loose["elbo_bpd"].value


def test_answers_repeat_with_the_seed_and_images_are_the_same_for_all():
    model, images = LinearGaussian(IMAGE, off=0.1), grey(700)
    first, again, other = (ask(model, images, seed) for seed in (0, 0, 1))
    assert first.log_weights.shape == (50, 500)
    assert np.array_equal(first.log_weights, again.log_weights)
    assert not np.array_equal(first.log_weights, other.log_weights)
    assert np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images, images[:500])
    assert np.array_equal(first.means, other.means)


def test_a_model_is_asked_in_eval_mode_and_its_stream_is_its_own():
    model = LinearGaussian(IMAGE).train()
    torch.manual_seed(1)
    before = torch.rand(2)
    torch.manual_seed(1)
    ask(model, grey(10))
    assert torch.equal(torch.rand(2), before)
    assert model.training
    assert all(x.is_inference() for x in model.seen)


def test_every_hundred_images_asked_about_are_told():
    model, told = LinearGaussian(IMAGE), []
    consult(model, Split(grey(230), None), 0, CPU, k=2, on_chunk=lambda: told.append(len(model.seen)))
    assert told[:3] == [1, 2, 3]
    assert len(told) == 3 * 3  # weights, reconstructions, latent means


def test_a_model_without_answers_gives_none():
    assert consult(nn.Linear(1, 1), Split(grey(10), None), 0, CPU) == {}
    assert list(measured(ModelEvidence(grey(3)))) == []


@pytest.mark.parametrize(
    ("method", "answer", "measure", "says"),
    [
        ("log_weights", lambda x, k: torch.zeros(len(x), k), "elbo_bpd", r"shape \(10, 50\); it must be \(50, 10\)"),
        ("log_weights", lambda x, k: torch.full((k, len(x)), torch.nan), "iwae_bpd", "NaN"),
        ("log_weights", lambda x, k: torch.full((k, len(x)), torch.inf), "iwae_bpd", "infinity"),
        ("log_weights", lambda x: x, "elbo_bpd", "log_weights raised TypeError"),
        ("reconstruct", lambda x: (x, 0), "psnr", "reconstruct returned tuple, not a float tensor"),
        ("reconstruct", lambda x: x[:, :, :3], "reconstruction_mse", "shape"),
        ("encode", lambda x: torch.zeros(len(x), 2, dtype=torch.int64), "active_units", "int64"),
        ("encode", lambda x: torch.zeros(len(x)), "active_units", r"must be \(10, d\)"),
    ],
)
def test_a_wrong_answer_costs_only_its_own_measures(method, answer, measure, says):
    model = LinearGaussian(IMAGE)
    setattr(model, method, answer)
    found = measured(ask(model, grey(10)))
    assert found[measure].value is None
    assert re.search(says, found[measure].note)
    others = {"log_weights": {"psnr", "active_units"}, "reconstruct": {"elbo_bpd", "active_units"}, "encode": {"elbo_bpd", "psnr"}}[method]
    assert all(found[name].value is not None for name in others)


def test_a_model_that_takes_labels_is_told_them():
    class Told(Uniform):
        def log_weights(self, images, k, labels):
            assert labels.tolist() == [3] * 5 + [4] * 5
            return super().log_weights(images, k)

    found = measured(ask(Told(), grey(10), labels=np.array([3] * 5 + [4] * 5)))
    assert found["elbo_bpd"].value == pytest.approx(8)
    assert "given the label" in found["elbo_bpd"].note
