"""Reading the log of who is present into a table, from its begin when the node starts, and again when it is another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.presence_records import read
from trioroom.backplane.kafka.presence_table import News, Table
from trioroom.backplane.kafka.records import MARK, PRESENCE, Record
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
PARTITION: Final = 0
"""The one that is used, however many the topic has: there is one order."""


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


class Follower:
    """A `Handler`, before the log runs. Others follow by ``on_news``, and by ``on_read`` when all of it was read."""

    read_back = 1e9
    """Seconds; all of it."""

    def __init__(self, log: Log, on_news: Callable[[News], None], on_read: Callable[[], None]) -> None:
        self._log = log
        self._on_news = on_news
        self._on_read = on_read
        self.table = self._new_table()
        """As of the last record; while the log is read again, as it was before."""
        self._reading: Table | None = self._new_table()
        self._whole = trio.Event()
        self._clock = _Clock()
        self._told_unreadable = self._told_full = False
        log.add_handler(PRESENCE, self)
        log.add_handler(MARK, self._clock)

    def _new_table(self) -> Table:
        return Table(self._log.settings.max_presence_bytes)

    @property
    def is_whole(self) -> bool:
        """Whether the log has been read from its begin to where it ended then; not so while it is read again."""
        return self._reading is None

    async def catch_up(self) -> None:
        """Until the table has all that has been confirmed so far, by any node.

        Raises:
            BackplaneUnavailable: not within ``timeout``.
            BackplaneError: the broker refuses.
        """
        timeout = self._log.settings.timeout
        with trio.move_on_after(timeout):
            await self._log.caught_up(PARTITION)
            while not self.is_whole:
                await self._whole.wait()
            return
        raise BackplaneUnavailable(f"who is present was not read within timeout={timeout:g} s; retry later")

    def take(self, records: Sequence[Record]) -> None:
        """See `Handler`."""
        now, news = trio.current_time(), News()
        table = self.table if self._reading is None else self._reading
        for record in records:
            if record.partition != PARTITION:
                continue  # it is none of ours
            try:
                statement = read(record.name, record.value)
            except ValueError as exc:
                self._tell_unreadable(record, exc)
            else:
                table.take(statement, now, record.timestamp, news)
        if self.is_whole:
            self._tell_full()
            self._on_news(news)

    def caught_up(self, partition: int) -> None:
        """See `Handler`."""
        if partition != PARTITION or self._reading is None:
            return
        shown = {name for name, node in self.table.nodes.items() if node.counts}
        self.table, self._reading = self._reading, None
        self.table.hide_silent(self._clock.now - self._log.settings.presence_lease, shown)
        self._tell_full()
        self._on_read()
        self._whole.set()

    def lost(self, partition: int) -> None:
        """See `Handler`."""
        if partition == PARTITION:
            self._reading = self._new_table()
            self._whole = trio.Event()

    def _tell_unreadable(self, record: Record, exc: ValueError) -> None:
        level = logging.DEBUG if self._told_unreadable else logging.WARNING  # once, as what writes it may go on
        self._told_unreadable = True
        what = "kafka: dropped a record at offset %d, which says nothing of who is present: %s"
        log.log(level, what, record.offset, exc)

    def _tell_full(self) -> None:
        if self.table.dropped and not self._told_full:
            self._told_full = True
            most = self._log.settings.max_presence_bytes
            log.warning("kafka: some who are present are not shown, as all of them exceed max_presence_bytes=%d", most)
