"""Histories of rooms in the log: written as records, read from what this node has made of them (``history_view``)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain, groupby
from operator import attrgetter

import trio

from trioroom._core.history import History, Page, Position
from trioroom.backplane.kafka import history_records
from trioroom.backplane.kafka.history_view import HistoryView, PartitionView
from trioroom.backplane.kafka.listeners import Listeners
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.records import HISTORY, UNKNOWN_OFFSET, Place, Record
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")


class KafkaHistory:
    """What `KafkaBackplane.history` is, and the handler of `HISTORY`.

    Pages come from memory. Before that the log is read up to where it ends, for a room that nobody listens to here, and
    whenever what is asked is where the history ends; else what comes of itself is enough.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._settings = log.settings
        self._listeners = Listeners(log, HISTORY)
        self._made: HistoryView | None = None  # once it is known how many partitions there are
        self._lost: dict[int, tuple[str, int]] = {}  # which partitions are read anew, and the epoch and place before
        self._stale: set[int] = set()  # those of them of which nothing has been read since
        self._losses: Counter[int] = Counter()  # by partition
        self._moved: dict[int, trio.Event] = {}  # by partition, while somebody waits for a record
        self._warned = False

    @property
    def dense_offsets(self) -> bool:
        """Rooms share those of their partition."""
        return False

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """Append it to the log; as `trioroom.backplane.base.HistoryStore.publish`.

        Calls may overlap, and then share a request. With a ``publication_id`` it waits until this node has read it, for
        another one may stand before it.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it.
        """
        self._settings.check_payload(payload)
        partition = self._log.partition_of(HISTORY, room)
        known = None
        if history is not None:
            self._check_ttl(room, history)
        elif (known := await self._find_history(room, partition)) is None:
            return None
        headers = history_records.publication(history, known, publication_id, self._open(partition).epoch)
        losses = self._losses[partition]
        place = await self._log.produce(HISTORY, room, payload, headers)
        offset = await self._offset_of(room, place, losses, publication_id)
        return Position(self._open(partition).epoch_name, offset + 1)

    async def _offset_of(self, room: str, place: Place, losses: int, publication_id: str | None) -> int:
        """Of the first record with this id, which that at ``place`` may be."""
        if publication_id is None:
            if place.offset != UNKNOWN_OFFSET:
                return place.offset
            await self._wait_passed(place)
            return self._log.place(place.partition) - 1  # which may be behind others too
        if not await self._comes_round(place, losses):
            return place.offset
        if (first := self._views.first_use(room, publication_id)) is not None:
            return first
        if place.offset == UNKNOWN_OFFSET:
            raise BackplaneUnavailable("the broker says that it has a publication and does not; retry later")
        return place.offset  # more ids have been used since than are remembered

    async def _comes_round(self, place: Place, losses: int) -> bool:
        """False if the log has lost what it had confirmed: all are told of that, and nobody is to try again."""
        with trio.move_on_after(self._settings.timeout):
            if place.offset == UNKNOWN_OFFSET:
                await self._log.caught_up(place.partition)
            while self._losses[place.partition] == losses:
                if self._log.place(place.partition) > place.offset:
                    return True
                await self._moved.setdefault(place.partition, trio.Event()).wait()
            return False
        raise self._late()

    async def _find_history(self, room: str, partition: int) -> History | None:
        if (known := self._views.history_of(room)) is None:
            await self._log.caught_up(partition)
            known = self._views.history_of(room)
        return known

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """As `KafkaBackplane.subscribe`; what comes is `Kept` and `Lost`."""
        return self._listeners.subscribe(room, channel)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """As `trioroom.backplane.base.HistoryStore.read_after`; a round trip, if any, to find where the log ends."""
        known, end = await self._get_ready(room, history, seen, to_end=offset is None)
        return self._views.read_after(room, known, offset, limit, time.time(), end)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """The same backwards."""
        known, end = await self._get_ready(room, history, None, to_end=False)
        return self._views.read_before(room, known, offset, limit, time.time(), end)

    async def _get_ready(
        self, room: str, history: History, seen: Position | None, *, to_end: bool
    ) -> tuple[History, int]:
        """Have the view be as it has to be for a read; how much the room keeps, and how far the log has been read."""
        await trio.lowlevel.checkpoint()
        self._check_ttl(room, history)
        partition = -1
        while partition != (partition := self._log.partition_of(HISTORY, room)):  # which may change meanwhile
            await self._read_up(room, partition, history, seen, to_end=to_end)
        return self._views.history_of(room) or self._views.bounded(history), self._log.place(partition)

    async def _read_up(
        self, room: str, partition: int, history: History, seen: Position | None, *, to_end: bool
    ) -> None:
        """As far as it takes."""
        if self._views.history_of(room) != self._views.bounded(history):
            await self._wait_passed(await self._log.produce(HISTORY, room, b"", history_records.say(history)))
        elif to_end or room.encode() not in self._listeners or self._lacks(partition, seen):
            await self._log.caught_up(partition)
        while partition in self._lost:
            await self._log.caught_up(partition)
        if self._open(partition).cut_off or self._lacks(partition, seen):
            await self._begin_epoch(partition)

    def _lacks(self, partition: int, seen: Position | None) -> bool:
        """Whether it has not been read as far as we know it to be, or to have been."""
        epoch = self._open(partition).epoch_name
        return seen is not None and seen.epoch == epoch and seen.offset > self._log.place(partition)

    async def _begin_epoch(self, partition: int) -> None:
        """The log does not have what it had confirmed: nobody is to take what comes now for that."""
        view = self._open(partition)
        log.warning(
            "kafka: partition %d of the topic has lost records that it had confirmed; its rooms begin anew", partition,
            extra={"partition": partition},
        )  # fmt: skip
        value, headers = history_records.begin_epoch(view.name_epoch(), view.epoch_name)
        await self._wait_passed(await self._log.produce(HISTORY, "", value, headers, partition))

    async def _wait_passed(self, place: Place) -> None:
        if place.offset == UNKNOWN_OFFSET:
            return await self._log.caught_up(place.partition)
        with trio.move_on_after(self._settings.timeout):
            return await self._log.wait_passed(place)
        raise self._late()

    def _late(self) -> BackplaneUnavailable:
        return BackplaneUnavailable(
            f"a record has been written and has not come round within timeout={self._settings.timeout:g} s; retry later"
        )

    def _check_ttl(self, room: str, history: History) -> None:
        window = self._settings.history_window
        if history.ttl > window and not self._warned:
            self._warned = True
            log.warning(
                "kafka: room %s wants to keep publications for %g s; they are kept for history_window=%g s", room,
                history.ttl, window, extra={"room": room},
            )  # fmt: skip

    # -- the handler -------------------------------------------------------------------------------------

    @property
    def read_back(self) -> float:
        """For what is kept, and for the ids that were used."""
        return max(self._settings.history_window, self._settings.publication_id_ttl)

    def take(self, records: Sequence[Record]) -> None:
        """Keep them, and hand them out.

        Not while a partition is read anew, and not before another epoch has begun if one has to: each that is handed
        out and then is of an epoch that has ended would be a loss of its own to the room. It is told one `Lost`.
        """
        views, deliver = self._views, self._listeners.deliver
        for partition, together in groupby(records, attrgetter("partition")):
            first = next(together)
            view, is_lost = self._open(partition, first.offset), partition in self._lost
            for record in chain([first], together):
                kept = views.apply(record)
                if not is_lost and not view.cut_off:
                    deliver(record, kept)
            self._wake(partition)

    def _wake(self, partition: int) -> None:
        if (moved := self._moved.pop(partition, None)) is not None:
            moved.set()

    def caught_up(self, partition: int) -> None:
        """A log that has lost our place and still begins before it was cut off: what it has now may be something else.

        One that begins behind it has gone on without us, and all it has is what it had.
        """
        place = self._log.place(partition)
        view = self._open(partition, place)
        if (before := self._lost.pop(partition, None)) is not None:
            epoch, was = before
            # Else another one has begun already. What a topic without an id calls its own, an older log may have had.
            is_old = view.epoch_name == epoch or not (self._log.incarnation or view.epoch)
            view.cut_off = is_old and view.start < was
            self._listeners.lose(partition)  # what has been read meanwhile

    def lost(self, partition: int) -> None:
        """Begin anew, as soon as it is known where."""
        view = self._open(partition)
        self._lost.setdefault(partition, (view.epoch_name, view.place))
        self._stale.add(partition)
        self._losses[partition] += 1
        self._wake(partition)
        self._listeners.lose(partition)

    @property
    def _views(self) -> HistoryView:
        if self._made is None or self._made.partitions != self._log.partitions:
            self._made = HistoryView(self._settings, self._log.partitions, self._listeners.lose)
        return self._made

    def _open(self, partition: int, at: int | None = None) -> PartitionView:
        """What is known of it, from where reading began; after a loss that is ``at``, as only the reader can tell."""
        if at is not None and partition in self._stale:
            self._stale.discard(partition)
            self._views.close(partition)
            self._begin(partition, at)
        elif partition not in self._views:
            self._begin(partition, max(0, self._log.start(partition)))
        return self._views[partition]

    def _begin(self, partition: int, start: int) -> None:
        incarnation = self._log.incarnation.replace("+", "-").replace("/", "_")  # positions may stand in URLs
        self._views.open(partition, incarnation, start)
