import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from genbench.budget import Budget, Ledger, Meter
from genbench.datasets.resident import TrainingBatches
from genbench.errors import GenbenchError
from genbench.model import ImageSpec, Optimizers
from genbench.sample import draw
from genbench.train import Point, _FlopCounter, train
from tests.toys import Autoencoder, make_data

CPU = torch.device("cpu")
IMAGE = ImageSpec(3, 8)


def trained(model=None, budget="7steps", seed=0, precision="fp32", **options):
    torch.manual_seed(seed)
    model = (model or Autoencoder(IMAGE)).to(memory_format=torch.channels_last)
    meter = Meter(Budget.parse(budget))
    batches = TrainingBatches(make_data(), batch_size=model.batch_size, seed=seed, meter=meter, device=CPU)
    return model, train(model, Optimizers(model.configure_optimizers()), batches, meter, device=CPU, precision=precision, **options)


@pytest.mark.parametrize(("budget", "steps"), [("7steps", 7), ("55img", 6), ("60img", 6), ("0.06kimg", 6)])
def test_budgets_end_training_after_the_step_that_spends_them(budget, steps):
    _, training = trained(budget=budget)
    assert training.ledger.steps == steps
    assert training.ledger.images == 10 * steps
    assert training.overshoot == (5 if budget == "55img" else 0)


def test_time_budget_ends_by_the_clock():
    _, training = trained(budget="0.3s")
    assert 0.3 <= training.ledger.seconds < 30
    assert training.ledger.steps >= 1
    assert training.throughput > 0


def test_flops_are_counted_and_can_be_the_budget():
    _, training = trained(budget="1steps")
    # forward and both backward convolutions; the first layer needs no gradient of its input
    pixels, first, second = 10 * 64, 3 * 4 * 9, 4 * 3
    expected = 2 * pixels * (first * 2 + second * 3)
    assert training.ledger.flops == expected
    _, training = trained(budget=f"{expected * 3.5}flops")
    assert training.ledger.steps == 4


class Penalised(Autoencoder):
    """Differentiates inside its loss, as a gradient penalty does."""

    def training_step(self, batches, optimizers):
        x = next(batches).images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        optimizers["all"].minimize(gradient.square().mean())
        return {"penalty": gradient.square().mean().detach()}


def test_flops_of_a_gradient_penalty_are_counted():
    _, training = trained(Penalised(IMAGE), budget="1steps")
    _, plain = trained(budget="1steps")
    assert training.ledger.flops > plain.ledger.flops


def test_equal_seeds_and_steps_give_equal_bits():
    samples = [draw(trained(seed=seed)[0], 50, 0, IMAGE).images for seed in (1, 1, 2)]
    assert (samples[0] == samples[1]).all()
    assert not (samples[0] == samples[2]).all()


def test_the_curve_is_taken_at_its_shares_off_the_clock():
    seen = []

    def on_point(point):
        seen.append(point.steps)
        torch.rand(1)  # stands for work that takes long

    _, training = trained(budget="20steps", at=(0.25, 0.5, 1.0), on_point=on_point)
    assert seen == [5, 10, 20]
    assert [point.progress for point in training.points] == [0.25, 0.5, 1.0]
    assert all(math.isfinite(point.losses["loss"]) for point in training.points)


def test_a_point_just_after_a_tick_keeps_the_rate(monkeypatch):
    monkeypatch.setattr("genbench.train.TICK", 0.0)
    rates = []
    trained(budget="20steps", at=(0.5, 1.0), on_point=lambda point: rates.append(point.rate))
    assert len(rates) == 2
    assert min(rates) > 0


def test_curve_points_cost_no_budget():
    import time

    _, training = trained(budget="4steps", at=(0.5, 1.0), on_point=lambda point: time.sleep(3))
    assert training.ledger.seconds < 3


class Diverges(Autoencoder):
    def training_step(self, batches, optimizers):
        scalars = super().training_step(batches, optimizers)
        return {"loss": scalars["loss"] * torch.nan}


def test_divergence_is_an_outcome(monkeypatch):
    monkeypatch.setattr("genbench.train.TICK", math.inf)  # so that it is the point of the curve that sees it, however slow the machine
    _, training = trained(Diverges(IMAGE), budget="30steps", at=(0.5, 1.0))
    assert "loss = nan" in training.diverged
    assert training.ledger.steps == 15


class Idle(Autoencoder):
    def training_step(self, batches, optimizers):
        return {}


class Talkative(Autoencoder):
    def training_step(self, batches, optimizers):
        next(batches)
        return {"loss": 3.0}


