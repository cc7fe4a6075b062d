"""Histories of rooms in JetStream, spread over some streams by the names of rooms."""

from __future__ import annotations

import zlib
from contextlib import AbstractAsyncContextManager

import trio

from trioroom._core.history import History, Page, Position
from trioroom.backplane.nats.history_part import HistoryPart
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import JetStreamError
from trioroom.backplane.nats.subjects import token_of
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneError


class NatsHistory:
    """What `NatsBackplane.history` is."""

    dense_offsets = False
    """They are sequences of a stream, which many rooms share."""

    def __init__(self, link: Link, settings: NatsSettings) -> None:
        self._settings = settings
        self._parts = [HistoryPart(link, settings, number) for number in range(settings.history_streams)]
        link.on_connection(self._settle)

    async def _settle(self, requests: Requests) -> None:
        async with trio.open_nursery() as nursery:
            for part in self._parts:
                nursery.start_soon(part.settle, requests)

    def _find(self, room: str, history: History | None) -> tuple[HistoryPart, str]:
        """Where the room is, and its token there.

        Raises:
            BackplaneError: ``history`` is more than the settings allow.
        """
        if history is not None:
            self._check(room, history)
        token = token_of(room)
        return self._parts[zlib.crc32(token.encode()) % len(self._parts)], token

    def _check(self, room: str, history: History) -> None:
        settings = self._settings
        if history.size > settings.max_history_size:
            raise BackplaneError(
                f"room {room!r} has History.size={history.size}, more than max_history_size="
                f"{settings.max_history_size} of the NATS backplane; raise that on all nodes, or keep less"
            )
        if history.ttl > settings.position_ttl:
            raise BackplaneError(
                f"room {room!r} has History.ttl={history.ttl:g} s, more than position_ttl={settings.position_ttl:g} s "
                "of the NATS backplane; raise that on all nodes, or keep it for less time"
            )

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """One round trip, which may be shared; two if ``history`` is None.

        Otherwise as `trioroom.backplane.base.HistoryStore.publish`.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it, or ``history`` is more than the settings allow.
        """
        self._settings.check_payload(payload)
        part, token = self._find(room, history)
        if history is None and not await part.is_known(token):
            return None
        try:
            return await part.append(token, payload, None if publication_id is None else token_of(publication_id))
        except JetStreamError as exc:
            raise BackplaneError(f"the broker refused a publication to room {room!r}: {exc}") from exc

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """As `NatsBackplane.subscribe`; what comes is `Kept` and `Lost`."""
        part, token = self._find(room, None)
        return part.subscribe(token, channel, room)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """Some round trips for up to a MiB of payload; as `trioroom.backplane.base.HistoryStore.read_after`."""
        part, token = self._find(room, history)
        return await (await part.open_pages(token, history, seen)).after(offset, limit)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """The same backwards; some more where the room publishes unevenly."""
        part, token = self._find(room, history)
        return await (await part.open_pages(token, history)).before(offset, limit)
