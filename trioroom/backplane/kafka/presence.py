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
from trioroom.backplane.kafka.presence_records import Beat, Dead, SeatId, Statement, read, write
from trioroom.backplane.kafka.presence_removals import CLOSE_TIMEOUT, Removals
from trioroom.backplane.kafka.presence_seat import RETRY_INTERVAL, ROWS_AT_ONCE, Seat
from trioroom.backplane.kafka.presence_table import News, Table
from trioroom.backplane.kafka.presence_watch import Watch
from trioroom.backplane.kafka.records import MARK, PRESENCE, Record
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_WRITES_AT_ONCE = 4  # of `ROWS_AT_ONCE` records, so that a beat does not wait long for its turn


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
        self._bulk = trio.Semaphore(_WRITES_AT_ONCE)
        self._removals = Removals(self._write, self._change_id)
        self._told_unreadable = False
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
        seat = Seat(SeatId(self._node, next(self._numbers), room), self._write, listener, interval)
        seat.resync(self._table.rows(room))
        self._seats.setdefault(room, {})[seat] = None
        try:
            async with run_in_background(seat.run):
                yield seat
        finally:
            del self._seats[room][seat]
            if not self._seats[room]:
                del self._seats[room]
            await self._removals.close(seat)

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
                seat.hear(event)
        if self._node in news.dead:
            log.warning(
                "kafka: node %s was taken for dead, as it was not heard", self._node, extra={"node": self._node}
            )
            self._change_id()

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
        self._removals.forget()
        for room, seats in self._seats.items():
            for seat in seats:
                seat.rename(SeatId(self._node, next(self._numbers), room))
        self._beat_soon.set()

    async def run(self) -> None:
        """Until cancelled; then the log is told that this node is gone, if the broker takes no longer than it may."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._removals.run)
                nursery.start_soon(self._keep_beating)
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    await self._removals.settle()
                    await self._append([Beat(self._node, lives=False)])
                except BackplaneError as exc:
                    log.debug("kafka: cannot say that node %s is gone: %s", self._node, exc)

    async def _keep_beating(self) -> None:
        while True:
            self._beat_soon = trio.Event()
            try:
                if await self._beat():
                    await self._clean_up()
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
        if waiting.cancelled_caught or self._loading is not None:
            return False
        self._watch.returned(trio.current_time())
        silent = [name for name in self._watch.silent(self._table.nodes, sent) if name != self._node]
        await self._append([Dead(name, is_dead=True) for name in silent])
        return True

    async def _clean_up(self) -> None:
        """One of the living does it for all."""
        if self._node != min((name for name, node in self._table.nodes.items() if node.counts), default=None):
            return
        died_before = trio.current_time() - self._lease
        while left := list(islice(self._table.left_behind(died_before), ROWS_AT_ONCE)):
            await self._write(left)
            await self._log.caught_up(0)
