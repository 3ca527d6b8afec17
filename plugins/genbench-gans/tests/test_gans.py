"""The GANs against their papers' equations, on shapes, and on problems small enough to learn in seconds."""

from __future__ import annotations

import math

import pytest
import torch
from genbench_gans import genbench_models
from genbench_gans.dcgan import DCGAN
from genbench_gans.gan import GAN, Maxout, generator_loss, minimax_value
from genbench_gans.wgan_gp import WGANGP, gradient_penalty
from torch import Tensor, nn

from genbench import Batch, ImageSpec
from genbench.model import Optimizers

SPECS = {spec.name: spec for spec in genbench_models()}
TINY = {"gan": {"z_dim": 6, "width": 16, "maxout": 8}, "dcgan": {"z_dim": 6, "width": 4}, "wgan-gp": {"z_dim": 6, "width": 4}}


class Batches:
    """Batches of a fixed set of images, drawn at random; counts what was drawn."""

    progress = 0.0

    def __init__(self, images: Tensor, batch_size: int) -> None:
        self.images, self.batch_size, self.drawn = images, batch_size, 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.drawn += self.batch_size
        return Batch(self.images[torch.randint(len(self.images), (self.batch_size,))])


def build(name: str, channels: int = 1, size: int = 8, **hparams: object) -> nn.Module:
    torch.manual_seed(0)
    return SPECS[name].cls(ImageSpec(channels, size), **{**TINY[name], "batch_size": 4, **hparams})


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    """Top-level parts (`G`, `D`) any of whose parameters moved."""
    return {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(before[name], p)}


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- every model ----------------------------------------------------------------------------------------------------


def test_names_families_and_papers():
    assert {name: spec.paper for name, spec in SPECS.items()} == {
        "gan": "arXiv:1406.2661", "dcgan": "arXiv:1511.06434", "wgan-gp": "arXiv:1704.00028",
    }  # fmt: skip
    assert {spec.family for spec in SPECS.values()} == {"gan"}


@pytest.mark.parametrize("name", SPECS)
def test_presets_are_hparams_of_the_model_and_declare_their_trials(name):
    spec = SPECS[name]
    for preset in spec.presets.values():
        assert set(preset) <= set(spec.hparams)
        assert all(type(value).__name__ == spec.hparams[key].type for key, value in preset.items())
    assert (spec.trials > 0) == bool(spec.presets)


@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SPECS)
def test_samples_have_the_images_shape_and_range_at_every_size(name, channels, size):
    model = build(name, channels, size).eval()
    with torch.inference_mode():
        images = model.sample(3)
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    assert images.std() > 0
    with torch.no_grad():
        assert model.D(images).shape == (3,)


@pytest.mark.parametrize("size", [8, 32, 128])
@pytest.mark.parametrize("name", SPECS)
def test_default_hparams_build_at_every_size(name, size):
    with torch.device("meta"):
        model = SPECS[name].cls(ImageSpec(3, size))
    assert model.batch_size == SPECS[name].hparams["batch_size"].default


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SPECS)
def test_a_step_moves_both_players_and_draws_what_the_paper_draws(name, dtype):
    model = build(name, channels=3, size=16).to(memory_format=torch.channels_last)
    optimizers = Optimizers(model.configure_optimizers())
    batches = Batches(torch.rand(16, 3, 16, 16) * 2 - 1, 4)
    before = parameters(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        scalars = model.training_step(batches, optimizers)
    assert changed(before, model) == {"G", "D"}
    assert batches.drawn == (20 if name == "wgan-gp" else 4)
    assert all(s.ndim == 0 and s.isfinite() and not s.requires_grad for s in scalars.values())
    assert all(p.dtype is torch.float32 for p in model.parameters())


@pytest.mark.parametrize("player", ["G", "D"])
@pytest.mark.parametrize("name", SPECS)
def test_each_optimizer_moves_its_own_player_only(name, player):
    model = build(name)
    optimizers = Optimizers(model.configure_optimizers())
    before = parameters(model)
    optimizers[player].minimize(model.D(model.G(model.latent(4))).square().sum())
    assert changed(before, model) == {player}
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", SPECS)
def test_sampling_in_eval_mode_leaves_the_state_alone_and_follows_the_seed(name):
    model = build(name, size=16).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.sample(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "steps", "hparams"),
    [("gan", 300, {"width": 32, "lr": 2e-3}), ("dcgan", 250, {"width": 16, "lr": 2e-3}), ("wgan-gp", 80, {"width": 8, "lr": 2e-3})],
)
def test_learns_where_the_light_is(name, steps, hparams):
    # the upper right quarter is bright or half bright: a model that has not learnt, or has learnt it mirrored, misses it
    images = torch.full((256, 1, 8, 8), -0.9)
    images[0::2, :, :4, 4:], images[1::2, :, :4, 4:] = 0.9, 0.3
    model = build(name, batch_size=16, **hparams)
    optimizers = Optimizers(model.configure_optimizers())
    batches = Batches(images + 0.05 * torch.randn_like(images), 16)
    for _ in range(steps):
        model.training_step(batches, optimizers)
    with torch.inference_mode():
        mean = model.eval().sample(64).mean(0)[0]
    assert mean[:4, 4:].mean() > 0.3
    assert mean[:, :4].mean() < -0.5
    assert mean[4:, 4:].mean() < -0.5


