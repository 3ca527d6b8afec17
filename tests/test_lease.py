"""One holder at a time; what a dead one leaves is taken over, by one process."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from genbench import lease
from genbench.lease import BusyError, busy, held


def put(folder, touched=None, **changes):
    """A lease of somebody else."""
    told = {"token": "theirs", "host": "elsewhere", "pid": 1} | changes
    (folder / "theirs").write_text(json.dumps(told))
    if touched is not None:
        os.utime(folder / "theirs", (touched, touched))
    (folder / "theirs").replace(folder / "lease")  # whole at once: an empty one is somebody's who just begins


def test_a_second_holder_is_refused_until_the_first_is_done(tmp_path):
    with held(tmp_path):
        assert busy(tmp_path)
        with pytest.raises(BusyError), held(tmp_path):
            pass
        assert busy(tmp_path)
    assert not busy(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path):
        pass


def test_an_exception_gives_it_back(tmp_path):
    with pytest.raises(ValueError, match="oh"), held(tmp_path):
        raise ValueError("oh")
    assert not busy(tmp_path)


def test_a_lease_that_nobody_touches_is_taken_over(tmp_path):
    put(tmp_path)
    with pytest.raises(BusyError), held(tmp_path):
        pass
    old = time.time() - lease.STALE - 5
    os.utime(tmp_path / "lease", (old, old))
    assert not busy(tmp_path)
    with held(tmp_path):
        assert json.loads((tmp_path / "lease").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_dead_process_of_this_machine_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    put(tmp_path, pid=gone.pid, **lease.process_space())
    assert not busy(tmp_path)
    put(tmp_path, pid=os.getppid(), started=lease.process(os.getppid())[1], **lease.process_space())
    assert busy(tmp_path)
    put(tmp_path, pid=os.getppid(), started="1", **lease.process_space())  # another process has its number now
    assert not busy(tmp_path)


@pytest.mark.parametrize("other", ["host", "boot", "pids"])
def test_a_process_id_of_another_host_boot_or_container_says_nothing(tmp_path, other):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    put(tmp_path, pid=gone.pid, **lease.process_space() | {other: "another"})
    assert busy(tmp_path)
    with pytest.raises(BusyError), held(tmp_path):
        pass
    old = time.time() - lease.STALE - 5
    put(tmp_path, pid=os.getpid(), started=lease.process(os.getpid())[1], **lease.process_space() | {other: "another"})
    os.utime(tmp_path / "lease", (old, old))
    assert not busy(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from genbench.lease import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_stopped_process_of_this_machine_keeps_it_until_it_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        old = time.time() - lease.STALE - 5
        os.utime(tmp_path / "lease", (old, old))
        assert busy(tmp_path)
        with pytest.raises(BusyError), held(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not busy(tmp_path)


@pytest.mark.parametrize("beat", [0.02, 60.0], ids=["by its beat", "when it asks"])
def test_who_was_stopped_finds_out_that_it_lost_it(tmp_path, monkeypatch, beat):
    monkeypatch.setattr(lease, "BEAT", beat)
    with held(tmp_path) as confirm:
        confirm()
        put(tmp_path)
        if beat < 1:
            time.sleep(2)
            (tmp_path / "lease").unlink()  # they are done with it
            (tmp_path / "lease").write_text("")  # and a third begins
        with pytest.raises(BusyError):
            confirm()
    assert (tmp_path / "lease").exists()


def test_a_lease_that_is_gone_is_lost_and_one_that_cannot_be_read_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "AGAIN", 0.01)
    with held(tmp_path) as confirm:
        ours = (tmp_path / "lease").read_bytes()
        (tmp_path / "lease").write_bytes(b"")
        confirm()
        (tmp_path / "lease").write_bytes(ours)
        confirm()
        (tmp_path / "lease").unlink()
        with pytest.raises(BusyError):
            confirm()


def test_that_of_a_process_whose_end_nobody_asked_for_yet_too(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    dead.stdout.read()  # ends with the process
    try:
        deadline = time.monotonic() + 20
        put(tmp_path, pid=dead.pid, started=lease.process(dead.pid)[1], **lease.process_space())
        while busy(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(dead.pid, 0)  # it still has its number
        assert not busy(tmp_path)
        with held(tmp_path):
            pass
    finally:
        dead.wait()
        dead.stdout.close()


def test_a_holder_touches_it_and_never_another_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with held(tmp_path):
        old = time.time() - 1000
        os.utime(tmp_path / "lease", (old, old))
        deadline = time.monotonic() + 20
        while (tmp_path / "lease").stat().st_mtime < old + 500:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        put(tmp_path)  # somebody took it over while we were suspended
        time.sleep(0.5)  # we have seen that by now
        os.utime(tmp_path / "lease", (old, old))
        time.sleep(0.2)
        assert (tmp_path / "lease").stat().st_mtime == pytest.approx(old, abs=1)
    assert json.loads((tmp_path / "lease").read_text())["token"] == "theirs"  # theirs to remove


def _take(folder, start, all_asked, results):
    start.wait()
    try:
        with held(folder) as confirm:
            time.sleep(0.3)
            confirm()  # of two that find it stale both may begin; who goes on is told here
            results.put("held")
            all_asked.wait(60)
    except BusyError:
        results.put("busy")


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_who_ask_at_once_one_gets_it(tmp_path, stale):
    if stale:
        put(tmp_path, touched=time.time() - lease.STALE - 5)
    context = multiprocessing.get_context("fork")
    start, all_asked, results = context.Event(), context.Event(), context.Queue()
    asking = [context.Process(target=_take, args=(tmp_path, start, all_asked, results)) for _ in range(8)]
    for process in asking:
        process.start()
    start.set()
    answers = sorted(results.get(timeout=50) for _ in asking)
    all_asked.set()
    for process in asking:
        process.join()
    assert answers == ["busy"] * 7 + ["held"]


def test_a_lease_that_is_just_being_written_is_nobodys_to_take(tmp_path):
    (tmp_path / "lease").write_text("")
    assert busy(tmp_path)
    with pytest.raises(BusyError), held(tmp_path):
        pass


def test_a_process_has_a_beginning_and_its_space():
    assert lease.process_space() == lease.process_space()
    assert lease.process_space()["host"]
    code = "from genbench import lease; import os; print(lease.process_space(), lease.process(os.getpid()))"
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert all(text.startswith(str(lease.process_space())) for text in told)
    if sys.platform.startswith("linux"):
        state, started = lease.process(os.getpid())
        assert state in "RS"
        assert 0 < int(started) < int(told[0].split("'")[-2]) <= int(told[1].split("'")[-2])
    assert lease.process(2**22 + 1) == ("", "")  # beyond the largest there may be


def test_a_lease_that_nests_without_end_names_nobody(tmp_path):
    (tmp_path / "lease").write_text("[" * 100_000)
    assert busy(tmp_path)
    assert lease.holder(tmp_path) == ""


def test_a_touch_in_time_to_come_is_none(tmp_path):
    put(tmp_path)
    os.utime(tmp_path / "lease", (time.time() + 3600, time.time() + 3600))
    assert not busy(tmp_path)
    with held(tmp_path):
        pass