@pytest.mark.parametrize(("cls", "says"), [(Idle, "drew no batch"), (Talkative, "'loss' that is not a scalar tensor")])
def test_breaches_of_the_contract_are_named(cls, says):
    with pytest.raises(GenbenchError, match=says):
        trained(cls(IMAGE))


class Finishes(Autoencoder):
    finished = False

    def training_step(self, batches, optimizers):
        self.finished = True
        return super().training_step(batches, optimizers)


def test_a_model_may_finish_early():
    _, training = trained(Finishes(IMAGE), at=(0.5, 1.0))
    assert training.finished_early
    assert training.ledger.steps == 1
    assert len(training.points) == 1


def test_stop_from_outside_ends_between_steps():
    _, training = trained(budget="60s", stop=lambda: True)
    assert training.stopped
    assert training.ledger.seconds < 30


def test_progress_is_frozen_within_a_step():
    class Looks(Autoencoder):
        seen = ()

        def training_step(self, batches, optimizers):
            before = batches.progress
            scalars = super().training_step(batches, optimizers)
            self.seen += ((before, batches.progress),)
            return scalars

    model, _ = trained(Looks(IMAGE), budget="40img")
    assert model.seen == ((0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (0.75, 0.75))


def test_bf16_autocast_reaches_the_model_and_its_weights_stay_fresh():
    seen = []

    class Two(Autoencoder):
        """Steps twice on the same batch: a stale bf16 copy of the weights would give the same loss twice."""

        def training_step(self, batches, optimizers):
            real = next(batches).images
            losses = []
            for _ in range(2):
                out = self.net(real)
                seen.append(out.dtype)
                losses.append((out.float() - real).square().mean())
                optimizers["all"].minimize(losses[-1])
            assert losses[0].item() != losses[1].item()
            return {"loss": losses[-1]}

    trained(Two(IMAGE, lr=0.05), budget="3steps", precision="bf16")
    assert set(seen) == {torch.bfloat16}


# ---- optimizers ------------------------------------------------------------------------------------------------------


def test_minimize_touches_only_its_own_parameters():
    G, D = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizers = Optimizers({"G": SGD(G.parameters(), 0.1), "D": SGD(D.parameters(), 0.1)})
    before = D.weight.clone()
    optimizers["G"].minimize(D(G(torch.ones(4, 2))).mean())
    assert D.weight.grad is None
    assert torch.equal(D.weight, before)


def test_joint_losses_take_all_gradients_before_any_step():
    a, b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))
    optimizers = Optimizers({"A": SGD([a], 0.1), "B": SGD([b], 0.1)})
    shared = a * b
    optimizers.minimize({"A": shared, "B": shared**2})
    # da = b = 3; db = 2ab * a = 24, both at the old point
    assert a.item() == pytest.approx(2 - 0.3)
    assert b.item() == pytest.approx(3 - 2.4)


def test_clip_norm_bounds_the_step():
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    Optimizers({"P": SGD([p], 1.0)})["P"].minimize((p * torch.tensor([3.0, 4.0])).sum(), clip_norm=1.0)
    assert p.tolist() == pytest.approx([3 - 0.6, 4 - 0.8], abs=1e-4)


def test_adam_becomes_fused_and_an_authors_choice_is_kept():
    p = nn.Parameter(torch.ones(3))
    assert Optimizers({"P": Adam([p])})["P"].torch.param_groups[0]["fused"] is True
    assert not Optimizers({"P": Adam([p], foreach=True)})["P"].torch.param_groups[0]["fused"]


def test_fused_adam_steps_like_the_plain_one():
    results = []
    for wrap in (lambda adam: Optimizers({"P": adam})["P"].torch, lambda adam: adam):
        p = nn.Parameter(torch.tensor([1.0, -2.0]))
        adam = wrap(Adam([p], 0.1))
        for _ in range(5):
            (p**2).sum().backward()
            adam.step()
            adam.zero_grad()
        results.append(p.detach())
    assert torch.allclose(*results, atol=1e-6)


def test_lr_is_settable():
    optimizer = Optimizers({"P": SGD([nn.Parameter(torch.ones(1))], 0.1)})["P"]
    optimizer.lr = 0.5
    assert optimizer.torch.param_groups[0]["lr"] == 0.5 == optimizer.lr


def test_what_is_measured_at_a_point_joins_its_losses():
    _, training = trained(budget="4steps", at=(0.5, 1.0), on_point=lambda point: {"holdout": 10.0 * point.steps})
    assert [point.losses["holdout"] for point in training.points] == [20, 40]
    assert all("loss" in point.losses for point in training.points)


