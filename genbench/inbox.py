"""What the supervisor hears from a stage, seen to be what a stage says: a plugin that runs in the same process can write there, too."""

from __future__ import annotations

import json
import os
from multiprocessing.connection import Connection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genbench.jobs import Checked, Sampled, Scored, Stage, Trained

MOST = 16 << 20
"""Bytes of a message."""
_RESULTS: dict[Stage, type[BaseModel]] = {"check": Checked, "train": Trained, "sample": Sampled, "score": Scored}


class Inbox:
    """The messages of a channel. Nobody waits for the rest of one, as `Connection.recv_bytes` does: it may never come."""

    def __init__(self, receiver: Connection) -> None:
        self._receiver, self._pieces = receiver, bytearray()

    @property
    def waiting(self) -> bool:
        """Whether something has come, or the channel is closed."""
        return self._receiver.poll(0)

    def take(self, patience: float) -> dict[str, Any] | None:
        """The next message, empty where it is no JSON object; None where it is not there, all of it, within `patience` seconds.

        Raises EOFError at the end of the channel, ValueError where what came is no message.
        """
        message = self._next()
        if message is None and self._receiver.poll(patience):
            self._receive()
            message = self._next()
        if message is None:
            return None
        try:
            said = json.loads(message)
            json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair, which no record could hold, is an error here
        except RecursionError as error:
            raise ValueError("it nests without end") from error
        return said if isinstance(said, dict) else {}

    def drop(self, patience: float) -> bool:
        """Throw away what comes within `patience` seconds -> whether the channel is still open."""
        try:
            if self._receiver.poll(patience):
                self._receive()
        except EOFError:
            return False
        self._pieces.clear()
        return True

    def _receive(self) -> None:
        piece = os.read(self._receiver.fileno(), 1 << 16)
        if not piece:
            raise EOFError
        self._pieces += piece

    def _next(self) -> bytes | None:
        """A whole message, as multiprocessing frames it: four bytes before it say its length."""
        if len(self._pieces) < 4:
            return None
        length = int.from_bytes(self._pieces[:4], "big", signed=True)
        if not 0 <= length <= MOST:
            raise ValueError(f"a message of {length} bytes")
        if len(self._pieces) < 4 + length:
            return None
        message = bytes(self._pieces[4 : 4 + length])
        del self._pieces[: 4 + length]
        return message


class _Tick(BaseModel):
    """What listeners read in a tick."""

    model_config = ConfigDict(strict=True)

    phase: Literal["train", "curve"]
    progress: Annotated[float, Field(ge=0, le=1)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    steps: Annotated[int, Field(ge=0, lt=2**63)]
    images: Annotated[int, Field(ge=0, lt=2**63)]
    devices: Annotated[int, Field(ge=1, lt=2**31)]
    losses: dict[str, float]
    """NaN and infinities are those of a model that diverges."""


def is_tick(message: dict[str, Any]) -> bool:
    """Whether a message says all that listeners read in a tick, as they expect it."""
    try:
        _Tick.model_validate(message)
    except ValidationError:
        return False
    return True


def flaw(stage: Stage, result: dict[str, Any]) -> str:
    """What keeps a message from being a stage's result: ``spent: Field required``; empty where it is one."""
    try:
        _RESULTS[stage].model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
    return ""


def printable(text: str, most: int) -> str:
    """At most so many of the printable characters of a text."""
    return "".join(c for c in text if c.isprintable())[:most]
