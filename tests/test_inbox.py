"""Messages from a process that a plugin shares: whole ones, those that are none, and those that never end."""

import json
import math
import multiprocessing
import os

import pytest

from genbench.inbox import Inbox, flaw, is_tick

TICK = {
    "kind": "tick", "phase": "train", "devices": 1, "progress": 0.5, "seconds": 1.0, "steps": 3, "images": 30, "rate": 9.0,
    "losses": {"loss": math.nan, "kl": 2},
}  # fmt: skip


@pytest.fixture
def channel():
    receiver, sender = multiprocessing.Pipe(duplex=False)
    yield Inbox(receiver), sender
    receiver.close()
    sender.close()


def test_messages_come_one_by_one_in_order(channel):
    inbox, sender = channel
    assert inbox.take(0) is None
    for number in range(3):
        sender.send_bytes(json.dumps({"kind": number}).encode())
    assert [inbox.take(0) for _ in range(4)] == [{"kind": 0}, {"kind": 1}, {"kind": 2}, None]


def test_a_message_in_pieces_is_waited_for_by_nobody(channel):
    inbox, sender = channel
    content = json.dumps({"kind": "x" * 300}).encode()
    framed = len(content).to_bytes(4, "big") + content
    for piece in (framed[:2], framed[2:5], framed[5:200]):
        os.write(sender.fileno(), piece)
        assert inbox.take(0.01) is None
    os.write(sender.fileno(), framed[200:])
    assert inbox.take(0) == {"kind": "x" * 300}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"loss \\ud800": 1}', b'{"a": ' + b"9" * 5000 + b"}", b"[" * 200_000])
def test_what_no_record_could_hold_is_an_error(channel, content):
    inbox, sender = channel
    if len(content) < 60_000:
        sender.send_bytes(content)
    else:
        inbox._pieces += len(content).to_bytes(4, "big") + content
    with pytest.raises(ValueError):
        inbox.take(0)


@pytest.mark.parametrize("header", [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"])
def test_a_length_that_no_message_has_is_an_error(channel, header):
    inbox, sender = channel
    os.write(sender.fileno(), header)
    with pytest.raises(ValueError, match="bytes"):
        inbox.take(0)


@pytest.mark.parametrize("content", [b"[1]", b"null", b"0", b'"tick"'])
def test_what_is_no_object_is_an_empty_one(channel, content):
    inbox, sender = channel
    sender.send_bytes(content)
    assert inbox.take(0) == {}


def test_the_end_is_told_after_the_last_message(channel):
    inbox, sender = channel
    sender.send_bytes(b'{"kind": "pause"}')
    sender.close()
    assert inbox.take(0) == {"kind": "pause"}
    assert inbox.waiting
    with pytest.raises(EOFError):
        inbox.take(0)


def test_what_is_dropped_makes_room(channel):
    inbox, sender = channel
    os.set_blocking(sender.fileno(), False)
    dropped = 0
    while dropped < 1 << 20:
        dropped += os.write(sender.fileno(), b"x" * 4096)
        assert inbox.drop(0)
    sender.close()
    assert not inbox.drop(0)


def test_a_tick_says_all_that_listeners_read():
    assert is_tick(TICK)
    for name in TICK.keys() - {"kind"}:
        assert not is_tick({key: value for key, value in TICK.items() if key != name}), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase", "sample"), ("progress", math.nan), ("progress", 1.5), ("progress", "0.5"), ("progress", True), ("seconds", math.inf),
        ("rate", -1.0), ("rate", 10**400), ("steps", 1.5), ("steps", -1), ("images", 10**30), ("devices", 0), ("losses", "high"),
        ("losses", {"loss": None}), ("losses", {"loss": [1.0]}),
    ],
)  # fmt: skip
def test_a_tick_that_listeners_would_trip_over_is_none(name, value):
    assert not is_tick({**TICK, name: value})


def test_a_result_is_held_against_the_stages_own():
    value = {"scores": [], "curve": [0.5, None], "flags": [], "extractor_accuracy": None}
    assert flaw("score", value) == ""
    assert flaw("score", {}) == "scores: Field required"
    assert flaw("train", value) == "spent: Field required"
    assert flaw("score", {**value, "flags": ["a", 7]}).startswith("flags.1: ")