@pytest.mark.parametrize(("last", "points", "steps"), [(4, [], 4), (5, [5], 6), (10, [5, 10], 10)])
def test_a_stop_at_the_step_that_ends_a_part_takes_nothing_from_it(monkeypatch, last, points, steps):
    monkeypatch.setattr("genbench.train.TICK", 0.0)
    said = []
    _, training = trained(budget="10steps", at=(0.5, 1.0), stop=lambda: said[-1].steps >= last, on_tick=said.append)
    assert [point.steps for point in training.points] == points
    assert training.stopped == (last < 10)
    assert training.ledger.steps == steps


def test_what_was_trained_is_saved_before_the_last_point():
    order = []
    said = {"save": lambda points, last: order.append(len(points)), "on_point": lambda point: order.append(point.steps)}
    trained(budget="10steps", at=(0.5, 1.0), **said)
    assert order == [5, 1, 10]
    trained(Finishes(IMAGE), at=(1.0,), save=lambda *told: order.append(told))  # whether a model has finished is not in its state
    assert len(order) == 3
    trained(budget="10steps", save=lambda points, last: order.append("without a curve"))
    assert order[3:] == ["without a curve"]


@pytest.mark.parametrize(("spent", "points"), [(10, [10]), (7, [7, 10])])
def test_points_that_were_not_taken_are_taken_where_it_goes_on(spent, points):
    """At once, where a crash that was charged, or a kill at the end of the budget, has carried the clock beyond them."""
    model, (earlier, saves) = Autoencoder(IMAGE), ([Point(0.25, 1.0, 2, 20, 9.0, {"loss": 1.0})], [])
    meter = Meter(Budget.parse("10steps"))
    meter.restore(Ledger(1.0, spent, 10 * spent, 0.0, 0.0, 0.0))
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=CPU)
    training = train(
        model, Optimizers(model.configure_optimizers()), batches, meter, device=CPU, at=(0.25, 0.5, 1.0), earlier=earlier,
        save=lambda *told: saves.append(told),
    )  # fmt: skip
    assert [point.steps for point in training.points] == [2, *points]
    assert meter.steps == 10
    assert len(saves) == (spent < 10)


def test_a_step_is_counted_once_however_often_a_run_goes_on(monkeypatch):
    """A step that is counted runs as it is written, not as it was compiled: other bits, and another charge of FLOPs."""
    model, counted = Autoencoder(IMAGE), []
    monkeypatch.setattr("genbench.train._FlopCounter", lambda truly=_FlopCounter: counted.append(1) or truly())
    meter = Meter(Budget.parse("4steps"))
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=CPU)
    train(model, Optimizers(model.configure_optimizers()), batches, meter, device=CPU)
    ledger, again = meter.ledger(), Meter(Budget.parse("8steps"))
    again.restore(ledger)
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=again, device=CPU)
    train(model, Optimizers(model.configure_optimizers()), batches, again, device=CPU)
    assert counted == [1]
    assert again.ledger().flops == 2 * ledger.flops > 0


def test_a_share_beyond_the_budget_is_no_point():
    _, training = trained(budget="4steps", at=(0.5, 1.5, math.nan))
    assert [point.steps for point in training.points] == [2, 4]


class Copies(nn.Module):
    """Learns nothing that torch would count."""

    batch_size = 10

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def configure_optimizers(self):
        return {"all": SGD(self.parameters(), 0.1)}

    def training_step(self, batches, optimizers):
        optimizers["all"].minimize((next(batches).images - self.level).abs().mean())
        return {}


def test_a_budget_in_flops_refuses_steps_that_have_none(monkeypatch):
    monkeypatch.setattr("genbench.train.TICK", 0.0)
    with pytest.raises(GenbenchError, match="its steps have no FLOPs that torch counts"):
        trained(Copies(), budget="1e6flops")
    assert trained(Copies(), budget="3steps")[1].ledger.flops == 0


def test_what_goes_on_at_its_end_knows_how_it_stood():
    """The last point of a run that was interrupted while it was taken: no step is left to tell a loss."""
    model, before = Autoencoder(IMAGE), Point(1.0, 2.0, 10, 100, 60.0, {"loss": 0.25})
    meter = Meter(Budget.parse("10steps"))
    meter.restore(Ledger(2.0, 10, 100, 0.0, 0.0, 0.0, lost=0.4))
    batches = TrainingBatches(make_data(), batch_size=10, seed=0, meter=meter, device=CPU)
    optimizers = Optimizers(model.configure_optimizers())
    training = train(model, optimizers, batches, meter, device=CPU, at=(1.0,), last=before)
    (point,) = training.points
    assert (point.steps, point.rate, point.losses) == (10, 60.0, {"loss": 0.25})
    assert training.throughput == pytest.approx(100 / 1.6, rel=0.01)  # not of the seconds that a crash undid
    assert training.last.losses == {"loss": 0.25}
