import time

import pytest

from genbench.budget import Budget, Ledger, Meter
from genbench.errors import GenbenchError


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [("60s", "seconds", 60), ("10m", "seconds", 600), ("2h", "seconds", 7200), ("1.5 h", "seconds", 5400),
     ("200kimg", "images", 200_000),
     ("7img", "images", 7), ("2Mimg", "images", 2e6), ("5000steps", "steps", 5000),
     ("1e15flops", "flops", 1e15), ("2.5E3FLOPs", "flops", 2500)],
)  # fmt: skip
def test_budget_is_read_with_its_unit(text, kind, amount):
    budget = Budget.parse(text)
    assert (budget.kind, budget.amount) == (kind, amount)


@pytest.mark.parametrize("text", ["", "60", "s", "60x", "0s", "-5s", "nan s", "inf h", "1e999s", "60 s s", "0steps", "ten minutes"])
def test_what_is_no_budget_is_refused_in_one_line(text):
    with pytest.raises(GenbenchError) as error:
        Budget.parse(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_meter_charges_only_inside_running():
    clock = Clock()
    meter = Meter(Budget.parse("10s"), clock=clock)
    clock.now += 5
    assert meter.seconds == 0
    with meter.running():
        clock.now += 4
        assert meter.seconds == 4
        assert not meter.exhausted
    clock.now += 50
    assert meter.seconds == 4
    with meter.running():
        clock.now += 7
    assert meter.exhausted
    assert meter.overshoot == pytest.approx(1.0)
    assert meter.progress == 1.0
    assert meter.ledger().seconds == pytest.approx(11.0)


def test_meter_waits_for_the_device_at_both_ends_of_the_clock():
    clock = Clock()

    def synchronize():
        clock.now += 2  # work that was queued before the clock started is not charged, work queued inside it is

    meter = Meter(Budget.parse("10s"), synchronize, clock)
    with meter.running():
        clock.now += 1
    assert meter.seconds == pytest.approx(3.0)


@pytest.mark.parametrize(("written", "field", "amount"), [("30img", "images", 30), ("4steps", "steps", 4), ("1e3flops", "flops", 1000.0)])
def test_other_budgets_count_their_own_kind(written, field, amount):
    meter = Meter(Budget.parse(written))
    setattr(meter, field, amount / 2)
    assert meter.progress == 0.5
    setattr(meter, field, amount * 2)
    assert meter.exhausted
    assert meter.overshoot == amount


def test_clock_is_monotonic_whatever_the_wall_clock_does(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    meter = Meter(Budget.parse("10s"))
    with meter.running():
        time.sleep(0.01)
    assert 0.009 < meter.seconds < 5


def test_ledger_says_how_long_threads_waited_for_a_core():
    meter = Meter(Budget.parse("10s"))
    with meter.running():
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            pass
    ledger = meter.ledger()
    assert 0 <= ledger.waited <= 1.5
    assert ledger.cpu_seconds > 0


def test_what_was_waited_is_the_same_after_going_on():
    meter = Meter(Budget.parse("10s"))
    meter.restore(Ledger(8.0, 40, 400, 0.0, 1.0, 0.15, threads=2))
    for _ in range(3):
        ledger, meter = meter.ledger(), Meter(Budget.parse("10s"))
        meter.restore(ledger)
    assert meter.ledger().waited == pytest.approx(0.15)
    assert meter.ledger().threads == 2


@pytest.mark.parametrize("text", ["_5s", "1__0s", "5_s", "1._5s"])
def test_a_number_that_python_does_not_read_is_refused(text):
    with pytest.raises(GenbenchError, match="is not a number with a unit"):
        Budget.parse(text)
    assert Budget.parse("1_000.5s").amount == 1000.5
