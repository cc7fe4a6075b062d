"""One room's rows of this node in Redis, and what this node knows of the others' rows there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import trio
from redis.exceptions import ResponseError

from trioroom.backplane.base import Delivery, PresenceListener
from trioroom.backplane.leased_presence import LeasedSeat
from trioroom.backplane.leases import Leases
from trioroom.backplane.redis.presence_scripts import READ, REMOVE, WRITE
from trioroom.backplane.redis.table import Change, Gone, Incoming, Rows, field_of, node_of, parse_rows
from trioroom.backplane.redis.topology import Topology
from trioroom.errors import BackplaneError


async def remove_rows(topology: Topology, table: bytes, prefix: str) -> None:
    """Those whose fields begin so: ``SEAT/`` of a seat that is closed, ``NODE.`` of a node that is dead.

    Raises:
        BackplaneUnavailable: the broker cannot be reached.
        BackplaneError: it refuses.
    """
    try:
        await REMOVE.run(topology, [table], lambda _: [topology.words.publish, table, prefix])
    except ResponseError as exc:
        raise BackplaneError(f"the broker refuses to remove who is not present: {exc}") from exc


class Seat(LeasedSeat):
    """The listener of its room's channel."""

    def __init__(
        self, topology: Topology, leases: Leases, table: bytes, number: int, listener: PresenceListener, interval: float
    ) -> None:
        super().__init__("redis", leases, number, interval)
        self._topology = topology
        self._table = table  # its key and its channel
        self._listener = listener
        self._incoming = Incoming(table)

    # -- our rows ------------------------------------------------------------------------------

    async def _write(self, seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        change = Change(seat, dict(put), list(removed)).encode()
        rows = [part for user, info in put.items() for part in (field_of(seat, user), info)]
        fields = [field_of(seat, user) for user in removed]
        words = self._topology.words
        try:
            await WRITE.run(
                self._topology,
                [self._table],
                lambda _: [words.publish, self._table, change, len(put), *rows, *fields],
            )
        except ResponseError as exc:
            raise BackplaneError(f"the broker refuses rows of who is present: {exc}") from exc

    async def _remove(self, seat: str) -> None:
        await remove_rows(self._topology, self._table, f"{seat}/")

    # -- the others' rows ----------------------------------------------------------------------

    def offer(self, delivery: Delivery) -> None:
        """Called by the task that listens."""
        if isinstance(delivery, bytes):
            self._apply(self._incoming.take(delivery))
        else:
            self._expect_read()

    def _apply(self, changes: Iterable[Change | Gone]) -> None:
        for change in changes:
            if isinstance(change, Gone):
                self._take_gone(change.seat)
            elif change.seat not in self.own.names:
                self._meet(change.seat)
                self._listener.rows_changed(change.seat, change.put, change.removed)
        if self._incoming.missed:
            self._reading.expect()

    def _expect_read(self) -> None:
        self._incoming.lose()
        self._reading.expect()

    def _take_gone(self, seat: str) -> None:
        if seat == self.own.names[-1]:  # others think that we are dead
            self._expect_read()
        elif seat not in self.own.names:
            self._listener.seat_gone(seat)

    def _meet(self, seat: str) -> None:
        node = node_of(seat)
        self.nodes.add(node)
        if node not in self._leases.live:
            self._leases.look_soon()

    async def read(self) -> None:
        """All rows, as the listener is to know them; ours are corrected if need be.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        self._incoming.begin()
        self._reading.begin()
        try:
            reply = await READ.run(self._topology, [self._table], lambda _: [])
        except ResponseError as exc:
            raise BackplaneError(f"the broker refuses to tell who is present: {exc}") from exc
        now = trio.current_time()
        version, seats = parse_rows(reply)
        seats = await self._without_dead(seats, now)
        await self._correct([seats.pop(name, {}) for name in self.own.names], now)
        self.nodes = {node_of(seat) for seat in seats}
        self._listener.resynced(seats)  # also after a loss meanwhile, when it is read again: who opens waits for one
        self._apply(self._incoming.finish(version))

    async def _without_dead(self, seats: Rows, since: float) -> Rows:
        """``seats`` without those of nodes that have no lease; who wrote a row had one before."""
        ours = {node_of(name) for name in self.own.names}
        unknown = {node_of(seat) for seat in seats} - ours - self._leases.live.keys()
        if unknown:
            await self._leases.look(since)
            self.follow_node()
            for node in unknown - self._leases.live.keys():
                await remove_rows(self._topology, self._table, f"{node}.")
                seats = {seat: rows for seat, rows in seats.items() if node_of(seat) != node}
        return seats

    async def _correct(self, there: list[Mapping[str, bytes]], since: float) -> None:
        *old, now = there
        wrong = self.own.compare(now)
        if wrong - self.own.dirty.keys():  # others have removed them, or the broker lost them: do we live?
            await self._leases.look(since)
            self.follow_node()
        if wrong or any(old):
            self.own.mark(wrong)

    async def remove_dead(self, seen: Collection[str]) -> None:
        """After a look at the leases, of nodes that we had met before it: the rows of those that have none."""
        for node in set(seen) - self._leases.live.keys():
            await remove_rows(self._topology, self._table, f"{node}.")
            self.nodes.discard(node)
