"""The servers under load, and what is said to them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs
import msgspec

from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode
from trioroom.bench.options import Protocol

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 §1.3: the answer to it is not checked, so one will do
_SUBPROTOCOL = "trioroom.v1.json"
_NUMBER = "{n}"


@attrs.frozen
class Endpoint:
    """Where one server listens."""

    host: str
    """As in the URL, for the ``Host`` header."""
    address: str
    """IP address of it."""
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """Of the address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def loopback(self) -> bool:
        """The server is on this machine, and any 127.x.y.z may be the other end."""
        return self.family is socket.AF_INET and ipaddress.ip_address(self.address).is_loopback


@attrs.frozen
class Target:
    """Where to, and to which room."""

    endpoints: tuple[Endpoint, ...]
    """One, or several servers that have the same rooms."""
    path: str
    """With ``{n}`` where a room's number goes."""
    protocol: Protocol
    token: str | None = None

    def endpoint_of(self, member: int, members: int) -> Endpoint:
        """Where the ``member``-th of all ``members`` connects.

        The first of them to the first server and so on: a generator process, whose members follow each other, then
        has to do with one server or two, and what wakes it brings many messages instead of one from each.
        """
        return self.endpoints[member * len(self.endpoints) // members]

    @property
    def loopback(self) -> bool:
        """All servers are on this machine."""
        return all(endpoint.loopback for endpoint in self.endpoints)

    def room(self, number: int) -> str:
        """The name of a room."""
        return self.path.lstrip("/").replace(_NUMBER, str(number))

    @property
    def has_numbers(self) -> bool:
        """Rooms differ by number."""
        return _NUMBER in self.path

    def upgrade(self, endpoint: Endpoint, number: int) -> bytes:
        """The request that opens a connection; in plain mode it joins the room of that number too."""
        plain = self.protocol is Protocol.PLAIN
        lines = [
            f"GET {'/' + self.room(number) if plain else '/'} HTTP/1.1",
            f"Host: {endpoint.host}:{endpoint.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {_KEY}",
            "Sec-WebSocket-Version: 13",
        ]
        if not plain:
            lines.append(f"Sec-WebSocket-Protocol: {_SUBPROTOCOL}")
        elif self.token is not None:
            lines.append(f"Authorization: Bearer {self.token}")
        return "\r\n".join([*lines, "", ""]).encode()

    def join(self, number: int, position: object = None) -> bytes:
        """What protocol v1 says after the handshake; `JOIN_ID` is the id of the answer."""
        join: dict[str, object] = {"type": "join", "id": JOIN_ID, "room": self.room(number)}
        if position is not None:
            join["position"] = position
        if self.token is None:
            return text_frame(join)
        return text_frame({"type": "auth", "id": 1, "token": self.token}) + text_frame(join)

    def message(self, number: int, payload: int, id: int | None = None) -> bytes:
        """A message of so many bytes to a room, as a frame."""
        data = "x" * payload
        if self.protocol is Protocol.PLAIN:
            return encode_masked(Opcode.TEXT, data.encode())
        publish: dict[str, object] = {"type": "publish", "room": self.room(number), "data": data}
        return text_frame(publish if id is None else {**publish, "id": id})

    def leave(self, number: int) -> bytes:
        """What a member says who goes: of the room, in v1, and of the connection."""
        closing = encode_masked(Opcode.CLOSE, (1000).to_bytes(2, "big"))
        if self.protocol is Protocol.PLAIN:
            return closing
        return text_frame({"type": "leave", "id": 3, "room": self.room(number)}) + closing


JOIN_ID = 2


def text_frame(value: object) -> bytes:
    """An envelope of protocol v1 as a client sends it."""
    return encode_masked(Opcode.TEXT, msgspec.json.encode(value))


def parse_target(urls: Sequence[str], protocol: Protocol, token: str | None = None) -> Target:
    """The target that ``urls`` are: several servers, one path; looks up their hosts.

    Raises:
        ValueError: one is no ``ws://`` URL, there is no such host, or their paths differ.
    """
    parsed = [_parse(url) for url in urls]
    paths = {path for _, path in parsed}
    if len(paths) > 1:
        raise ValueError(f"the URLs are to differ in HOST:PORT alone, not in {' and '.join(sorted(paths))}")
    return Target(tuple(endpoint for endpoint, _ in parsed), paths.pop(), protocol, token)


def _parse(url: str) -> tuple[Endpoint, str]:
    parts = urlsplit(url)
    if parts.scheme in ("wss", "https"):
        raise ValueError(f"{url}: TLS would be measured rather than the server; give the ws:// address behind it")
    if parts.scheme not in ("ws", "http") or parts.hostname is None:
        raise ValueError(f"{url!r} is no address of a server; write ws://HOST:PORT/ROOM")
    try:
        port = parts.port or 80
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as exc:
        raise ValueError(f"{url}: {exc}") from exc
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.hostname, str(found[0][4][0]), port), path
