"""A client of the HTTP API that believes nothing: each answer is checked against the OpenAPI document."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from urllib.parse import quote

import attrs
import jsonschema
import msgspec
import trio
from trio.testing import memory_stream_pair

import trioroom
from trioroom._wire.api import PREFIX
from trioroom._wire.openapi import document

KEY = "correct-horse-battery"
BEARER = f"Bearer {KEY}"


@cache
def schema_document() -> dict[str, Any]:
    return document("1")


def room_path(room: str, action: str = "") -> str:
    """The path of a room, as the documentation has it."""
    return f"{PREFIX}rooms/{quote(room, safe='')}{action}"


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> tuple[int, str]:
        """Status and code."""
        return self.status, self.body["error"]["code"]


@attrs.frozen
class ApiClient:
    """Sends each request on a stream of its own."""

    server: trioroom.Server
    key: str | None = BEARER

    async def get(self, path: str) -> Answer:
        return await self.send("GET", path)

    async def post(self, path: str, body: object) -> Answer:
        return await self.send("POST", path, msgspec.json.encode(body))

    async def send(
        self, method: str, path: str, body: bytes | None = None, *headers: str, content_type: str = "application/json"
    ) -> Answer:
        """Any request; what it is answered has to be one of what the document says."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
        if self.key is not None:
            lines.append(f"Authorization: {self.key}")
        if body is not None:
            lines += [f"Content-Length: {len(body)}", f"Content-Type: {content_type}"]
        answer = await self.exchange("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        check(method, path, answer)
        return answer

    async def exchange(self, request: bytes) -> Answer:
        """Any bytes."""
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve_stream, theirs)
            async with ours:
                await ours.send_all(request)
                return await receive_answer(ours, has_body=not request.startswith(b"HEAD"))


async def receive_answer(stream: trio.abc.ReceiveStream, *, has_body: bool = True) -> Answer:
    """The next one, and no more than that; waiting for the end of the stream would take the server's patience."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (data := await stream.receive_some())
        assert data, received
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while has_body and len(body) < int(headers["content-length"]):
        body += await stream.receive_some()
    return Answer(int(first.split()[1]), headers, msgspec.json.decode(body) if body else None)


def check(method: str, path: str, answer: Answer) -> None:
    """That the document has such an answer to such a request."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    if answer.body is None:
        assert method == "HEAD"
        return
    operation = operation_of(method, path)
    if operation is None:
        reference = "#/components/schemas/ErrorResponse"
        assert answer.status in (401, 404, 405)
    else:
        assert str(answer.status) in operation["responses"], answer
        schema = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
        reference = schema.get("$ref", "#/components/schemas/Any")
    components = {"schemas": {"Any": {}, **schema_document()["components"]["schemas"]}}
    jsonschema.Draft202012Validator({"$ref": reference, "components": components}).validate(answer.body)
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1"


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """What the document says of it; None if nothing."""
    for template, methods in schema_document()["paths"].items():
        if re.fullmatch(template.replace("{room}", "[^/?]+"), path.partition("?")[0]):
            operation: dict[str, Any] | None = methods.get("get" if method == "HEAD" else method.lower())
            return operation
    return None
