"""What a plugin may do to its process, its clock, its samples and its supervisor: it costs its own run, and is told."""

import os
import random
import re
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from genbench_controls import genbench_models as controls
from torch import nn

from genbench import surroundings
from genbench.errors import GenbenchError
from genbench.leaderboard import aggregate
from genbench.model import ImageSpec
from genbench.sample import draw, heeds_its_seed
from genbench.seeds import stream
from genbench.testing.subject import Subject, Trial
from tests.faults.conftest import TRACK, no_children_left, told

# ---- what it does to its process ------------------------------------------------------------------------------------------


RUDE = """
def __init__(self, image):
    super().__init__(image)
    torch.manual_seed(3)
    np.random.seed(3)
    os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
def misbehave(self):
    if self.count == 3:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        torch.use_deterministic_algorithms(False)
        random.seed(3)
        warnings.simplefilter("ignore")
        np.seterr(all="raise")
        os.chdir("/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.time = lambda: 0.0
        threading.Thread(target=time.sleep, args=(600,)).start()
"""


def test_what_a_plugin_changes_stays_in_its_process_and_is_told(attempt):
    before, clocks = (surroundings.settings(), random.getstate(), torch.get_rng_state()), (time.time, time.monotonic)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    record = attempt(RUDE)
    assert record.status == "done", (record.reason, record.log_tail)
    assert set(told(record)) == {
        "changed the default dtype", "changed the number of threads", "changed anomaly detection", "changed deterministic algorithms",
        "changed numpy's handling of errors", "changed the filters of all warnings", "changed the working directory",
        "changed the handling of SIGTERM", "changed the environment (OMP_WAIT_POLICY)", "replaced time.time", "left 1 thread running",
        "seeded torch's generator", "seeded numpy's generator", "seeded Python's generator",
    }  # fmt: skip
    assert (surroundings.settings(), random.getstate()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (time.time, time.monotonic) == clocks
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert no_children_left()
    assert told(attempt(results="next")) == []  # of another run in the same fork server


def test_what_is_put_back_or_a_librarys_own_is_not_told():
    watch = surroundings.Watch()
    try:
        with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings(), np.errstate(all="ignore"):
            torch.manual_seed(4)
            warnings.simplefilter("ignore")
        state, ours = random.getstate(), np.random.get_state()
        random.random(), np.random.rand(2000)
        np.random.set_state(ours), random.setstate(state)
        warnings.filterwarnings("ignore", message="a library's own", category=UserWarning)
        assert watch.look() == ()
        torch.manual_seed(5)
        watch.seeded()
        assert watch.look() == ()
    finally:
        watch.close()
        warnings.filters.pop(0)


def test_looking_costs_no_step_and_is_soon_done():
    """It happens three times a stage; a run of a minute has a hundred thousand steps."""
    watch = surroundings.Watch()
    try:
        begun = time.perf_counter()
        for _ in range(20):
            watch.look()
        assert (time.perf_counter() - begun) / 20 < 0.02
    finally:
        watch.close()
    assert random.seed.__self__ is random._inst  # the functions it replaced are back


def test_a_working_directory_that_is_gone_is_told_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch = surroundings.Watch()
    try:
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert watch.look() == ("changed the working directory",)
    finally:
        watch.close()


# ---- its clock ------------------------------------------------------------------------------------------------------------


def test_a_replaced_clock_does_not_lengthen_the_budget_and_is_told(attempt):
    """As a plugin's tests may leave it behind: time stands still for whoever asks."""
    body = """
    time.monotonic = time.perf_counter = time.time = lambda: 1.0
    time.perf_counter_ns = lambda: 10**9
    def misbehave(self):
        time.sleep(0.005)
    """
    begun = time.monotonic()
    record = attempt(body, track=TRACK.model_copy(update={"budget": "1.5s"}))
    assert record.status == "done", (record.reason, record.log_tail)
    assert 1.5 <= record.spent.seconds < 10
    assert 0 < record.spent.steps <= 300
    assert record.throughput.sample["64"][0] > 0
    assert "replaced time.monotonic, time.perf_counter and 2 more" in record.flags
    assert time.monotonic() - begun < 60


def test_a_clock_that_is_slowed_in_the_harness_itself_is_found_out_by_the_supervisors(attempt):
    body = """
    import genbench.ranks
    truly = genbench.ranks.perf_counter
    genbench.ranks.perf_counter = lambda: Mine.truly() / 5
    def misbehave(self):
        time.sleep(0.005)
    """
    record = attempt(body, track=TRACK.model_copy(update={"budget": "1s", "grace": 30.0}))
    assert record.status == "done", record.reason
    assert 4.5 < record.spent.seconds < 15  # charged by the supervisor's clock
    assert record.spent.overshoot == pytest.approx(record.spent.seconds - 1)
    assert any(re.match(r"its clock fell behind: 1\.\d s of ", flag) for flag in record.flags)
    record = attempt(body, track=TRACK.model_copy(update={"budget": "1s", "grace": 1.0}), results="short")
    assert record.status == "timeout"
    assert "budget and grace are 2 s" in record.reason


# ---- its samples ----------------------------------------------------------------------------------------------------------


class Sampler(nn.Module):
    """Samples by a function of n and of itself."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, 0
        self.register_buffer("stored", torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)

    def sample(self, n, labels=None):
        self.calls += 1
        return self.function(self, n) if labels is None else self.function(self, n, labels)


IMAGE = ImageSpec(1, 8)
AGAIN, DEAF = ["not repeatable: the same seed gave different images"], ["ignores the seed: another gave the same images"]


def seeded_within(model, n):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda model, n: torch.rand(n, 1, 8, 8), []),
        (lambda model, n: model.stored[torch.randperm(40)[:n]], []),
        (lambda model, n: torch.zeros(n, 1, 8, 8), []),  # collapsed, which is another flag
        (lambda model, n: model.stored[:1].expand(n, 1, 8, 8), []),
        (lambda model, n: model.stored[torch.randint(2, (n,))], []),  # two modes
        (lambda model, n: model.stored[:n], DEAF),
        (seeded_within, DEAF),
        (lambda model, n: model.stored[torch.arange(n) + model.calls], AGAIN),
        (lambda model, n: torch.from_numpy(np.random.rand(n, 1, 8, 8)).float(), AGAIN),
    ],
)
def test_a_model_that_does_not_heed_its_seed_is_told_and_no_other(function, says):
    assert heeds_its_seed(Sampler(function), 16, 0, IMAGE) == says


def test_a_conditional_model_is_asked_about_one_class():
    per_class = Sampler(lambda model, n, labels: model.stored[labels])  # each class has collapsed
    assert heeds_its_seed(per_class, 16, 0, IMAGE, label=3) == []
    deaf = Sampler(lambda model, n, labels: model.stored[(labels + torch.arange(n)) % 40])
    assert heeds_its_seed(deaf, 16, 0, IMAGE, label=3) == DEAF


@pytest.mark.parametrize("spec", controls(), ids=lambda spec: spec.name)
def test_controls_that_are_deterministic_by_nature_are_not_told(spec):
    subject = Subject(spec)
    trial = Trial(subject, 1)
    trial.run(1)
    n = min(16, int(getattr(trial.model, "num_available", 16)))
    assert heeds_its_seed(trial.model, n, 0, subject.image, stored=True) == []


def test_stored_images_may_be_dealt_in_one_order():
    assert heeds_its_seed(Sampler(lambda model, n: model.stored[:n]), 16, 0, IMAGE, stored=True) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def sample(self, n):\n    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))", DEAF),
        ("def sample(self, n):\n    self.count += 1\n    return super().sample(n) * (0.5 if self.count % 2 else 1)", AGAIN),
    ],
)
def test_the_record_of_a_run_says_how_its_model_treats_seeds(attempt, body, says):
    record = attempt(body)
    assert record.status == "done", (record.reason, record.log_tail)
    assert [flag for flag in told(record) if "duplicates" not in flag] == says


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_in_one_pixel_of_one_image_is_named(value):
    def function(model, n):
        images = torch.rand(n, 1, 8, 8)
        images[n // 2, 0, 3, 4] = value
        return images

    with pytest.raises(GenbenchError, match=r"sample\(60\) returned NaN or infinity"):
        draw(Sampler(function), 60, 0, IMAGE)


def test_values_out_of_range_are_clipped_and_told(attempt):
    record = attempt("def sample(self, n):\n    return 2 * torch.randn(n, 1, 8, 8)")
    assert record.status == "done"
    (flag,) = [flag for flag in record.flags if "clipped" in flag]
    assert 55 < float(flag.partition("%")[0]) < 70  # P(|2 z| > 1) = 0.617


# ---- training where it may not --------------------------------------------------------------------------------------------


def test_a_model_that_trains_while_its_clock_stands_still_is_a_named_failure(attempt):
    """In the process that trains, where it has its optimizers; the fresh process that draws the samples would not notice."""
    record = attempt("def sample(self, n):\n    self.net[0].weight.data.mul_(0.9 if self.count else 1)\n    return super().sample(n)")
    assert record.status == "error"
    assert "changed while its clock stood still; sample() and its like must not train, nor may a thread" in record.reason


def test_a_thread_that_trains_on_its_own_is_a_named_failure_and_ends_with_its_process(attempt):
    body = """
    def train_on(self):
        while True:
            with torch.no_grad():
                self.net[0].bias.add_(1e-4)
            time.sleep(0.0005)
    def misbehave(self):
        if self.count == 2:
            threading.Thread(target=self.train_on, daemon=True).start()
    def sample(self, n):
        time.sleep(0.05)
        return super().sample(n)
    """
    record = attempt(body)
    assert record.status == "error"
    assert "clock stood still" in record.reason
    assert no_children_left()


def test_what_a_plugin_does_when_its_model_or_its_process_ends_changes_nothing(attempt, tmp_path):
    body = f"""
    marks = Path({str(tmp_path)!r})
    def misbehave(self):
        import atexit
        if self.count == 1:
            atexit.register((self.marks / "atexit").touch)
            threading.Thread(target=time.sleep, args=(600,)).start()  # which a normal end would wait for
    def __del__(self):
        (self.marks / "del").touch()
        self.net[0].weight.data.add_(1)
        time.sleep(0.1)
        raise SystemExit(3)
    """
    begun = time.monotonic()
    record = attempt(body)
    assert record.status == "done", record.reason
    assert record.digests == attempt(results="innocent").digests
    assert told(record) == ["left 1 thread running"]
    assert (tmp_path / "del").exists()  # it had its turn, after the checkpoint was sealed
    assert not (tmp_path / "atexit").exists()
    assert time.monotonic() - begun < 100


# ---- whatever it raises, wherever -----------------------------------------------------------------------------------------


ODD = "class Odd(BaseException):\n    def __str__(self):\n        raise self\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def __init__(self, image):\n    raise SystemExit(0)", "SystemExit: 0"),
        ("def configure_optimizers(self):\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        (ODD + "def configure_optimizers(self):\n    raise Mine.Odd", "Odd"),
        ("def eval(self):\n    raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
        ("def state_dict(self, *args, **kwargs):\n    os._exit(0)", "exit code 0 and no result"),
        ("def state_dict(self, *args, **kwargs):\n    return {'w': {1, 2}}", "state 'w' is a set"),
        ("def load_state_dict(self, state):\n    raise GeneratorExit('late')", "GeneratorExit: late"),
        ("def sample(self, n):\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def sample(self, n):\n    sys.exit()", "SystemExit"),
        ("@property\ndef finished(self):\n    raise LookupError('finished?')", "LookupError: finished?"),
        ("@property\ndef num_available(self):\n    raise StopIteration", "StopIteration"),
        ("def training_step(self, batches, optimizers):\n    return next(batches)", "must return a dict of named scalars"),
    ],
)
def test_whatever_is_raised_wherever_is_a_named_failure(attempt, body, says):
    record = attempt(body)
    assert record.status == "error"
    assert says in record.reason
    assert attempt.store.get(attempt.planned.spec) == record
    assert no_children_left()


def test_the_reason_is_one_printable_line_whatever_the_exception_says(attempt):
    record = attempt("def misbehave(self):\n    raise ValueError('\\x1b[2J\\x07 red \\u202e' + 'x' * 1000 + '\\nnext line')")
    assert record.reason.startswith("ValueError: [2J red xxx")
    assert record.reason.isprintable()
    assert len(record.reason) < 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.closerange(3, 256)", "exit code|channel"),
        ("os.close(channel.fileno())", "exit code|channel"),
        ("channel.send_bytes(b'[1]')", "no stage says"),
        ("channel.send_bytes(b'{')", "channel|exit code"),
        ("os.write(channel.fileno(), b'\\x7f\\xff\\xff\\xff')", "channel|exit code"),
        ("""channel.send_bytes(b'{"kind": "tick", "phase": "curve", "progress": 1.0, "losses": "high"}')""", "no stage says"),
        ("""channel.send_bytes(b'{"kind": "result"}')""", "no stage says"),
        ("""channel.send_bytes(b'{"kind": "failed", "status": "done", "reason": ""}')""", "no stage says"),
        ("""channel.send_bytes(b'{"kind": "result", "value": {}}')""", "its result is none: spent: Field required"),
        ("channel.send_bytes(json.dumps(TICK | {'progress': float('nan')}).encode())", "no stage says"),
        ("TICK.pop('phase')\n                channel.send_bytes(json.dumps(TICK).encode())", "no stage says"),
        ("os.write(channel.fileno(), b'\\x00\\x00\\x10\\x00{')", "still training"),
    ],
)
def test_a_plugin_that_spoils_its_channel_fails_alone(attempt, body, says):
    record = attempt(
        f"""
        def misbehave(self):
            import json
            from genbench.child import Channel
            TICK = dict(kind="tick", phase="curve", devices=1, progress=0.7, seconds=1.0, steps=3, images=9, rate=9.0, losses={{}})
            if self.count == 3:
                channel = next(one for one in gc.get_objects() if type(one) is Channel)._connection
                {body}
                time.sleep(600)
        """,
        track=TRACK.model_copy(update={"budget": "3s"}),
    )
    assert record.status in ("error", "timeout")
    assert any(word in record.reason for word in says.split("|"))
    assert no_children_left()


def test_a_model_that_fails_for_the_second_seed_only_keeps_its_other_seeds_and_what_it_had(attempt, tmp_path):
    body = f"""
    def __init__(self, image):
        self.unlucky = torch.initial_seed() == {stream(1, "init")}
        super().__init__(image)
    def misbehave(self):
        if self.unlucky and self.count > 8:
            raise ValueError("bad luck")
    """
    records = [attempt(body, seed=seed) for seed in range(3)]
    assert [record.status for record in records] == ["done", "error", "done"]
    assert [point.steps for point in records[1].curve] == [6]
    assert (records[1].spent.steps, records[1].reason) == (8, "ValueError: bad luck")
    (table,) = aggregate.read(tmp_path / "results").tables
    (row,) = table.rows
    assert row.seeds == "2/5"  # the track plans five
    assert [run.record.reason for run in row.runs] == ["", "ValueError: bad luck", ""]
