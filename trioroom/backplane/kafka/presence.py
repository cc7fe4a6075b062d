"""Who is in rooms on other nodes: a log of its own that all nodes write and read, and a table of it on each node.

The topic has one partition, so that all nodes see one order, and what it says of anybody is true for all in the same
place: that a user came, that a seat was closed, that a node is dead. A node that has not been heard for a lease is
declared dead in the log by those who live; who finds itself there goes on as another node.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count, islice

import trio

from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import PresenceListener, PresenceSeat
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.presence_records import Beat, Dead, Gone, Row, SeatId, Statement, read, write
from trioroom.backplane.kafka.presence_seat import Seat
from trioroom.backplane.kafka.presence_table import News, SeatGone, Table
from trioroom.backplane.kafka.presence_watch import Watch
from trioroom.backplane.kafka.records import MARK, PRESENCE, UNKNOWN_OFFSET, Record
from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.backplane.own_rows import AT_ONCE
from trioroom.backplane.removals import CLOSE_TIMEOUT, Removals
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_WRITES_AT_ONCE = 4  # of `AT_ONCE` records, so that a beat does not wait long for its turn


class _Clock:
    """Hears the marks of all nodes, and by them what time it is for the log."""

    read_back = 0.0

    def __init__(self) -> None:
        self.now = -1.0

    def take(self, records: Sequence[Record]) -> None:
        self.now = records[-1].timestamp

    def caught_up(self, partition: int) -> None:
        pass

    def lost(self, partition: int) -> None:
        pass


class KafkaPresence:
    """What `KafkaBackplane.presence` is: handler of a `Log` of its own, before that runs."""

    read_back = 1e9
    """See `Handler`: all of it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lease = log.settings.presence_lease
        self._node = secrets.token_hex(8)
        self._numbers = count(1)
        self._seats: dict[str, dict[Seat, None]] = {}  # by room
        self._table = self._new_table()
        self._loading: Table | None = self._new_table()  # while the log is read from its begin
        self._loaded = trio.Event()
        self._clock = _Clock()
        self._watch = Watch(self._lease)
        self._beat_soon = trio.Event()
        self._came_round = trio.Event()  # a beat of ours
        self._bulk = trio.Semaphore(_WRITES_AT_ONCE)
        self._removals = Removals("kafka", self._remove, self._change_id)
        self._closed: dict[str, Seat] = {}  # of which there may be something in the log
        self._told_unreadable = self._told_full = False
        log.add_handler(PRESENCE, self)
        log.add_handler(MARK, self._clock)

    def _new_table(self) -> Table:
        return Table(self._log.settings.max_presence_bytes)

    # -- seats -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """As `trioroom.backplane.base.PresenceStore.open`; entered when the log has been read to its end.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        await self._wait_current()
        seat = Seat(self._new_id(room), self._write, listener, interval)
        seat.resync(self._table.rows(room))
        self._seats.setdefault(room, {})[seat] = None
        try:
            async with run_in_background(seat.run):
                yield seat
        finally:
            del self._seats[room][seat]
            if not self._seats[room]:
                del self._seats[room]
            if seat.there:
                self._closed[str(seat.id)] = seat
                await self._removals.close(b"", [str(seat.id)])

    def _new_id(self, room: str) -> SeatId:
        return SeatId(self._node, next(self._numbers), room)

    async def _wait_current(self) -> None:
        timeout = self._log.settings.timeout
        with trio.move_on_after(timeout):
            await self._log.caught_up(0)
            while self._loading is not None:
                await self._loaded.wait()
            return
        raise BackplaneUnavailable(f"who is present was not read within timeout={timeout:g} s; retry later")

    async def _write(self, statements: Sequence[Statement]) -> None:
        async with self._bulk:
            await self._append(statements)

    async def _remove(self, _: bytes, name: str) -> None:
        """A seat that is closed: at once for all who see it, and then row by row."""
        if (seat := self._closed.get(name)) is not None:  # else its node is another one now
            await self._write([Gone(seat.id, is_gone=True)])
            users = list(seat.there)
            for start in range(0, len(users), AT_ONCE):
                await self._write([Row(seat.id, user, None) for user in users[start : start + AT_ONCE]])
            await self._write([Gone(seat.id, is_gone=False)])
            self._closed.pop(name, None)

    async def _append(self, statements: Sequence[Statement]) -> None:
        entries = map(write, statements)
        await self._log.produce_all(0, [(PRESENCE + name.encode(), value) for name, value in entries])

    # -- reading ---------------------------------------------------------------------------------

    def take(self, records: Sequence[Record]) -> None:
        """See `Handler`."""
        now, news = trio.current_time(), News()
        table = self._table if self._loading is None else self._loading
        for record in records:
            try:
                statement = read(record.name, record.value)
            except ValueError as exc:
                self._tell_unreadable(record, exc)
            else:
                table.take(statement, now, record.timestamp, news)
        if self._loading is None:
            self._tell(news)

    def _tell_unreadable(self, record: Record, exc: ValueError) -> None:
        """Once, as what writes it may go on."""
        level = logging.DEBUG if self._told_unreadable else logging.WARNING
        self._told_unreadable = True
        log.log(
            level, "kafka: dropped a record at offset %d, which says nothing of who is present: %s", record.offset, exc
        )

    def _tell(self, news: News) -> None:
        for event in news.events:
            for seat in self._seats.get(event.seat.room, ()):
                if isinstance(event, SeatGone) and event.seat == seat.id:  # others say so, and take no more rows of it
                    seat.rename(self._new_id(seat.id.room))
                else:
                    seat.hear(event)
        self._tell_full()
        if self._node in news.dead:
            log.warning(
                "kafka: node %s was taken for dead, as it was not heard", self._node, extra={"node": self._node}
            )
            self._change_id()

    def _tell_full(self) -> None:
        """Once for each time that the log is read."""
        if self._table.dropped and not self._told_full:
            self._told_full = True
            most = self._log.settings.max_presence_bytes
            log.warning("kafka: some who are present are not shown, as all of them exceed max_presence_bytes=%d", most)

    def caught_up(self, partition: int) -> None:
        """See `Handler`."""
        if self._loading is None:
            return
        known = {name for name, node in self._table.nodes.items() if node.counts}
        self._table, self._loading = self._loading, None
        self._table.hide_silent(self._clock.now - self._lease, known | {self._node})
        self._watch.begin(trio.current_time())
        if (node := self._table.nodes.get(self._node)) is not None and node.dead_since is not None:
            self._change_id()
        for room, seats in self._seats.items():
            for seat in seats:
                seat.resync(self._table.rows(room))
        self._tell_full()
        self._loaded.set()
        self._beat_soon.set()

    def lost(self, partition: int) -> None:
        """See `Handler`."""
        self._loading = self._new_table()
        self._loaded = trio.Event()

    # -- nodes -----------------------------------------------------------------------------------

    def _change_id(self) -> None:
        """Go on as another node; others take back what this one has written."""
        self._node = secrets.token_hex(8)
        self._closed.clear()
        for room, seats in self._seats.items():
            for seat in seats:
                seat.rename(self._new_id(room))
        self._beat_soon.set()

    async def run(self) -> None:
        """Until cancelled; then the log is told that this node is gone, if the broker takes no longer than it may."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._removals.run)
                nursery.start_soon(self._keep_beating)
                nursery.start_soon(self._keep_clean)
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    await self._append([Beat(self._node, lives=False)])
                except BackplaneError as exc:
                    log.debug("kafka: cannot say that node %s is gone: %s", self._node, exc)

    async def _keep_beating(self) -> None:
        while True:
            self._beat_soon = trio.Event()
            try:
                if await self._beat():
                    self._came_round.set()
                due = self._watch.due(self._table.nodes, self._node, trio.current_time())
            except BackplaneError as exc:
                log.debug("kafka: node %s cannot say that it lives: %s", self._node, exc)
                due = trio.current_time() + RETRY_INTERVAL
            with trio.move_on_at(due):
                await self._beat_soon.wait()

    async def _beat(self) -> bool:
        """Say that we live, and that others do not if we find them so. Whether it came round."""
        sent = trio.current_time()
        place = await self._log.produce(PRESENCE, *write(Beat(self._node, lives=True)))
        with trio.move_on_after(self._log.settings.timeout) as waiting:
            await self._log.wait_passed(place)
        if waiting.cancelled_caught or self._loading is not None or place.offset == UNKNOWN_OFFSET:
            return False
        self._watch.returned(trio.current_time())
        silent = [name for name in self._watch.silent(self._table.nodes, sent) if name != self._node]
        await self._append([Dead(name, is_dead=True) for name in silent])
        return True

    async def _keep_clean(self) -> None:
        """Apart from beating, as that is not to wait for it."""
        while True:
            await self._came_round.wait()
            self._came_round = trio.Event()
            try:
                await self._clean_up()
            except BackplaneError as exc:
                log.debug("kafka: cannot take back what dead nodes have left: %s", exc)

    async def _clean_up(self) -> None:
        """One of the living does it for all."""
        if self._node != min((name for name, node in self._table.nodes.items() if node.counts), default=None):
            return
        died_before = trio.current_time() - self._lease
        while left := list(islice(self._table.left_behind(died_before), AT_ONCE)):
            await self._write(left)
            await self._log.caught_up(0)
