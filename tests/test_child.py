"""What a child does before a stage begins, and how it speaks while nobody listens."""

import contextlib
import multiprocessing
import os
import threading
from types import SimpleNamespace

import pytest
import torch

from genbench import child, surroundings
from genbench.devices import ALONE, Rank
from genbench.inbox import Inbox
from genbench.supervisor import Supervisor, _plain_main


def settled(device, rank=ALONE):
    with surroundings.isolated():
        child._settle_in(SimpleNamespace(device=device, memory=None, threads=2, spec=SimpleNamespace(seed=3)), rank)


@pytest.mark.parametrize(
    ("device", "rank", "expected"), [("cuda:2", ALONE, "cuda:2"), ("cuda", ALONE, "cuda:0"), ("cuda:2", Rank(1, 3), "cuda:3")]
)
def test_a_runs_gpu_is_its_processes_current_one(monkeypatch, device, rank, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    settled(device, rank)
    assert asked == [torch.device(expected)]


def test_a_run_on_a_cpu_has_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("CUDA was asked"))
    settled("cpu")


def test_a_run_on_a_cpu_is_deterministic_and_so_is_what_it_compiles():
    with surroundings.isolated():
        torch.set_deterministic_debug_mode("default")
        os.environ.pop("TORCHINDUCTOR_DETERMINISTIC", None)
        child._settle_in(SimpleNamespace(device="cpu", memory=None, threads=2, spec=SimpleNamespace(seed=3)), ALONE)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["TORCHINDUCTOR_DETERMINISTIC"] == "1"


def test_a_training_does_not_wait_for_a_supervisor_that_is_stopped():
    """Its ticks are left out while the channel is full, and what must be said is said once there is room."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    channel = child.Channel(sender)

    def speak():
        for number in range(5000):
            channel.send("tick", phase="train", steps=number, losses={"loss": 0.25})

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    speaker.join(5)
    assert not speaker.is_alive()
    channel.send("pause")
    sender.close()
    inbox, heard = Inbox(receiver), []
    with contextlib.suppress(EOFError):
        while True:
            heard.append(inbox.take(0))
    receiver.close()
    assert heard[-1] == {"kind": "pause"}
    steps = [message["steps"] for message in heard[:-1]]
    assert 100 < len(steps) < 5000
    assert steps == list(range(len(steps)))


def test_a_child_starts_with_torch_loaded(tmp_path):
    """A fork server passes over a preload that fails, without a word."""
    supervisor, told = Supervisor(), tmp_path / "modules"
    if supervisor._context.get_start_method() != "forkserver":
        pytest.skip("there is no fork server here")
    code = f"import sys; open({str(told)!r}, 'w').write(' '.join(sys.modules))"
    with _plain_main():
        process = supervisor._context.Process(target=exec, args=(code,))
        process.start()
    process.join(200)
    modules = told.read_text().split()
    assert "torch" in modules
    assert ("torch._dynamo" in modules) == (torch.version.cuda is None and torch.version.hip is None)
    assert not {"scipy", "genbench.stages"} & set(modules)  # with threads of its own, and with what may be seeded
