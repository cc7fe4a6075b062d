"""Rooms as the HTTP API has them, whether or not anybody has joined them on this server."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from trioroom._core.history import History, Page, Position, same_place
from trioroom._core.presence import PageOfUsers, Presence, PresenceTable
from trioroom._net.hub import UnknownRoom
from trioroom._net.replay import publications_of
from trioroom._net.room_presence import presents
from trioroom._wire import api
from trioroom._wire.codec import JSON
from trioroom._wire.envelopes import HistoryItem
from trioroom.errors import BackplaneError, BackplaneUnavailable, HandshakeError, PositionLost
from trioroom.room import Room, presence_of

if TYPE_CHECKING:
    from trioroom._net.active_room import ActiveRoom
    from trioroom._net.operator import Operator
    from trioroom.backplane.base import HistoryStore, PresenceStore

_SEAT_INTERVAL = 60.0  # seconds; a seat that only looks writes nothing


class ApiError(HandshakeError):
    """What a request is answered with that is not served; ``code`` is for programs."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, message, headers)
        self.code = code


@contextmanager
def refusals() -> Iterator[None]:
    """Values that what is called refuses are a fault of who sent them."""
    try:
        yield
    except (TypeError, ValueError) as exc:
        raise ApiError(422, "invalid", str(exc)) from exc


