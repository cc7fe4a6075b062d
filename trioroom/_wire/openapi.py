"""The operations of the HTTP API, and the OpenAPI document that describes them (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec

from trioroom._wire import api

_REF = "#/components/schemas/{name}"
_ERRORS = {
    400: "What was sent is no JSON, or lacks a field, or has one of the wrong type.",
    401: "No key, or another one.",
    404: "No room can be called so.",
    409: "The room does not do that, or the position is of a history that has ended.",
    413: "The body is larger than `max_request_bytes`.",
    415: "The body is not announced as `application/json`.",
    422: "It is well formed, and a value in it is none that can be used.",
    503: "The other servers are out of reach, or the room is behind. Try again, with the same `publication_id` if any.",
}
_OF_BODIES = (413, 415, 422)


@attrs.frozen
class Operation:
    """What one method does at one path."""

    id: str
    method: str
    path: str
    """Below `api.PREFIX`, where ``{room}`` stands for a name."""
    summary: str
    response: type[msgspec.Struct] | None
    """None is this document."""
    request: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] = api.NoQuery
    errors: tuple[int, ...] = ()
    """Statuses beside 400, 401 and those that come of a body."""


OPERATIONS = (
    Operation(
        "publish", "POST", "rooms/{room}/publish", "Publish to a room, on all servers.",
        api.PublicationResponse, api.PublicationRequest, errors=(404, 503),
    ),
    Operation(
        "publishMany", "POST", "publish", "Publish to many rooms. Each result stands alone.",
        api.BatchResponse, api.BatchRequest,
    ),
    Operation(
        "listRooms", "GET", "rooms", "Active rooms of all servers.",
        api.RoomsResponse, query=api.RoomsQuery, errors=(503,),
    ),
    Operation("describeRoom", "GET", "rooms/{room}", "A room, active or not.", api.RoomResponse, errors=(404, 503)),
    Operation(
        "listPresent", "GET", "rooms/{room}/presence", "Who is in a room, on all servers.",
        api.PresenceResponse, query=api.PresenceQuery, errors=(404, 409, 503),
    ),
    Operation(
        "readHistory", "GET", "rooms/{room}/history", "Messages that a room keeps.",
        api.HistoryResponse, query=api.HistoryQuery, errors=(404, 409, 503),
    ),
    Operation(
        "kick", "POST", "rooms/{room}/kick", "Put a user out of a room, on all servers; the connection stays, in v1.",
        api.RevocationResponse, api.KickRequest, errors=(404, 503),
    ),
    Operation(
        "disconnect", "POST", "disconnect", "Close connections, on all servers.",
        api.RevocationResponse, api.DisconnectRequest, errors=(503,),
    ),
    Operation("info", "GET", "info", "The server that answers.", api.InfoResponse),
    Operation("openapi", "GET", "openapi.json", "This document.", None),
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The whole of it, for ``version`` of the package."""
    shapes = [
        api.ErrorResponse,
        *(shape for one in OPERATIONS for shape in (one.request, one.response, one.query) if shape),
    ]
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(shapes)), schema_hook=_any_json, ref_template=_REF)
    queries = {one.query.__name__: schemas.pop(one.query.__name__, {}) for one in OPERATIONS}
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(api.PREFIX + one.path, {})[one.method.lower()] = _describe(one, queries[one.query.__name__])
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "trioroom",
            "version": version,
            "summary": "Publish to rooms, look at them, and put people out.",
            "description": "All of it needs the API key. One request for each connection, which the server closes.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "The API key."}},
        },
        "security": [{"key": []}],
    }
    plain: dict[str, Any] = _with_plain_texts(described)
    return plain


def _describe(one: Operation, query: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": one.id, "summary": one.summary}
    if parameters := [*_path_parameters(one), *_query_parameters(query)]:
        described["parameters"] = parameters
    if one.request is not None:
        described["requestBody"] = {"required": True, "content": _content(one.request)}
    answer = {"application/json": {"schema": {"type": "object"}}} if one.response is None else _content(one.response)
    described["responses"] = {
        "200": {"description": "Done." if one.request else "As asked for.", "content": answer},
        **{str(status): _describe_error(status) for status in errors_of(one)},
    }
    return described


def errors_of(one: Operation) -> list[int]:
    """The statuses it may answer with when it fails."""
    return sorted({400, 401, *one.errors, *(_OF_BODIES if one.request is not None else ())})


def _describe_error(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": _ERRORS[status], "content": _content(api.ErrorResponse)}
    if status == 503:
        described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return described


def _content(shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=shape.__name__)}}}


def _path_parameters(one: Operation) -> Iterable[dict[str, Any]]:
    if "{room}" in one.path:
        text = "The whole name of the room, percent-encoded, each slash as `%2F`."
        yield {"name": "room", "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def _query_parameters(query: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, schema in query.get("properties", {}).items():
        shape = {key: value for key, value in schema.items() if key != "description" and value is not None}
        if "anyOf" in shape:  # null is none that a query could have
            shape |= next(one for one in shape.pop("anyOf") if one != {"type": "null"})
        yield {"name": name, "in": "query", "description": schema["description"], "schema": shape}


def _any_json(annotation: type) -> dict[str, Any]:
    """What our records call ``object``."""
    if annotation is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _with_plain_texts(value: Any) -> Any:
    """With docstrings as one paragraph, without the marks of reStructuredText."""
    if isinstance(value, dict):
        return {
            key: re.sub(r"\s+", " ", item).replace("``", "`")
            if key == "description" and isinstance(item, str)
            else _with_plain_texts(item)
            for key, item in value.items()
        }
    return [_with_plain_texts(item) for item in value] if isinstance(value, list | tuple) else value