# ---- GAN ------------------------------------------------------------------------------------------------------------


def test_minimax_value_of_given_logits():
    # D(x) = 3/4, 1/2 and D(G(z)) = 1/4, 1/5: ln(3/8)/2 + ln(3/4 * 4/5)/2
    real, fake = torch.tensor([math.log(3), 0.0]), torch.tensor([-math.log(3), -math.log(4)])
    assert minimax_value(real, fake).item() == pytest.approx(math.log(3 / 8) / 2 + math.log(3 / 5) / 2, abs=1e-6)
    assert minimax_value(fake, real).item() != pytest.approx(minimax_value(real, fake).item(), abs=0.1)


def test_generator_losses_of_given_logits_and_their_gradients_where_D_is_sure():
    fake = torch.tensor([-math.log(3), math.log(4)])  # D(G(z)) = 1/4, 4/5
    assert generator_loss(fake, "minimax").item() == pytest.approx(math.log(3 / 4 * 1 / 5) / 2, abs=1e-6)
    assert generator_loss(fake, "non-saturating").item() == pytest.approx(-math.log(1 / 4 * 4 / 5) / 2, abs=1e-6)
    # the gradient with respect to the logit is -D for minimax, which vanishes as D rejects, and D - 1 for the other
    for loss, slope in (("minimax", -0.01), ("non-saturating", -0.99)):
        sure = torch.tensor([-math.log(99)], requires_grad=True)  # D(G(z)) = 0.01
        (gradient,) = torch.autograd.grad(generator_loss(sure, loss), sure)
        assert gradient.item() == pytest.approx(slope, abs=1e-6)


def test_losses_stay_finite_where_D_is_certain():
    assert minimax_value(torch.tensor([-1e4]), torch.tensor([1e4])).item() == -2e4
    assert generator_loss(torch.tensor([1e4]), "minimax").item() == -1e4


def test_the_best_discriminator_is_p_over_p_plus_q():
    # proposition 1 on three points: ascend V over free logits, weighting each point by its probability
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.2, 0.6])
    counts_p, counts_q = (p * 10).round().long(), (q * 10).round().long()
    logits = torch.zeros(3, requires_grad=True)
    for _ in range(400):
        value = minimax_value(logits.repeat_interleave(counts_p), logits.repeat_interleave(counts_q))
        (gradient,) = torch.autograd.grad(value, logits)
        logits.data += 5 * gradient
    assert torch.allclose(logits.sigmoid(), p / (p + q), atol=1e-4)
    # theorem 1: V(D*, G) = -log 4 + 2 JSD(p, q)
    m = (p + q) / 2
    jsd = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    assert value.item() == pytest.approx((2 * jsd - math.log(4)).item(), abs=1e-5)


def test_the_value_of_the_game_is_minus_log_4_where_D_cannot_tell():
    assert minimax_value(torch.zeros(5), torch.zeros(3)).item() == pytest.approx(-math.log(4), abs=1e-6)


def test_maxout_takes_the_largest_of_each_units_pieces():
    layer = Maxout(2, 2, pieces=3)
    with torch.no_grad():
        layer.affine.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1], [2, 0], [0, 0], [0, -3]]))
        layer.affine.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0.5, 0]))
    assert layer(torch.tensor([[1.0, 4.0], [-2.0, -1.0]])).tolist() == [[4.0, 2.0], [3.0, 3.0]]


def test_gan_draws_k_batches_for_the_discriminator():
    model = build("gan", k=3)
    batches = Batches(torch.zeros(8, 1, 8, 8), 4)
    model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert batches.drawn == 12


