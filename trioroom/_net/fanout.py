"""Fan-out: what a room's subscription delivers goes to its local members.

The pump takes all that waits, encodes each publication once per kind of peer, joins the frames and
makes one pass over the members. Under load a system call then carries many messages, and a member
is never awaited: what its kernel socket refuses waits in its own outbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from trioroom._core.batch import Batch, batch_of, single
from trioroom._core.history import Kept
from trioroom._core.overflow import CONTROL, Feed, Overflow, Tally
from trioroom._wire.envelopes import Gap
from trioroom._wire.publication import Publication, decode_publication
from trioroom.backplane.base import Delivery, Lost

if TYPE_CHECKING:
    from trioroom._wire.encoding import Encoding
    from trioroom.backplane.room_channel import RoomChannel
    from trioroom.member import Member
    from trioroom.room import Room

log = logging.getLogger("trioroom.fanout")
# A pass gives way to others after so many bytes, some 0.6 ms; a message of another room waits that long four times.
_SLICE_BYTES = 768 << 10
_SEND_BYTES = 12 << 10  # added to those of each send: as many as cost what a system call does
_MAX_BATCH = 512  # publications in one pass
_MAX_BATCH_BYTES = 1 << 18  # of payload in one pass: bounds what one refused send puts into an outbox


class FanOut:
    """The local members of one room, by the encoding they share. Owned by its `ActiveRoom`."""

    __slots__ = ("_departed", "_feeds", "_groups", "_joining", "_next", "_room", "tally")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.tally = Tally()
        self._feeds: dict[Encoding, Feed] = {}
        self._groups: dict[Encoding, dict[str, Member]] = {}
        self._joining: dict[str, Member] = {}  # on_join runs: messages are held until its state is sent
        self._next: Delivery | None = None  # taken from the channel, kept for the next batch
        self._departed = False  # since the snapshot that the current pass works on

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
            gap = partial(_gap_frame, encoding, room.name)
            feed = Feed(room.overflow, self.tally, gap, room.max_outbox_messages, room.max_outbox_bytes)
            self._feeds[encoding] = feed
        return feed

    def begin_join(self, member: Member) -> None:
        """From now on messages are held for ``member``."""
        self._joining[member.id] = member
        member._present = True
        member._hold()

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
        member._forget_held()
        self._departed = True
        if self._joining.pop(member.id, None) is None:
            encoding = member._connection.encoding
            group = self._groups[encoding]
            del group[member.id]
            if not group:
                del self._groups[encoding]
        return True

    async def pump(self, channel: RoomChannel, taken: Callable[[], None]) -> None:
        """Deliver until cancelled; ``taken`` is called whenever there is more room in ``channel``."""
        while True:
            first = self._next if self._next is not None else await channel.receive()
            self._next = None
            assert not isinstance(first, Kept)
            if isinstance(first, Lost):
                taken()
                await self._tell_gap(first)
            else:
                publications = self._take_batch(first, channel)
                taken()
                if publications:
                    await self._pass(publications)

    def _take_batch(self, first: bytes, channel: RoomChannel) -> list[Publication]:
        batch: list[Publication] = []
        payload: Delivery = first
        size = 0
        while isinstance(payload, bytes):
            size += len(payload)
            try:
                batch.append(decode_publication(payload))
            except msgspec.DecodeError as exc:
                log.warning("room %s: dropped what is no publication: %s", self._room.name, exc)
            if len(batch) >= _MAX_BATCH or size >= _MAX_BATCH_BYTES:
                return batch
            try:
                payload = channel.receive_nowait()
            except trio.WouldBlock:
                return batch
        self._next = payload  # a loss ends the batch: its place in the order counts
        return batch

    async def _pass(self, publications: list[Publication]) -> None:
        excluded = {publication.exclude for publication in publications if publication.exclude is not None}
        for encoding, members in self._snapshot():
            frames = [encoding.message(self._room.name, p.data, p.sender) for p in publications]
            if excluded:
                apart = [member for member in members if member.id in excluded]
                members = [member for member in members if member.id not in excluded]
                for member in apart:
                    theirs = [index for index, p in enumerate(publications) if p.exclude != member.id]
                    if theirs:
                        await self._send([member], self._batch(encoding, publications, frames, theirs))
            await self._send(members, self._batch(encoding, publications, frames, range(len(frames))))

    def _batch(
        self, encoding: Encoding, publications: list[Publication], frames: list[bytes], chosen: Sequence[int]
    ) -> Batch:
        keyed = self._room.overflow is Overflow.LATEST
        keys = [publications[index].key for index in chosen] if keyed else None
        return batch_of(self.feed(encoding), [frames[index] for index in chosen], keys)

    async def _tell_gap(self, lost: Lost) -> None:
        for encoding, members in self._snapshot():
            if encoding.codec is not None:  # a plain peer has no word for it
                frame = encoding.envelope(Gap(self._room.name, lost.reason, lost.count))
                await self._send(members, single(CONTROL, frame))

    def _snapshot(self) -> list[tuple[Encoding, list[Member]]]:
        """Who gets the next pass. Who joins later is not in it, and its state is newer than the pass."""
        self._departed = False
        groups = {encoding: list(group.values()) for encoding, group in self._groups.items()}
        for member in self._joining.values():
            groups.setdefault(member._connection.encoding, []).append(member)
        return list(groups.items())

    async def _send(self, members: list[Member], batch: Batch) -> None:
        tally, messages = batch.feed.tally, len(batch.ends)
        step = max(1, _SLICE_BYTES // (_SEND_BYTES + len(batch.data)))
        for start in range(0, len(members), step):
            part = members[start : start + step]
            if start:
                await trio.lowlevel.checkpoint()  # members may come and go here
            if self._departed:
                part = [member for member in part if member._present]
            tally.offered += len(part) * messages
            for member in part:
                if member._held is None:
                    member._connection.send(batch)  # the loop that a broadcast spends its time in
                else:
                    member._deliver(batch)


def _gap_frame(encoding: Encoding, room: str, lost: int) -> bytes:
    """What tells a peer that it has lost messages; a plain one has no word for it."""
    return b"" if encoding.codec is None else encoding.envelope(Gap(room, "overflow", lost))
