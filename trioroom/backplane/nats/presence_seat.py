"""One room's rows of this node in the bucket, and what this node knows of the others' rows there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs
import trio

from trioroom.backplane.base import Delivery, Lost, PresenceListener
from trioroom.backplane.leased_presence import LeasedSeat
from trioroom.backplane.nats.bucket import Bucket
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.presence_leases import NatsLeases
from trioroom.backplane.nats.presence_table import (
    Change,
    Gone,
    Incoming,
    RowChange,
    Rows,
    Table,
    keys_of_room,
    keys_of_rows,
    node_of,
    parse_change,
    put_of_mark,
    put_of_row,
)
from trioroom.backplane.nats.protocol import Message
from trioroom.errors import BackplaneUnavailable

_ATTEMPTS: Final = 20  # at an answer that has our mark: a server of a cluster may be behind
_PAUSE: Final = 0.05  # seconds between two of them


async def remove_rows(bucket: Bucket, room: str, seat: str) -> None:
    """Those of a seat that is closed: to all who follow the room in one step.

    Raises:
        BackplaneUnavailable: the broker cannot be reached.
        BackplaneError: it refuses.
    """
    await bucket.put(put_of_mark(room, seat, gone=True))
    await bucket.purge(keys_of_rows(room, seat))


class Seat(LeasedSeat):
    """Hears what is told of its room."""

    _leases: NatsLeases

    def __init__(
        self,
        bucket: Bucket,
        leases: NatsLeases,
        room: str,  # a token
        number: int,
        listener: PresenceListener,
        interval: float,
        timeout: float,
    ) -> None:
        super().__init__("nats", leases, number, interval)
        self._bucket = bucket
        self._room = room
        self._listener = listener
        self._timeout = timeout
        self._writes = 0
        self._others: set[str] = set()  # the seats of which the listener knows
        self._incoming = Incoming()
        self._heard = trio.Event()

    # -- our rows ------------------------------------------------------------------------------

    async def _write(self, seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        await self._leases.hold()  # it may have ended: what we put under an id that is dead would flash up at others
        self.follow_node()
        seat = self.own.names[-1]
        self._writes += 1
        write, of = self._writes, len(put) + len(removed)
        rows = [*put.items(), *((user, None) for user in removed)]
        await self._bucket.put_all(put_of_row(self._room, seat, user, info, write, of) for user, info in rows)

    async def _remove(self, seat: str) -> None:
        await remove_rows(self._bucket, self._room, seat)

    # -- the others' rows ----------------------------------------------------------------------

    def offer(self, delivery: Delivery) -> None:
        """Something may not have come; called by the task that listens."""
        self._incoming.lose()
        self._reading.expect()
        self._heard.set()

    def take(self, message: Message) -> None:
        """What is told of the room; called by the task that listens."""
        try:
            entry = self._bucket.parse_told(message)
        except ValueError as exc:
            return self._incoming.warn(message.subject, len(message.payload), str(exc))
        for change in self._incoming.take(entry):
            self._apply(change)
        if self._incoming.missed:
            self._reading.expect()
        self._heard.set()

    def _apply(self, change: Change) -> None:
        if isinstance(change, Gone):
            self._take_gone(change.seat)
        elif isinstance(change, RowChange):
            self._take_row(change)

    def _take_row(self, change: RowChange) -> None:
        if change.seat == self.own.names[-1]:
            if self.own.rows.get(change.user) != change.info and change.user not in self.own.dirty:
                self.own.mark((change.user,))  # somebody else has put that, or it is an older one of ours
        elif change.seat not in self.own.names and self._meet(change.seat):
            put = {} if change.info is None else {change.user: change.info}
            self._listener.rows_changed(change.seat, put, () if put else (change.user,))

    def _take_gone(self, seat: str) -> None:
        if seat == self.own.names[-1]:  # others think that we are, also if our rows are still there
            self.own.mark(self.own.rows)
            self.offer(Lost("backplane"))
        else:
            self._forget(seat)

    def _meet(self, seat: str) -> bool:
        """Whether its rows count; those of what is dead, which were on their way, are removed."""
        node = node_of(seat)
        self.nodes.add(node)
        if node not in self._leases.live:
            self._leases.look_soon()
        if node in self._leases.dead:
            return False
        self._others.add(seat)
        return True

    def _forget(self, seat: str) -> None:
        self._incoming.forget(seat)
        if seat in self._others:
            self._others.remove(seat)
            self._listener.seat_gone(seat)

    def forget_nodes(self, dead: Collection[str]) -> None:
        """Their rows do not count any more."""
        for seat in [seat for seat in self._others if node_of(seat) in dead]:
            self._forget(seat)
        self._incoming.forget_nodes(dead)  # also of those whose rows never counted
        self.nodes.difference_update(dead)

    async def remove_nodes(self, dead: Collection[str]) -> None:
        """Their rows here go; of nodes that nobody buries. Raises as `remove_rows` does."""
        for node in dead:
            await self._bucket.purge(f"room.{self._room}.{node}.>")

    # -- all rows ------------------------------------------------------------------------------

    async def read(self) -> None:
        """All rows, as the listener is to know them; ours are corrected if need be.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        async with self._bucket.readers:
            self._incoming.begin()
            self._reading.begin()
            table = await self._read_table()
            dead = await self._look_at_leases(table.rows(), trio.current_time())
        self._incoming.finish(table)
        there = {seat: rows for seat, rows in table.rows().items() if node_of(seat) not in dead}
        self._correct([there.pop(name, {}) for name in self.own.names])
        self.nodes, self._others = set(), set()
        seats = {seat: rows for seat, rows in there.items() if self._meet(seat)}
        self._listener.resynced(seats)  # also after a loss meanwhile, when it is read again: who opens waits for one

    async def _read_table(self) -> Table:
        """What is told from now on is not in it, or may be; what was told before is.

        In a cluster a server that is asked may be behind, and the one that tells may not know yet that we listen. So we
        put a mark, and go on when we have heard of it and when it is in what we read.
        """
        name = self.own.names[-1]
        mark = await self._bucket.put(put_of_mark(self._room, name, gone=False))
        await self._hear_mark(name, mark)
        for _ in range(_ATTEMPTS):
            entries = await self._bucket.read(keys_of_room(self._room))  # a large room may take longer than a timeout
            table = Table(change for entry in entries if (change := parse_change(entry)) is not None)
            if table.opened.get(name, 0) >= mark:
                return table
            await trio.sleep(_PAUSE)
        raise BackplaneUnavailable("the server of the broker that answers is behind the others; retry later")

    async def _hear_mark(self, name: str, mark: int) -> None:
        with trio.move_on_after(self._timeout) as scope:
            while not self._incoming.missed and self._incoming.opened.get(name, 0) < mark:
                self._heard = trio.Event()
                await self._heard.wait()
        if scope.cancelled_caught:
            raise BackplaneUnavailable(
                f"what is put into the bucket of presence is not heard within timeout={self._timeout:g} s; retry later"
            )

    async def _look_at_leases(self, seats: Rows, since: float) -> set[str]:
        """Nodes without a lease, whose rows are removed: who wrote a row had one before.

        Also when rows of ours have vanished: others have removed them, or the broker lost them. Do we live?
        """
        ours = {node_of(name) for name in self.own.names}
        unknown = {node_of(seat) for seat in seats} - ours - self._leases.live.keys()
        vanished = self.own.compare(seats.get(self.own.names[-1], {})) - self.own.dirty.keys()
        if unknown or vanished:
            await self._leases.look(since)
            self.follow_node()
            unknown -= self._leases.live.keys()
            await self.remove_nodes(unknown)
        return unknown

    def _correct(self, there: Sequence[Mapping[str, bytes]]) -> None:
        *old, now = there
        wrong = self.own.compare(now)
        if wrong or any(old):
            self.own.mark(wrong)


@attrs.define(eq=False)
class ToldRoom(NatsChannel):
    """What is told of a room, for the seats that this node has there."""

    def take(self, message: Message) -> None:
        """A change, or nothing that comes from the stream."""
        for listener in self._listeners:
            assert isinstance(listener, Seat), "nobody else listens here"
            listener.take(message)
