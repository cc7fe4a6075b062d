"""What the nodes of the suite serve: a room of each kind that docs/explanation/guarantees.md tells apart.

Each node writes down which hooks run, one line each and at once, so that SIGKILL loses nothing. SIGUSR2 has it look
into a file for how far its wall clock is off.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

import trioroom
from tests.faults.records import Hook

JOURNAL: Final = "FAULTS_JOURNAL"
"""The variable with the file that hooks are written to."""
CLOCK: Final = "FAULTS_CLOCK"
"""And with the file that says by how many seconds the clock is off."""
PUT_OUT: Final = "put out"
"""Who says so has all others of the room on its node put out."""
SLOW: Final = "slow-"
"""How the names of those begin who do not read for a while."""
MAX_WAITING: Final = 100
"""Messages, in each room."""
MOST_WAITING: Final = 2 * MAX_WAITING
"""A batch that the kernel takes a part of comes in whole, and one of a flood has no more messages than that."""

_journal = os.open(os.environ.get(JOURNAL, os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_true_time = time.time
_log = logging.getLogger("faults.rooms")


def note(hook: Hook) -> None:
    """One line, in one system call."""
    os.write(_journal, msgspec.json.encode(hook) + b"\n")


def set_clock(number: int, frame: FrameType | None) -> None:
    """From now on the wall clock is off."""
    offset = float(Path(os.environ[CLOCK]).read_text())
    time.time = lambda: _true_time() + offset


def token_for(who: str, lasts: float) -> str:
    """What shows for so many seconds that somebody is ``who``, by the clock of who issues it, which is right."""
    return f"{who}~{_true_time() + lasts:.3f}"


async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
    """Whose token it is; whether it has expired is judged by the node's clock."""
    if credentials.token is None:
        raise trioroom.AuthenticationRefused("no token")
    who, _, expires_at = credentials.token.rpartition("~")
    return trioroom.Identity(who, expires_at=float(expires_at))


class Noted(trioroom.Room):
    """Writes down its hooks, and publishes what is said to all, who said it included."""

    async def on_open(self) -> None:
        """The first one is about to come."""
        note(Hook("open", self.name))

    async def on_join(self, member: trioroom.Member) -> object:
        """Tells each what the hooks know it by."""
        note(Hook("join", self.name, member.id))
        return member.id

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Publish it."""
        if message.data == PUT_OUT:
            for each in self.members:
                if each is not member:
                    each.leave(PUT_OUT)
            return
        key = str(message.data).partition(":")[0] if self.overflow is trioroom.Overflow.LATEST else None
        await self.publish(message.data, sender=member, key=key, publication_id=message.publication_id)
        self._look_at_outboxes()

    def _look_at_outboxes(self) -> None:
        """An error in the log is found by the checker. Who is slow is in no other room."""
        for each in self.members:
            if each.user.startswith(SLOW) and (waiting := each.lag.messages) > MOST_WAITING:
                _log.error("%s: %d messages wait for %s, of %d", self.name, waiting, each.user, MAX_WAITING)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        """It is over."""
        note(Hook("leave", self.name, member.id))

    async def on_close(self) -> None:
        """The last one has gone."""
        note(Hook("close", self.name))


class Kept(Noted):
    """With a history that is long enough for most outages."""

    history = trioroom.History(size=1_000, ttl=120)
    presence = True
    max_outbox_messages = MAX_WAITING


class Short(Noted):
    """With a history that is too short."""

    history = trioroom.History(size=20, ttl=120)
    max_outbox_messages = MAX_WAITING


class KeptDropping(Noted):
    """With a history, and without patience."""

    history = trioroom.History(size=1_000, ttl=120)
    overflow = trioroom.Overflow.DROP_OLDEST
    max_outbox_messages = MAX_WAITING


class Passing(Noted):
    """Without a history."""

    presence = True
    max_outbox_messages = MAX_WAITING


class Dropping(Noted):
    """Without a history: who is slow misses what is old."""

    overflow = trioroom.Overflow.DROP_OLDEST
    max_outbox_messages = MAX_WAITING


class Refusing(Noted):
    """Without a history: who is slow misses what is new."""

    overflow = trioroom.Overflow.DROP_NEWEST
    max_outbox_messages = MAX_WAITING


class Latest(Noted):
    """Only the newest of each publisher counts."""

    overflow = trioroom.Overflow.LATEST
    max_outbox_messages = MAX_WAITING


KINDS: Final[dict[str, type[Noted]]] = {
    "kept": Kept,
    "short": Short,
    "keptdropping": KeptDropping,
    "passing": Passing,
    "dropping": Dropping,
    "refusing": Refusing,
    "latest": Latest,
}
"""By the first part of the names of such rooms."""


def kind_of(room: str) -> type[Noted]:
    """What a room is, by its name."""
    return KINDS[room.partition("/")[0]]


app = trioroom.App(authenticate=authenticate)
for _name, _kind in KINDS.items():
    app.route(_name + "/{name}", _kind)

if CLOCK in os.environ:
    signal.signal(signal.SIGUSR2, set_clock)
