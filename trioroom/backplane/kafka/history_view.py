"""What a node makes of the records of rooms with a history: the same on all nodes, as all read the same log.

No I/O: records come in, and pages can be had of what is kept. Where a room's offsets are told they are the log's plus
one, so that they are places: behind all records before that one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import attrs

from trioroom._core.archive import Archive
from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.kafka.history_records import Content, Epoch, read
from trioroom.backplane.kafka.publication_ids import FirstUses
from trioroom.backplane.kafka.records import HISTORY, Record, partition_of
from trioroom.backplane.kafka.settings import KafkaSettings

log = logging.getLogger("trioroom.backplane")


@attrs.define(eq=False)
class PartitionView:
    """What is known of one partition."""

    own_epoch: str
    """The topic's."""
    start: int
    """Where reading began."""
    floor: int
    """Behind it all of every room is known, but of those that `Archive` has on its own."""
    ids: FirstUses
    epoch: Epoch | None = None
    """In force; None is the topic's own."""
    place: int = 0
    """Behind the last record that was looked at."""
    clock: float = 0.0
    """The latest time that a record was written at, in seconds since 1970."""
    applied: bool = False
    """There was a record."""
    cut_off: bool = False
    """The log has lost what we had read of it: another epoch has to begin."""

    @property
    def epoch_name(self) -> str:
        """As in positions."""
        return self.own_epoch if self.epoch is None else self.epoch.name

    def name_epoch(self) -> str:
        """A name for another one."""
        return f"{self.own_epoch}.{secrets.token_urlsafe(9)}"

    def may_have(self, epoch: str) -> bool:
        """False for one of another topic, whose name a writer still has that does not know of this one."""
        return epoch.startswith(f"{self.own_epoch}.")


class HistoryView:
    """Of all partitions, bounded in bytes together.

    Args:
        partitions: how many the topic has.
        on_epoch: called when what was told of a partition does not hold any more.
    """

    def __init__(self, settings: KafkaSettings, partitions: int, on_epoch: Callable[[int], None]) -> None:
        self.partitions = partitions
        self._settings = settings
        self._on_epoch = on_epoch
        self._views: dict[int, PartitionView] = {}
        self._archive = Archive(settings.max_history_bytes, self._begin, self._raise_floor)

    # -- partitions ----------------------------------------------------------------------------------

    def open(self, partition: int, incarnation: str, start: int) -> None:
        """Begin with a partition at the offset ``start``; the topic's incarnation is part of the epoch's name."""
        settings = self._settings
        own_epoch = f"{incarnation}.{self.partitions}.{partition}"
        ids = FirstUses(settings.publication_id_ttl, max(1, settings.max_publication_ids // self.partitions))
        self._views[partition] = PartitionView(own_epoch, start, start, ids, place=start)

    def close(self, partition: int) -> None:
        """Forget it."""
        self._forget(partition)
        del self._views[partition]

    def __getitem__(self, partition: int) -> PartitionView:
        return self._views[partition]

    def __contains__(self, partition: int) -> bool:
        return partition in self._views

    def partition_of(self, room: str) -> int:
        """Where a room's records are."""
        return partition_of(HISTORY + room.encode(), self.partitions)

    def _forget(self, partition: int) -> None:
        self._archive.forget_all(lambda room: self.partition_of(room) == partition)

    def _begin(self, room: str) -> Position:
        view = self._views[self.partition_of(room)]
        return Position(view.epoch_name, view.floor)

    def _raise_floor(self, room: str, end: Position) -> None:
        view = self._views.get(self.partition_of(room))
        if view is not None:
            view.floor = max(view.floor, end.offset)

    # -- records -------------------------------------------------------------------------------------

    def apply(self, record: Record) -> Kept | None:
        """The publication that it is; None if it is none, one that was made before, or of no room that keeps any.

        Nor is it one in another partition than its room's.
        """
        view = self._views[record.partition]
        view.clock = max(view.clock, record.timestamp)
        kept = None
        try:
            content = read(record)
        except (ValueError, TypeError) as exc:
            log.warning(
                "kafka: dropped a record of a history that makes no sense: %s", exc,
                extra={"partition": record.partition, "offset": record.offset},
            )  # fmt: skip
        else:
            if content.begins is not None or self.partition_of(content.room) == record.partition:
                self._agree_on_epoch(view, content, record)
                kept = self._enter(view, content, record)
        view.place, view.applied = record.offset + 1, True
        return kept

    def _enter(self, view: PartitionView, content: Content, record: Record) -> Kept | None:
        room = content.room
        history = content.said or self._archive.history_of(room) or content.known
        if history is None or content.begins is not None:
            return None
        if not content.is_publication:
            self._archive.open(room, self.bounded(history), view.clock)
            return None
        if content.publication_id is not None:
            first = view.ids.first(record.name, content.publication_id, record.offset, record.timestamp)
            if first != record.offset:
                return None
        return self._archive.append(room, record.value, self.bounded(history), view.clock, record.offset + 1)

    def _agree_on_epoch(self, view: PartitionView, content: Content, record: Record) -> None:
        if content.begins is not None:
            name, previous = content.begins
            ours = previous == view.epoch_name or not view.applied  # else another node has been faster
            if ours and view.may_have(name):
                self._turn(view, Epoch(name, record.offset), record.partition, record.offset + 1)
        elif (
            (epoch := content.in_force) is not None
            and view.may_have(epoch.name)
            and epoch.offset > (-1 if view.epoch is None else view.epoch.offset)
        ):
            # It began before we began to read. What we have told in the topic's own epoch was never a place in it.
            self._turn(view, epoch, record.partition, record.offset if view.applied else view.floor)

    def _turn(self, view: PartitionView, epoch: Epoch, partition: int, floor: int) -> None:
        self._forget(partition)
        view.epoch, view.floor, view.cut_off = epoch, floor, False
        view.ids.clear()
        self._on_epoch(partition)

    def bounded(self, history: History) -> History:
        """What is kept of that here."""
        window = self._settings.history_window
        return history if history.ttl <= window else attrs.evolve(history, ttl=window)

    # -- for readers -----------------------------------------------------------------------------------

    def history_of(self, room: str) -> History | None:
        """What was said last, `bounded`; None if nobody has said anything that is still known."""
        return self._archive.history_of(room)

    def first_use(self, room: str, publication_id: str) -> int | None:
        """The offset of the first record with this id."""
        view = self._views[self.partition_of(room)]
        return view.ids.look_up(room.encode(), publication_id.encode())

    def read_after(self, room: str, history: History, offset: int | None, limit: int, now: float, end: int) -> Page:
        """As the contract has it, of what has come so far; ``end`` is how far the log has been read."""
        view = self._views[self.partition_of(room)]
        page = self._archive.read_after(room, history, offset, limit, max(now, view.clock))
        return self._ending(page, end)

    def read_before(self, room: str, history: History, offset: int, limit: int, now: float, end: int) -> Page:
        """The same backwards."""
        view = self._views[self.partition_of(room)]
        return self._ending(self._archive.read_before(room, history, offset, limit, max(now, view.clock)), end)

    def _ending(self, page: Page, end: int) -> Page:
        epoch, last = page.position.epoch, page.position.offset
        return Page(Position(epoch, max(last, end)), None, page.start, page.kept)
