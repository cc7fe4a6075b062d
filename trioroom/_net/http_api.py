"""The HTTP API: from a request to the operation it means, and from what that gives to JSON.

What there is stands in `trioroom._wire.openapi`; what is done about rooms in `api_rooms`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import attrs
import msgspec
import trio

from trioroom._net.api_rooms import ApiError, RoomsApi, refusals
from trioroom._net.endpoints import path_of
from trioroom._net.overview import package_version
from trioroom._wire import api
from trioroom._wire.http import Request, encode_response
from trioroom._wire.openapi import OPERATIONS, Operation, document
from trioroom.errors import BackplaneError, BackplaneUnavailable, HandshakeError

if TYPE_CHECKING:
    from trioroom._core.revocation import Revocation
    from trioroom._net.endpoints import Endpoints, ReadBody
    from trioroom._net.operator import Operator

_RETRY_AFTER = (("Retry-After", "1"),)
_CODES = {
    400: "bad_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    411: "length_required", 413: "too_large", 500: "failed", 504: "timeout",
}  # fmt: skip
_NO_STORE = (("Cache-Control", "no-store"),)
_METHODS = ("GET", "HEAD", "POST")
_ACTIONS = frozenset(one.path.rpartition("/")[2] for one in OPERATIONS if one.path.startswith("rooms/{room}/"))


@attrs.frozen
class Call:
    """A request that makes sense, as far as its shape goes."""

    room: str
    """The one that the path names, if it does."""
    query: Any
    """A record of the operation's `query`."""
    body: Any
    """One of its `request`; None if it has none."""


class HttpApi:
    """What answers below `api.PREFIX`."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._began = trio.current_time()
        self._operations = {(one.path, one.method): one for one in OPERATIONS}
        self._paths = {one.path for one in OPERATIONS}
        rooms = self._rooms = RoomsApi(operator)
        self._handlers: dict[str, Callable[[Call], Awaitable[object]]] = {
            "publish": lambda call: rooms.publish(call.room, call.body),
            "publishMany": lambda call: rooms.publish_many(call.body),
            "listRooms": lambda call: rooms.find(call.query),
            "describeRoom": lambda call: rooms.describe(call.room),
            "listPresent": lambda call: rooms.list_present(call.room, call.query),
            "readHistory": lambda call: rooms.read_history(call.room, call.query),
            "kick": self._kick,
            "disconnect": self._disconnect,
            "info": self._info,
            "openapi": self._document,
        }

    def add_to(self, endpoints: Endpoints) -> None:
        """Serve it there."""
        endpoints.add(api.PREFIX, self.respond, methods=_METHODS, refuse=refuse)

    async def respond(self, request: Request, read_body: ReadBody) -> bytes:
        """The whole response.

        Raises:
            HandshakeError: why there is none.
        """
        operation, room = self._find(request)
        query = _read_query(request, operation)
        body = None if operation.request is None else await _read(request, read_body, operation.request)
        try:
            answer = await self._handlers[operation.id](Call(room, query, body))
        except BackplaneUnavailable as exc:
            raise ApiError(503, "unavailable", str(exc), _RETRY_AFTER) from exc
        except BackplaneError as exc:
            raise ApiError(422, "refused", str(exc)) from exc
        return _encode(200, answer)

    def _find(self, request: Request) -> tuple[Operation, str]:
        path, room = _template_of(segments_of(request.target))
        method = "GET" if request.method == "HEAD" else request.method
        if (operation := self._operations.get((path, method))) is not None:
            return operation, room
        if path not in self._paths:
            raise ApiError(404, "not_found", f"nothing at {request.path!r}; see {api.PREFIX}openapi.json")
        allowed = "GET, HEAD" if (path, "GET") in self._operations else "POST"
        message = f"{request.method} means nothing here; send {allowed}"
        raise ApiError(405, "method_not_allowed", message, (("Allow", allowed),))

    async def _disconnect(self, call: Call) -> api.RevocationResponse:
        body: api.DisconnectRequest = call.body
        with refusals():
            return _revocation(await self._operator.disconnect(body.user, body.connection, body.reason, body.code))

    async def _kick(self, call: Call) -> api.RevocationResponse:
        body: api.KickRequest = call.body
        self._rooms.class_of(call.room)
        with refusals():
            return _revocation(await self._operator.kick(call.room, body.user, body.reason))

    async def _info(self, call: Call) -> api.InfoResponse:
        hub, control = self._operator.hub, self._operator.control
        uptime = trio.current_time() - self._began
        counts = len(hub.connections), len(hub.rooms), len(control.others)
        return api.InfoResponse(package_version(), control.node, uptime, *counts, hub.backplane.ready)

    async def _document(self, call: Call) -> dict[str, Any]:
        return document(package_version())


def segments_of(target: str) -> list[str]:
    """The segments of a request target's path, each decoded: a slash that was written ``%2F`` ends none."""
    return [unquote(segment) for segment in path_of(target).split("/")[1:]]


def _template_of(segments: list[str]) -> tuple[str, str]:
    """The path of an operation and the room in it. Slashes of a room's name may stand as they are, if they can."""
    first, *rest = segments[2:]  # those before are `api.PREFIX`
    if first != "rooms" or not rest:
        return "/".join([first, *rest]), ""
    if len(rest) > 1 and rest[-1] in _ACTIONS:
        return f"rooms/{{room}}/{rest[-1]}", "/".join(rest[:-1])
    return "rooms/{room}", "/".join(rest)


def _read_query(request: Request, operation: Operation) -> object:
    fields: dict[str, str] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        if name in fields:
            raise ApiError(400, "bad_request", f"query: {name} is there twice; give it once")
        fields[name] = value
    try:
        return msgspec.convert(fields, operation.query, strict=False)
    except msgspec.ValidationError as exc:
        raise ApiError(400, "bad_request", f"query: {exc}") from exc


async def _read(request: Request, read_body: ReadBody, shape: type[msgspec.Struct]) -> msgspec.Struct:
    # A page of another site can have a browser send other types without asking us first (CORS).
    content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "the body is to be JSON; send Content-Type: application/json")
    try:
        body = await read_body()
    except trio.TooSlowError as exc:
        raise ApiError(408, "timeout", "the body took too long; send it at once") from exc
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as exc:
        raise ApiError(400, "bad_request", f"body: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, "bad_json", f"the body is no JSON: {exc}") from exc


def refuse(error: HandshakeError) -> bytes:
    """The response that tells it, in JSON."""
    code = error.code if isinstance(error, ApiError) else _CODES.get(error.status, "refused")
    return _encode(error.status, api.ErrorResponse(api.ErrorDetail(code, str(error))), error.headers)


def _encode(status: int, answer: object, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    body = msgspec.json.encode(answer) + b"\n"
    return encode_response(status, body, content_type="application/json", headers=(*_NO_STORE, *headers))


def _revocation(done: Revocation) -> api.RevocationResponse:
    return api.RevocationResponse(done.connections, done.nodes, done.silent)
