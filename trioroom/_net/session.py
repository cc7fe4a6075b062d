"""What a peer's messages mean: plain mode (the path names the one room) and protocol v1 (many rooms)."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from trioroom._net.active_room import RoomFailed, RoomFull
from trioroom._net.failures import UNAVAILABLE, is_unavailable, refusal_in
from trioroom._net.history_requests import answer_history, live_position
from trioroom._net.hub import Hub, UnknownRoom
from trioroom._net.timing import hear, timed
from trioroom._net.who import answer_who
from trioroom._wire import envelopes
from trioroom._wire.codec import Codec, EnvelopeError
from trioroom._wire.envelopes import (
    Auth,
    Call,
    Cancel,
    Error,
    Hello,
    History,
    Id,
    Join,
    Kicked,
    Leave,
    Ok,
    Ping,
    Publish,
    Who,
)
from trioroom._wire.message import Data, Message
from trioroom._wire.publication import check_publication_id
from trioroom.closecodes import CloseCode
from trioroom.errors import JoinRefused, RemoteProtocolError
from trioroom.room import Room

if TYPE_CHECKING:
    from trioroom._net.connection import Connection
    from trioroom._net.room_history import Place
    from trioroom._wire.http import Request
    from trioroom.member import Member

log = logging.getLogger("trioroom.session")
_REQUESTS_AT_ONCE = 8  # of one frame, until others run


def room_of(request: Request) -> str:
    """The room that a plain connection's path names."""
    return request.path.removeprefix("/")


class PlainSession:
    """No envelopes: each data frame is one message of the one room, verbatim both ways."""

    __slots__ = ("_connection", "_hub", "_member")

    def __init__(self, hub: Hub, connection: Connection) -> None:
        self._hub = hub
        self._connection = connection
        self._member: Member | None = None

    async def open(self) -> None:
        """Join the room, or close with the code of the refusal."""
        connection = self._connection
        try:
            try:
                self._member = await self._hub.join(room_of(connection.request), connection, None, self._welcome)
            except JoinRefused as refusal:
                connection.close(refusal.close_code, refusal.reason)
            except RoomFailed:
                connection.close(CloseCode.INTERNAL_ERROR, "the room failed to open; the server's log tells more")
        except* Exception as error:
            connection.hook_failed("on_join", error, room_of(connection.request))

    def _welcome(self, member: Member, state: object, place: Place) -> None:
        if state is not None:
            self._connection.send_frame(self._connection.encoding.message(member.room.name, state, None))

    async def receive(self, message: Message) -> None:
        """Hand one message to the room."""
        member = self._member
        if member is None:
            return
        try:
            meters = self._hub.limits.meters
            meters.messages_received += 1
            await hear(meters, member, message)
        except* Exception as error:  # one that is cancelled may fail over it, in a group with Cancelled
            if (refusal := refusal_in(error)) is not None:  # plain mode has no other word for it
                code = CloseCode.TRY_AGAIN_LATER if refusal.retry else CloseCode.POLICY_VIOLATION
                self._connection.close(code, refusal.message)
            else:
                self._connection.hook_failed("on_message", error, member.room.name)

    def put_out(self, member: Member, reason: str) -> None:
        """A plain connection without its room has no purpose."""
        self._connection.close(CloseCode.NORMAL, reason)

    async def aclose(self, reason: str) -> None:
        """Leave the room."""
        if self._member is not None:
            await self._member._active.leave(self._member, reason)
            self._member = None