def test_gan_has_the_released_networks_at_28_pixels():
    model = GAN(ImageSpec(1, 28))
    # mnist.yaml: 100-1200-1200-784 and 784-(240x5)-(240x5)-1
    assert sum(p.numel() for p in model.G.parameters()) == 101 * 1200 + 1201 * 1200 + 1201 * 784
    assert sum(p.numel() for p in model.D.parameters()) == 785 * 1200 + 241 * 1200 + 241


# ---- DCGAN ----------------------------------------------------------------------------------------------------------


def test_dcgan_has_the_published_number_of_parameters():
    # 64x64x3, 64 maps: the sizes of the authors' Torch release as counted for PyTorch's port, examples/dcgan
    model = DCGAN(ImageSpec(3, 64))
    assert sum(p.numel() for p in model.G.parameters()) == 3_576_704
    assert sum(p.numel() for p in model.D.parameters()) == 2_765_568


def test_dcgan_follows_the_guidelines():
    model = DCGAN(ImageSpec(3, 64), width=8)
    kinds_G = [type(layer).__name__ for layer in (*model.G.hidden, *model.G.output)]
    kinds_D = [type(layer).__name__ for layer in model.D.net]
    up, down = ["ConvTranspose2d", "BatchNorm2d", "ReLU"], ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds_G == ["BatchNorm2d", "ReLU", *up * 3, "ConvTranspose2d", "Tanh"]
    assert kinds_D == ["Conv2d", "LeakyReLU", *down * 3, "Flatten", "Linear"]
    assert {layer.negative_slope for layer in model.D.net if isinstance(layer, nn.LeakyReLU)} == {0.2}
    ups = [layer for layer in model.G.hidden if isinstance(layer, nn.ConvTranspose2d)]
    assert [tuple(layer.weight.shape[:2]) for layer in ups] == [(64, 32), (32, 16), (16, 8)]


def test_dcgan_starts_from_the_papers_initialisation_and_optimizer():
    torch.manual_seed(0)
    model = DCGAN(ImageSpec(1, 32), width=32)
    weights = torch.cat([p.flatten() for name, p in model.named_parameters() if p.ndim > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean().item()) < 2e-4
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


# ---- WGAN-GP --------------------------------------------------------------------------------------------------------


def test_gradient_penalty_of_a_linear_critic():
    # D(x) = w.x has gradient w everywhere: the penalty is (||w|| - 1)^2 whatever the images
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    real, fake = torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8)
    penalty = gradient_penalty(lambda x: (x * w).flatten(1).sum(1), real, fake)
    assert penalty.item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake_for_each_image():
    # D(x) = |x|^2 / 2 has gradient x^: with fake = 0 it is eps * real, one eps for a whole image, uniform in [0, 1]
    real = torch.zeros(20_000, 1, 2, 2)
    real[:, 0, 0, 0], real[:, 0, 1, 1] = 3.0, 4.0
    torch.manual_seed(0)
    penalty = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, torch.zeros_like(real))
    # E (5 eps - 1)^2 = 25/3 - 5 + 1
    assert penalty.item() == pytest.approx(13 / 3, rel=0.02)


def test_gradient_penalty_is_differentiable_and_exact_under_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1), nn.Flatten(0))
    real, fake = torch.rand(6, 1, 4, 4), torch.rand(6, 1, 4, 4)

    def gradients(enabled: bool) -> Tensor:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            penalty = gradient_penalty(net, real, fake)
        return torch.cat([g.flatten() for g in torch.autograd.grad(penalty, [net[1].weight, net[3].weight])])

    assert gradients(False).norm() > 0.01
    assert torch.equal(gradients(True), gradients(False))


def test_wgan_gp_defaults_are_algorithm_1s():
    model = WGANGP(ImageSpec(1, 32), width=4)
    assert (model.gp_weight, model.n_critic, model.batch_size) == (10.0, 5, 64)
    for optimizer in model.configure_optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (1e-4, (0.0, 0.9))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.D.modules())


def test_the_critic_reaches_the_penalised_distance_between_two_points():
    # x and y are sqrt(64 * 0.5^2) = 4 apart. A slope g between them gains 4 g - 10 (g - 1)^2, most at g = 1 + 4/20: 4.8, penalty 0.04
    model = build("wgan-gp", width=8, batch_size=32, lr=1e-3, n_critic=200)
    nn.init.zeros_(model.G.output[0].weight)  # holds G at y = 0
    batches = Batches(torch.full((4, 1, 8, 8), 0.5), 32)
    scalars = model.training_step(batches, Optimizers(model.configure_optimizers()))
    assert scalars["wasserstein"].item() == pytest.approx(4.8, rel=0.08)
    assert scalars["penalty"].item() == pytest.approx(0.04, abs=0.03)
