"""Fan-out: what a room's subscription delivers goes to its local members.

The pump takes all that waits, encodes each publication once per kind of peer, joins the frames and
makes one pass over the members. Under load a system call then carries many messages, and a member
is never awaited: what its kernel socket refuses waits in its own outbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import attrs
import msgspec
import trio

from trioroom._core.batch import Batch, batch_of, single
from trioroom._core.history import Kept
from trioroom._core.overflow import CONTROL, Feed, Overflow, Tally
from trioroom._net.healing import Turn
from trioroom._net.room_history import Place, RoomHistory
from trioroom._wire.envelopes import Gap, PositionChanged
from trioroom._wire.publication import Publication, decode_publication
from trioroom.backplane.base import Delivery, Lost

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._core.meters import Meters
    from trioroom._wire.encoding import Encoding
    from trioroom.member import Member
    from trioroom.room import Room

log = logging.getLogger("trioroom.fanout")
# A pass gives way to others after so many bytes, some 0.6 ms; a message of another room waits that long four times.
_SLICE_BYTES = 768 << 10
_SEND_BYTES = 12 << 10  # added to those of each send: as many as cost what a system call does
_MAX_BATCH = 512  # publications in one pass
_MAX_BATCH_BYTES = 1 << 18  # of payload in one pass: bounds what one refused send puts into an outbox


class Source(Protocol):
    """What the pump reads: a `RoomChannel`, or the healing stage behind it."""

    async def receive(self) -> Delivery | Turn:
        """The next one, awaited; always a checkpoint."""
        ...

    def receive_nowait(self) -> Delivery | Turn:
        """The next one, or ``trio.WouldBlock``."""
        ...


@attrs.define
class _Pass:
    """What goes out together."""

    publications: list[Publication] = attrs.field(factory=list)
    offsets: list[int] = attrs.field(factory=list)
    """Of each of them, where the room has a history."""
    kept: list[Kept] = attrs.field(factory=list)
    """For the history: what is no publication, but has an offset, too."""


class FanOut:
    """The local members of one room, by the encoding they share. Owned by its `ActiveRoom`."""

    __slots__ = ("_feeds", "_groups", "_history", "_joining", "_meters", "_next", "_room", "tally")

    def __init__(self, room: Room, meters: Meters, history: RoomHistory | None = None) -> None:
        self._room = room
        self._meters = meters
        self._history = history
        self.tally = Tally()
        self._feeds: dict[Encoding, Feed] = {}
        self._groups: dict[Encoding, dict[str, Member]] = {}
        self._joining: dict[str, Member] = {}  # on_join runs: messages are held until its state is sent
        self._next: Delivery | Turn | None = None  # taken from the channel, kept for the next batch

    def __len__(self) -> int:
        return len(self._joining) + sum(map(len, self._groups.values()))

    def __iter__(self) -> Iterator[Member]:
        """A snapshot: members may come and go while it is walked."""
        members = list(self._joining.values())
        for group in self._groups.values():
            members += group.values()
        return iter(members)

    def feed(self, encoding: Encoding) -> Feed:
        """The rules for what waits of this room for members of one encoding."""
        feed = self._feeds.get(encoding)
        if feed is None:
            room = self._room
            gap = _GapFrames(encoding, room.name)
            feed = Feed(room.overflow, self.tally, gap, room.max_outbox_messages, room.max_outbox_bytes)
            self._feeds[encoding] = feed
        return feed

    def begin_join(self, member: Member, position: Position | None = None) -> Place:
        """From now on messages are held for ``member``; what it missed since ``position`` goes before them."""
        self._joining[member.id] = member
        member._present = True
        self._meters.members += 1
        member._hold()
        if self._history is None:
            return Place(None, None if position is None else False)
        place, missed = self._history.place(position, member)
        if missed is not None:
            self.tally.offered += len(missed.ends)
            member._deliver(missed)
        return place

    def finish_join(self, member: Member) -> None:
        """The joiner has its state: send what was held, then let messages through."""
        del self._joining[member.id]
        self._groups.setdefault(member._connection.encoding, {})[member.id] = member
        member._release()

    def remove(self, member: Member) -> bool:
        """Nothing goes to ``member`` any more; False when that was so before."""
        if not member._present:
            return False
        member._present = False
        self._meters.members -= 1
        member._forget_held()
        member._connection.seal(member._feed)
        if self._joining.pop(member.id, None) is None:
            encoding = member._connection.encoding
            group = self._groups[encoding]
            del group[member.id]
            if not group:
                del self._groups[encoding]
        return True

    async def pump(self, source: Source, taken: Callable[[], None]) -> None:
        """Deliver until cancelled; ``taken`` is called whenever there is more room in ``source``."""
        while True:
            first = self._next if self._next is not None else await source.receive()
            self._next = None
            if isinstance(first, Lost):
                taken()
                self._meters.lose(first.reason)
                await self.tell(Gap(self._room.name, first.reason, first.count))
            elif isinstance(first, Turn):
                taken()
                await self._turn(first)
            else:
                passing = self._take(first, source)
                taken()
                began = perf_counter()
                await self._pass(passing)
                self._meters.timings.count_pass(perf_counter() - began, len(passing.publications))

    def _take(self, first: bytes | Kept, source: Source) -> _Pass:
        passing = _Pass()
        delivery: Delivery | Turn = first
        size = 0
        while isinstance(delivery, bytes | Kept):
            payload = delivery if isinstance(delivery, bytes) else delivery.payload
            size += len(payload)
            try:
                passing.publications.append(decode_publication(payload))
                if isinstance(delivery, Kept):
                    passing.offsets.append(delivery.offset)
            except msgspec.DecodeError as exc:
                name = self._room.name
                log.warning("room %s: dropped what is no publication: %s", name, exc, extra={"room": name})
            if isinstance(delivery, Kept):
                passing.kept.append(delivery)
            if len(passing.publications) >= _MAX_BATCH or size >= _MAX_BATCH_BYTES:
                return passing
            try:
                delivery = source.receive_nowait()
            except trio.WouldBlock:
                return passing
        self._next = delivery  # a loss ends the batch: its place in the order counts
        return passing

    async def _pass(self, passing: _Pass) -> None:
        publications = passing.publications
        if self._history is not None:
            self._history.append(passing.kept)  # with the snapshot below: who joins later has it from there
        if not publications:
            return
        excluded = {publication.exclude for publication in publications if publication.exclude is not None}
        for encoding, members in self._snapshot():
            frames = self._encode(encoding, passing)
            if excluded:
                apart = [member for member in members if member.id in excluded]
                members = [member for member in members if member.id not in excluded]
                for member in apart:
                    theirs = [index for index, p in enumerate(publications) if p.exclude != member.id]
                    if theirs:
                        await self._send([member], self._batch(encoding, publications, frames, theirs))
            await self._send(members, self._batch(encoding, publications, frames, range(len(frames))))

    def _encode(self, encoding: Encoding, passing: _Pass) -> list[bytes]:
        name = self._room.name
        if self._history is None:
            return [encoding.message(name, p.data, p.sender) for p in passing.publications]
        return [
            encoding.message(name, publication.data, publication.sender, offset)
            for publication, offset in zip(passing.publications, passing.offsets, strict=True)
        ]

    async def _turn(self, turn: Turn) -> None:
        assert self._history is not None
        self._history.turn(turn)
        if turn.lost is None:  # not with the next message: not everybody gets that
            await self.tell(PositionChanged(self._room.name, turn.position))
        else:
            self._meters.lose(turn.lost.reason)
            await self.tell(Gap(self._room.name, turn.lost.reason, turn.lost.count, turn.position))

    def _batch(
        self, encoding: Encoding, publications: list[Publication], frames: list[bytes], chosen: Sequence[int]
    ) -> Batch:
        keyed = self._room.overflow is Overflow.LATEST
        keys = [publications[index].key for index in chosen] if keyed else None
        return batch_of(self.feed(encoding), [frames[index] for index in chosen], keys)

    async def tell(self, envelope: object) -> None:
        """Send a push to all members that speak v1, beside what the pump sends; a plain peer has no word for it."""
        for encoding, members in self._snapshot():
            if encoding.codec is not None:
                await self._send(members, single(CONTROL, encoding.envelope(envelope)))

    def _snapshot(self) -> list[tuple[Encoding, list[Member]]]:
        """Who gets the next pass. Who joins later is not in it, and its state is newer than the pass."""
        groups = {encoding: list(group.values()) for encoding, group in self._groups.items()}
        for member in self._joining.values():
            groups.setdefault(member._connection.encoding, []).append(member)
        return list(groups.items())

    async def _send(self, members: list[Member], batch: Batch) -> None:
        tally, messages = batch.feed.tally, len(batch.ends)
        step = max(1, _SLICE_BYTES // (_SEND_BYTES + len(batch.data)))
        for start in range(0, len(members), step):
            if start:
                await trio.lowlevel.checkpoint()  # members may come and go here
            part = [member for member in members[start : start + step] if member._present]
            tally.offered += len(part) * messages
            self._meters.sent_bytes += len(part) * len(batch.data)  # see `Meters`
            for member in part:
                if member._held is None:
                    member._connection.send(batch)  # the loop that a broadcast spends its time in
                else:
                    member._connection.queue(member._held, batch)


@attrs.frozen
class _GapFrames:
    """What tells peers of one encoding that they have lost messages. In each room, where a `partial` took 200 bytes."""

    encoding: Encoding
    room: str

    def __call__(self, lost: int) -> bytes:
        """The frame; a plain peer has no word for it."""
        encoding = self.encoding
        return b"" if encoding.codec is None else encoding.envelope(Gap(self.room, "overflow", lost))