class V1Session:
    """Protocol v1: requests are served one after another, calls beside them."""

    __slots__ = ("_calls", "_codec", "_connection", "_hub", "_leaving", "_members", "_token")

    def __init__(self, hub: Hub, connection: Connection, codec: Codec) -> None:
        self._hub = hub
        self._connection = connection
        self._codec = codec
        self._members: dict[str, Member] = {}
        self._leaving: dict[str, trio.Event] = {}  # rooms that this connection is being put out of
        self._calls: dict[Id, trio.CancelScope] = {}
        self._token: str | None = None

    async def open(self) -> None:
        """Say hello."""
        settings = self._hub.settings
        ping_interval = None if math.isinf(settings.ping_interval) else settings.ping_interval  # JSON has no infinity
        self._send(Hello(self._connection.id, ping_interval, settings.max_message_bytes))

    async def receive(self, message: Message) -> None:
        """Serve the requests of one frame, in order."""
        assert isinstance(message.data, str | bytes)
        try:
            requests = self._codec.decode(message.data)
        except RemoteProtocolError as exc:
            return self._connection.close(exc.close_code, str(exc))
        if len(requests) > 1:  # the connection has counted one
            self._connection.count_messages(len(requests) - 1)
        self._hub.limits.meters.messages_received += len(requests)
        for number, request in enumerate(requests, start=1):
            if number % _REQUESTS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()  # a frame may hold a thousand of them
            if self._connection.closing is not None:
                return
            if isinstance(request, EnvelopeError):
                self._send(request.error)
            else:
                await self._serve(request)

    async def _serve(self, request: envelopes.Request) -> None:
        match request:
            case Publish():
                await self._publish(request)
            case Join():
                await self._join(request)
            case Leave():
                await self._leave(request)
            case Call():
                self._call(request)
            case Cancel(id):
                if id in self._calls:  # else it has been answered already
                    self._calls[id].cancel()
            case History() | Who():
                await self._answer_about_room(request)
            case Auth():
                await self._auth(request)
            case Ping(id):
                self._send(Ok(id))

    async def _auth(self, request: Auth) -> None:
        authentication = self._hub.authentication
        answer = Ok(request.id) if authentication is None else await authentication.answer(request, self._connection)
        if isinstance(answer, Ok):
            self._token = request.token
        self._send(answer)
        if isinstance(answer, Error) and not (answer.retry or self._is_admitted):
            self._connection.close(CloseCode.UNAUTHENTICATED, answer.message)

    @property
    def _is_admitted(self) -> bool:
        authentication = self._hub.authentication
        return authentication is None or authentication.admits(self._connection)

    async def _join(self, request: Join) -> None:
        name, limit = request.room, self._hub.settings.max_rooms_per_connection
        if not self._is_admitted:
            return self._refuse(request.id, "unauthenticated", "this server wants to know who you are; send auth first")
        if name in self._leaving:  # a connection has one place in a room
            await self._leaving[name].wait()
        if name in self._members:  # asked twice, as by a client that does not know whether the first time counted
            return self._send(Ok(request.id, name, position=live_position(self._members[name])))
        if len(self._members) >= limit:
            return self._refuse(
                request.id, "too_many_rooms", f"max_rooms_per_connection={limit} reached; leave one first"
            )

        def welcome(member: Member, state: object, place: Place) -> None:
            self._send(Ok(request.id, name, state, place.position, place.recovered))
            self._members[name] = member

        try:
            try:
                await self._hub.join(name, self._connection, self._token, welcome, request.position)
            except UnknownRoom as exc:
                self._refuse(request.id, "unknown_room", str(exc))
            except RoomFull as refusal:
                self._refuse(request.id, "room_full", refusal.reason, retry=True)
            except JoinRefused as refusal:
                self._refuse(request.id, "denied", refusal.reason)
            except RoomFailed:
                self._refuse(request.id, "failed", f"room {name!r} failed to open; try again later", retry=True)
        except* Exception as error:
            if (answer := self._hook_failed("on_join", error, request.id, name)) is not None:
                self._send(answer)

    async def _leave(self, request: Leave) -> None:
        member = self._members.pop(request.room, None)
        if member is None:
            return self._not_joined(request.id, request.room)
        await member._active.leave(member, "left")
        self._send(Ok(request.id, request.room))

    async def _publish(self, request: Publish) -> None:
        member = self._members.get(request.room)
        if member is None:
            return self._not_joined(request.id, request.room)
        try:
            data = self._codec.decode_data(request.data, request.encoding)
            check_publication_id(request.publication_id)
        except ValueError as exc:
            return self._refuse(request.id, "bad_envelope", f"publish: {exc}")
        answer: Ok | Error | None = None if request.id is None else Ok(request.id, request.room)
        try:
            await hear(self._hub.limits.meters, member, Message(data, request.publication_id))
        except* Exception as error:
            answer = self._refused_or_failed("on_message", error, request.id, request.room)
        if answer is not None:
            self._send(answer)

    def _call(self, request: Call) -> None:
        member = self._members.get(request.room)
        limit = self._hub.settings.max_calls_per_connection
        if member is None:
            return self._not_joined(request.id, request.room)
        if type(member.room).on_call is Room.on_call:
            return self._refuse(request.id, "unsupported", f"room {request.room!r} answers no calls")
        if request.id in self._calls:
            return self._refuse(request.id, "duplicate_id", "a call with this id runs; give each its own")
        if len(self._calls) >= limit:
            return self._refuse(
                request.id, "too_many_calls", f"max_calls_per_connection={limit} run; await their answers", retry=True
            )
        try:
            data = self._codec.decode_data(request.data, request.encoding)
        except ValueError as exc:
            return self._refuse(request.id, "bad_envelope", f"call: {exc}")
        timeout = math.inf if request.timeout is None else max(0.0, request.timeout)
        scope = self._calls[request.id] = trio.CancelScope(deadline=trio.current_time() + timeout)
        member.start_soon(self._answer, member, request.id, data, scope)

    async def _answer(self, member: Member, id: Id, data: Data, scope: trio.CancelScope) -> None:
        answer: Ok | Error | None = Error(id, "cancelled", "the call was cancelled, or its member left")
        try:
            with scope:
                timing = self._hub.limits.meters.timings.hooks["on_call"]
                returned = await timed(timing, member.room.on_call, member, Message(data))
                answer = Ok(id, member.room.name, data=returned)
            if scope.cancelled_caught and trio.current_time() >= scope.deadline:
                answer = Error(id, "timeout", "on_call took longer than the call's timeout", retry=True)
        except* Exception as error:
            if refusal_in(error) is None and not is_unavailable(error):
                self._send(Error(id, "failed", "on_call failed; the server's log tells more"))
            answer = self._refused_or_failed("on_call", error, id, member.room.name)
        finally:
            del self._calls[id]
            if answer is not None:
                self._send(answer)

    async def _answer_about_room(self, request: History | Who) -> None:
        member = self._members.get(request.room)
        if member is None:
            self._not_joined(request.id, request.room)
        elif isinstance(request, History):
            self._send(await answer_history(request, member, self._codec))
        else:
            self._send(answer_who(request, member))

    def put_out(self, member: Member, reason: str) -> None:
        """Out of one room; the connection and its other rooms stay."""
        if self._members.get(member.room.name) is member:
            del self._members[member.room.name]
            self._leaving[member.room.name] = trio.Event()
            self._connection.nursery.start_soon(self._kick, member, reason)

    async def _kick(self, member: Member, reason: str) -> None:
        await member._active.leave(member, reason)
        self._send(Kicked(member.room.name, CloseCode.KICKED, reason))
        self._leaving.pop(member.room.name).set()

    async def aclose(self, reason: str) -> None:
        """Leave all rooms, side by side, so that all have gone within one ``leave_timeout``."""
        members = list(self._members.values())
        self._members.clear()
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member._active.leave, member, reason)

    def _not_joined(self, id: Id | None, room: str) -> None:
        self._refuse(id, "not_joined", f"you are not in {room!r}; join it first")

    def _refused_or_failed(self, hook: str, error: ExceptionGroup[Exception], id: Id | None, room: str) -> Error | None:
        """The answer when a hook raised: a refusal is one of the room's answers, and no failure."""
        if (refusal := refusal_in(error)) is not None:
            return Error(id, refusal.code, refusal.message, refusal.retry, refusal.after)
        return self._hook_failed(hook, error, id, room)

    def _hook_failed(self, hook: str, error: ExceptionGroup[Exception], id: Id | None, room: str) -> Error | None:
        """The answer, if a hook could not reach the other servers: that is a bad moment and no reason to part."""
        if is_unavailable(error):
            return Error(id, "unavailable", UNAVAILABLE, retry=True)
        self._connection.hook_failed(hook, error, room)
        return None

    def _refuse(self, id: Id | None, code: str, message: str, *, retry: bool = False) -> None:
        self._send(Error(id, code, message, retry))

    def _send(self, envelope: object) -> None:
        self._connection.send_frame(self._connection.encoding.envelope(envelope))