class RoomsApi:
    """Each method serves one operation, and raises `ApiError` or what the backplane raises."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._hub = operator.hub

    # -- publishing --------------------------------------------------------------------------------

    async def publish(self, room: str, publication: api.PublicationRequest) -> api.PublicationResponse:
        """To one room."""
        return api.PublicationResponse(await self._publish(room, publication))

    async def _publish(self, room: str, publication: api.PublicationRequest) -> Position | None:
        self.class_of(room)
        with refusals():
            data = JSON.decode_data(publication.data, publication.encoding)
            return await self._hub.publish(room, data, publication.key, publication.publication_id)

    async def publish_many(self, batch: api.BatchRequest) -> api.BatchResponse:
        """To many rooms side by side, to each of them one after another."""
        results = [api.BatchResult()] * len(batch.publications)
        rooms: dict[str, list[int]] = {}
        for number, publication in enumerate(batch.publications):
            rooms.setdefault(publication.room, []).append(number)

        async def publish_in_turn(numbers: list[int]) -> None:
            for number in numbers:
                results[number] = await self._try_to_publish(batch.publications[number], give_up_at)

        give_up_at = trio.current_time() + self._hub.settings.publish_timeout
        async with trio.open_nursery() as nursery:
            for numbers in rooms.values():
                nursery.start_soon(publish_in_turn, numbers)
        return api.BatchResponse(results)

    async def _try_to_publish(self, publication: api.RoomPublicationRequest, give_up_at: float) -> api.BatchResult:
        try:
            if trio.current_time() >= give_up_at:
                raise BackplaneUnavailable("those before it took too long; this one was not tried")
            return api.BatchResult(await self._publish(publication.room, publication))
        except ApiError as exc:
            return api.BatchResult(error=api.ErrorDetail(exc.code, str(exc)))
        except BackplaneUnavailable as exc:
            return api.BatchResult(error=api.ErrorDetail("unavailable", str(exc)))
        except BackplaneError as exc:
            return api.BatchResult(error=api.ErrorDetail("refused", str(exc)))

    # -- looking -------------------------------------------------------------------------------------

    async def find(self, query: api.RoomsQuery) -> api.RoomsResponse:
        """Active rooms."""
        page = await self._operator.find_rooms(query.prefix, query.after, query.limit, here=query.here)
        rooms = [api.RoomSummary(name, members) for name, members in page.rooms]
        return api.RoomsResponse(rooms, page.more, page.nodes, page.silent)

    async def describe(self, room: str) -> api.RoomResponse:
        """One of them."""
        room_class = self.class_of(room)
        counted = await self._operator.count_members(room)
        users = None if presence_of(room_class) is None else (await self._present(room, room_class, 1, None)).count
        position = None if room_class.history is None else await self._position_of(room, room_class.history)
        here = _here(self._hub.rooms.get(room))
        return api.RoomResponse(room, counted.members, users, position, here, counted.nodes, counted.silent)

    async def list_present(self, room: str, query: api.PresenceQuery) -> api.PresenceResponse:
        """Who is in it."""
        page = await self._present(room, self.class_of(room), query.limit, query.after)
        return api.PresenceResponse(presents(page.users), page.count, page.more)

    async def _present(self, room: str, room_class: type[Room], limit: int, after: str | None) -> PageOfUsers:
        if presence_of(room_class) is None:
            raise ApiError(409, "unsupported", f"room {room!r} does not know who is in it")
        active = self._hub.rooms.get(room)
        if active is not None and active.presence is not None:
            return active.presence.page(limit, after)
        assert self._hub.backplane.presence is not None, "open_server has asked it"
        return await look_who_is_there(self._hub.backplane.presence, room, limit, after)

    async def read_history(self, room: str, query: api.HistoryQuery) -> api.HistoryResponse:
        """What it keeps."""
        room_class = self.class_of(room)
        if room_class.history is None:
            raise ApiError(409, "unsupported", f"room {room!r} keeps no history")
        before = _position(query.before)
        active = self._hub.rooms.get(room)
        try:
            if active is None or active.history is None:
                return await read_page(self._store, room, room_class.history, query.limit, before)
            page = await active.history.page(query.limit, before, None)
        except PositionLost as exc:
            raise ApiError(409, "position_lost", str(exc)) from exc
        items = [JSON.history_item(message.offset, message.data, message.sender) for message in page.messages]
        return api.HistoryResponse(items, page.position, page.more)

    async def _position_of(self, room: str, history: History) -> Position:
        return (await self._store.read_after(room, history, None, 0)).position

    @property
    def _store(self) -> HistoryStore:
        assert self._hub.backplane.history is not None, "open_server has asked it"
        return self._hub.backplane.history

    def class_of(self, room: str) -> type[Room]:
        """The class of a room; `ApiError` if there can be none of that name."""
        try:
            return self._hub.route(room)[0]
        except UnknownRoom as exc:
            raise ApiError(404, "unknown_room", str(exc)) from exc


def _here(active: ActiveRoom | None) -> api.RoomHere | None:
    if active is None:
        return None
    now = active.statistics()
    where = now.deliveries
    return api.RoomHere(
        now.members, now.overflow.value, now.waiting, where.offered, where.sent, where.queued, where.dropped,
        where.unsent, where.slow_consumers,
    )  # fmt: skip


def _position(place: str | None) -> Position | None:
    if place is None:
        return None
    epoch, _, offset = place.partition(":")
    return Position(epoch, int(offset))


# -- rooms that nobody here has joined: the backplane is asked ---------------------------------------


async def read_page(
    store: HistoryStore, room: str, history: History, limit: int, before: Position | None
) -> api.HistoryResponse:
    """The last ``limit`` messages, or those that end ``before`` a position.

    Raises:
        PositionLost: the history knows no such position.
        BackplaneUnavailable: the broker cannot be reached.
    """
    end = (await store.read_after(room, history, None, 0)).position
    page = await store.read_before(room, history, end.offset + 1 if before is None else before.offset, limit)
    if before is not None and same_place(before, page.position, page.previous) is None:
        raise PositionLost(f"the history knows no position {before.epoch}:{before.offset}; begin anew")
    more = bool(page.kept) and page.start < page.kept[0].place_before
    if more and not store.dense_offsets:  # there may be nothing between the two
        more = bool((await store.read_before(room, history, page.kept[0].offset, 1)).kept)
    return api.HistoryResponse(_items_of(page), page.position, more)


def _items_of(page: Page) -> list[HistoryItem]:
    return [
        JSON.history_item(offset, publication.data, publication.sender)
        for offset, publication in publications_of(page.kept)
    ]


class _Look:
    """A `PresenceListener` that is told once."""

    def __init__(self) -> None:
        self.table = PresenceTable(Presence())

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        self.table.rows_changed(seat, put, removed)

    def seat_gone(self, seat: str) -> None:
        self.table.seat_gone(seat)

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        self.table.resynced(seats, trio.current_time())


async def look_who_is_there(store: PresenceStore, room: str, limit: int, after: str | None) -> PageOfUsers:
    """A page of who is in a room on other servers.

    Raises:
        BackplaneUnavailable: the broker cannot be reached.
    """
    look = _Look()
    async with store.open(room, look, _SEAT_INTERVAL):
        look.table.announce(trio.current_time())
        return look.table.page(limit, after)
