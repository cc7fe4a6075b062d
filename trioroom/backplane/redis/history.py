"""Histories of rooms in Redis: a stream and a hash for each, written and read by scripts (``history_scripts``)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from redis.exceptions import ResponseError

from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.channel import Channel, Listener
from trioroom.backplane.redis.history_scripts import PUBLISH, READ
from trioroom.backplane.redis.settings import RedisSettings
from trioroom.backplane.redis.topology import Topology
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")
_EVER = 1 << 52  # milliseconds; the server's clock added, it still fits into a double, as which scripts count
_PAGE_BYTES = 1 << 20  # of payload; scripts hold up all others at the server


class RedisHistory:
    """What `RedisBackplane.history` is."""

    def __init__(self, topology: Topology, subscriptions: Subscriptions[Channel], settings: RedisSettings) -> None:
        self._topology = topology
        self._subscriptions = subscriptions
        self._settings = settings

    @property
    def dense_offsets(self) -> bool:
        """Each room counts its own."""
        return True

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """One round trip, which may be shared; as `trioroom.backplane.base.HistoryStore.publish`.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it.
        """
        self._settings.check_payload(payload)
        tag = self._tag(room)
        keys = [tag + b":meta", tag + b":stream"]
        if publication_id is not None:
            keys.append(b"%s:id:%s" % (tag, publication_id.encode()))
        remember = milliseconds(self._settings.publication_id_ttl)
        what: list[bytes | int | str] = [remember, self._topology.words.publish, tag, payload]
        try:
            reply = await PUBLISH.run(self._topology, keys, lambda server: [server, *self._enter(history), *what])
        except ResponseError as exc:
            raise BackplaneError(f"the broker refused a publication to room {room!r}: {exc}") from exc
        return None if reply is None else Position(reply[0].decode(), reply[1])

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """As `RedisBackplane.subscribe`; what comes is `Kept` and `Lost`."""
        return self._subscriptions.open(self._tag(room), _Unpacking(channel, room), room)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """One round trip for up to a MiB of payload; as `trioroom.backplane.base.HistoryStore.read_after`."""
        return await self._read(room, history, ["after", "" if offset is None else offset, limit], seen)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """The same backwards."""
        return await self._read(room, history, ["before", offset, limit], None)

    async def _read(self, room: str, history: History, what: Sequence[str | int], seen: Position | None) -> Page:
        tag = self._tag(room)
        confirmed = ["", ""] if seen is None else [seen.epoch, seen.offset]
        rest = [*confirmed, *what, _PAGE_BYTES]
        keys = [tag + b":meta", tag + b":stream"]
        try:
            reply = await READ.run(self._topology, keys, lambda server: [server, *self._enter(history), *rest])
        except ResponseError as exc:
            raise BackplaneError(f"the broker refused to read the history of room {room!r}: {exc}") from exc
        epoch, last, previous, shared, start, *entries = reply
        name = epoch.decode()
        kept = [
            Kept(name, offset, payload, age / 1000)
            for offset, age, payload in zip(entries[::3], entries[1::3], entries[2::3], strict=True)
        ]
        return Page(
            Position(name, last),
            None if previous is None else Position(previous.decode(), shared),
            start,
            tuple(kept if what[0] == "after" else reversed(kept)),
        )

    def _tag(self, room: str) -> bytes:
        # The channel, and the beginning of all keys: what is between the braces, never nothing, decides of the slot.
        return f"{self._settings.prefix}:{{room:{room}}}".encode()

    def _enter(self, history: History | None) -> tuple[str | int, ...]:
        lasting = milliseconds(self._settings.position_ttl)
        kept = ("", "") if history is None else (history.size, milliseconds(history.ttl))
        return secrets.token_hex(8), lasting, *kept


def milliseconds(seconds: float) -> int:
    """As the server counts; it refuses no time at all, and eternity."""
    return round(min(max(1, seconds * 1000), _EVER))


class _Unpacking:
    """Makes `Kept` of what a script has put into the room's channel."""

    def __init__(self, listener: Listener, room: str) -> None:
        self._listener = listener
        self._room = room
        self._epoch = b"", ""  # the latest, encoded and not: one string for all that is of one epoch

    def offer(self, delivery: Delivery) -> None:
        """Called by the task that listens."""
        self._listener.offer(self._unpack(delivery) if isinstance(delivery, bytes) else delivery)

    def _unpack(self, data: bytes) -> Delivery:
        try:
            epoch, offset, payload = data.split(b":", 2)
            if epoch != self._epoch[0]:
                self._epoch = epoch, epoch.decode("ascii")
            return Kept(self._epoch[1], int(offset), payload)
        except ValueError:
            log.warning(
                "dropped %d bytes on the channel of room %r: no publication of a history", len(data), self._room,
                extra={"room": self._room, "bytes": len(data)},
            )  # fmt: skip
            return Lost("backplane", 1)
