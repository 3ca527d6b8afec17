"""VAE/GAN against Algorithm 1: its three losses by hand, and one step of all three networks from one graph."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from genbench_vaes.observation import kl_divergence, reparameterise
from genbench_vaes.vae_gan import VAEGAN, feature_error, gan_value, turns
from torch import Tensor, nn

from genbench import Batch, ImageSpec, Optimizers


class OneBatch:
    """The same images for ever."""

    progress = 0.0

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return Batch(self.images)


def build() -> VAEGAN:
    torch.manual_seed(0)
    return VAEGAN(ImageSpec(1, 8), z_dim=4, width=4, gamma=0.3, lr=1e-2, batch_size=6)


def losses(model: VAEGAN, x: Tensor) -> dict[str, Tensor]:
    """E's, G's and D's, as Algorithm 1 writes them, with the noise of seed 1."""
    torch.manual_seed(1)
    mu, logvar = model.posterior(x)
    z = reparameterise(mu, logvar)
    fake = model.G(torch.cat([z, torch.randn_like(z)]))
    logits, features = model.D(torch.cat([x, fake]))
    llike = 0.5 * (features[:6] - features[6:12]).square().sum((1, 2, 3)).mean()
    sigmoid = logits.sigmoid()
    gan = (sigmoid[:6].log() + (1 - sigmoid[6:12]).log() + (1 - sigmoid[12:]).log()).mean()
    return {"E": kl_divergence(mu, logvar).mean() + llike, "G": 0.3 * llike + gan, "D": -gan}


def test_the_value_of_given_logits() -> None:
    # D = 3/4 at x, 1/2 at G(z), 1/5 at G(z_p)
    x, z, z_p = torch.tensor([math.log(3)]), torch.tensor([0.0]), torch.tensor([-math.log(4)])
    assert gan_value(x, z, z_p).item() == pytest.approx(math.log(3 / 4 * 1 / 2 * 4 / 5), abs=1e-6)
    assert gan_value(z_p, z, x).item() == pytest.approx(math.log(1 / 5 * 1 / 2 * 1 / 4), abs=1e-6)
    assert gan_value(torch.tensor([-1e4]), torch.tensor([1e4]), torch.tensor([1e4])).item() == -3e4


def test_the_error_is_summed_over_features_and_averaged_over_images() -> None:
    real, reconstructed = torch.zeros(2, 2, 1, 2), torch.zeros(2, 2, 1, 2)
    reconstructed[0, 0, 0, 0], reconstructed[0, 1, 0, 1], reconstructed[1, 1, 0, 0] = 3.0, 4.0, 1.0
    assert feature_error(real, reconstructed).item() == (25 + 1) / 2 / 2


@pytest.mark.parametrize(
    ("D_real", "D_fake", "goes"),
    [(0.5, 0.5, (1, 1)), (0.8, 0.5, (1, 0)), (0.5, 0.2, (1, 0)), (0.3, 0.5, (0, 1)), (0.5, 0.7, (0, 1)), (0.8, 0.7, (1, 1))],
)
def test_a_player_too_far_ahead_pauses(D_real: float, D_fake: float, goes: tuple[int, int]) -> None:
    # costs of 0.33 and 1.03 are the limits: D = 0.72 and 0.36 on real images, 0.28 and 0.64 on fake ones
    real, fake = torch.tensor([D_real]).logit(), torch.tensor([D_fake, D_fake]).logit()
    assert tuple(map(float, turns(real, fake))) == goes


def test_all_gradients_are_taken_before_any_network_steps() -> None:
    model, x = build(), torch.rand(6, 1, 8, 8) * 2 - 1
    by_hand = copy.deepcopy(model)
    found = losses(by_hand, x)
    gradients = {
        name: torch.autograd.grad(loss, list(getattr(by_hand, name).parameters()), retain_graph=True) for name, loss in found.items()
    }
    optimizers = by_hand.configure_optimizers()
    for name, optimizer in optimizers.items():
        for parameter, gradient in zip(getattr(by_hand, name).parameters(), gradients[name], strict=True):
            parameter.grad = gradient
        optimizer.step()

    torch.manual_seed(1)
    told = model.training_step(OneBatch(x), Optimizers(model.configure_optimizers()))
    for (name, ours), theirs in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        # RMSprop's first step is 0.03 whatever the gradient: where that is all but zero, its sign is rounding
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert told["L_GAN"].item() == pytest.approx(-found["D"].item(), abs=1e-5)


def test_stepping_in_turn_would_be_another_algorithm() -> None:
    model, x = build(), torch.rand(6, 1, 8, 8) * 2 - 1
    in_turn = copy.deepcopy(model)
    optimizers = Optimizers(in_turn.configure_optimizers())
    for name in ("E", "G", "D"):
        optimizers[name].minimize(losses(in_turn, x)[name])
    torch.manual_seed(1)
    model.training_step(OneBatch(x), Optimizers(model.configure_optimizers()))
    pairs = zip(model.named_parameters(), in_turn.parameters(), strict=True)
    same = {name: torch.allclose(ours, theirs, atol=1e-3, rtol=0) for (name, ours), theirs in pairs}
    assert all(value for name, value in same.items() if name.startswith("E."))  # the first to step saw the same networks
    assert not all(value for name, value in same.items() if name.startswith("G."))
    assert not all(value for name, value in same.items() if name.startswith("D."))


def test_the_networks_are_table_1s_at_64_pixels() -> None:
    with torch.device("meta"):
        model = VAEGAN(ImageSpec(3, 64))
    shapes = {name: [tuple(p.shape) for p in getattr(model, name).parameters() if p.ndim > 1] for name in ("E", "G", "D")}
    # 5x5 convolutions of 64, 128, 256 maps and 2048 units; 8x8x256 to 256, 128, 32 maps; 32, 128, 256, 256 maps and 512 units
    assert shapes["E"] == [(64, 3, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5), (2048, 8 * 8 * 256), (256, 2048)]
    assert shapes["G"] == [(8 * 8 * 256, 128), (256, 256, 5, 5), (256, 128, 5, 5), (128, 32, 5, 5), (3, 32, 5, 5)]
    assert shapes["D"] == [(32, 3, 5, 5), (128, 32, 5, 5), (256, 128, 5, 5), (256, 256, 5, 5), (512, 8 * 8 * 256), (1, 512)]
    assert isinstance(model.configure_optimizers()["G"], torch.optim.RMSprop)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in list(model.D.features)[-1:])  # l: before its normalisation
