"""Opening connections, so many at a time: connect, upgrade, and in protocol v1 join."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import attrs
import msgspec

from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.frames import Opcode
from trioroom.bench.connecting import Connector, explain, outcome_of_connect
from trioroom.bench.options import Protocol
from trioroom.bench.swarm import Swarm

_READ_BYTES = 65_536
_SWITCHED = b"HTTP/1.1 101 "
_END_OF_HEAD = b"\r\n\r\n"
_TOLD_BYTES = 200  # of an answer that is no 101, for the reader

Answer = dict[str, object]
Joined = Callable[["Handshake", Answer], object]


class Refused(Exception):
    """The server will not have this member; whose fault that is, its answer says."""


@attrs.frozen
class Wanted:
    """A connection to be made."""

    number: int
    """The member's, in this process."""
    room: int
    position: object = None
    """Where it was in the room's history, for protocol v1."""


class Opening:
    """Starts handshakes while there is room for more, and hands those that are through to the swarm."""

    def __init__(self, swarm: Swarm, connector: Connector, most: int) -> None:
        self.swarm = swarm
        self.connector = connector
        self.on_joined: Joined = lambda handshake, answer: None
        """Called with the handshake and the answer to the join, before any message of the room is counted."""
        self._most = most
        self._wanted: list[Wanted] = []

    def want(self, wanted: list[Wanted]) -> None:
        """Open these too; in their order."""
        self._wanted = wanted[::-1] + self._wanted
        self.start_more()

    def give_up(self, reason: str) -> None:
        """None of what is still to come will."""
        left = self.left
        if not left:
            return
        self._wanted.clear()
        for pending in list(self.swarm.pending.values()):
            if isinstance(pending, Handshake):
                pending.abandon()
        self.swarm.tally.counts.failed += left
        self.swarm.tally.reasons[reason] += left

    @property
    def left(self) -> int:
        """Connections that are neither open nor failed."""
        return len(self._wanted) + len(self.swarm.pending)

    def start_more(self) -> None:
        """As many as there is room for."""
        while self._wanted and len(self.swarm.pending) < self._most:
            self._start(self._wanted.pop())

    def fail(self, reason: str) -> None:
        """One has come to nothing."""
        self.swarm.tally.counts.failed += 1
        self.swarm.tally.reasons[reason] += 1

    def _start(self, wanted: Wanted) -> None:
        began = time.monotonic()
        try:
            descriptor, established = self.connector.connect(wanted.number)
        except OSError as exc:
            self.fail(explain(exc))
            return
        handshake = Handshake(self, wanted, descriptor, began)
        self.swarm.pending[descriptor] = handshake
        self.swarm.poller.watch(descriptor, writing=not established)
        if established:
            try:
                handshake.ask()
            except OSError as exc:
                handshake.abandon()
                self.fail(explain(exc))


@attrs.define(eq=False)
class Handshake:
    """One connection until it is a member or has failed."""

    opening: Opening
    wanted: Wanted
    descriptor: int
    began: float
    asked: bool = False
    switched: bool = False
    received: bytes = b""

    def ask(self) -> None:
        """Request the upgrade."""
        connector, wanted = self.opening.connector, self.wanted
        os.write(self.descriptor, connector.target.upgrade(connector.endpoint_of(wanted.number), wanted.room))
        self.asked = True

    def advance(self) -> None:
        """See `Pending`."""
        try:
            if not self.asked:
                outcome_of_connect(self.descriptor)
                self.ask()
                self.opening.swarm.poller.turn_to_reading(self.descriptor)
                return
            data = os.read(self.descriptor, _READ_BYTES)
            if not data:
                raise Refused("closed by the server in the handshake")
            self.received += data
            self._understand()
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(explain(exc))
        except Refused as exc:
            self._fail(str(exc))

    def abandon(self) -> None:
        """Close it."""
        swarm = self.opening.swarm
        del swarm.pending[self.descriptor]
        swarm.poller.forget(self.descriptor)
        os.close(self.descriptor)

    def _understand(self) -> None:
        target = self.opening.connector.target
        if not self.switched:
            head, found, rest = self.received.partition(_END_OF_HEAD)
            if not found:
                return
            if not head.startswith(_SWITCHED):
                raise Refused(_describe(head, rest))
            self.switched, self.received = True, rest
            if target.protocol is Protocol.V1:
                os.write(self.descriptor, target.join(self.wanted.room, self.wanted.position))
        if target.protocol is Protocol.PLAIN:
            self._join({})
        else:
            self._find_answer()

    def _find_answer(self) -> None:
        """Read envelopes up to the answer to the join; what follows is the swarm's."""
        while (taken := take_frame(self.received)) is not None:
            opcode, payload, self.received = taken
            if opcode == Opcode.CLOSE:
                raise Refused(f"closed by the server with {int.from_bytes(payload[:2], 'big')}")
            elif opcode == Opcode.PING:
                os.write(self.descriptor, encode_masked(Opcode.PONG, payload))
            elif opcode == Opcode.TEXT:
                answer = msgspec.json.decode(payload, type=Answer)
                if answer["type"] == "error":
                    raise Refused(f"{answer['code']}: {answer['message']}")
                if answer["type"] == "ok" and "room" in answer:
                    return self._join(answer)

    def _join(self, answer: Answer) -> None:
        opening = self.opening
        opening.swarm.tally.handshakes.add(time.monotonic() - self.began)
        opening.on_joined(self, answer)
        opening.swarm.adopt(self.descriptor, self.wanted.number, self.received)
        opening.start_more()

    def _fail(self, reason: str) -> None:
        self.abandon()
        self.opening.fail(reason)
        self.opening.start_more()


def _describe(head: bytes, rest: bytes) -> str:
    line = head.partition(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")
    return f"HTTP {(line + b' ' + rest[:_TOLD_BYTES]).decode(errors='replace').strip()}"
