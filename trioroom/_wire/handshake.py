"""The server's half of the opening handshake (RFC 6455 §4.2): a request is accepted or refused."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence

import attrs

from trioroom._wire.deflate import DeflateParameters, negotiate_deflate
from trioroom._wire.http import Request, encode_head, split_list
from trioroom.errors import HandshakeError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_VERSION = "13"
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # base64 of 16 bytes
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[^\]/]+\]|[^:/]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(r"(\[[^\]]+\]|[^:]+)(?::([0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY_LINE = re.compile(rb"\r\n(?i:Sec-WebSocket-Key): ([A-Za-z0-9+/]{22}==)\r\n")
_NO_KEY = b"\0"  # where the accepted key goes in a noted response; no header has it otherwise
_MAX_NOTED = 256  # kinds of peers and rooms that are asked for at a time
_MAX_NOTED_BYTES = 2_048  # a browser's head without cookies is some 500 bytes
_SWITCHING = encode_head(101, (("Upgrade", "websocket"), ("Connection", "Upgrade"))).removesuffix(b"\r\n")
_SHOWN = 80  # characters of a wrong value that an error message repeats
_COMMON = frozenset((
    "accept", "accept-encoding", "accept-language", "cache-control", "connection", "host", "origin", "pragma",
    "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-websocket-extensions", "sec-websocket-key",
    "sec-websocket-protocol", "sec-websocket-version", "upgrade", "user-agent",
))  # fmt: skip
"""Headers that say nothing about who a peer is, but for a subprotocol that may be a token in disguise."""


@attrs.frozen
class Acceptance:
    """What was agreed on, and the answer that says so."""

    subprotocol: str | None
    """The client's first choice among ours; None if it offered none that we know."""
    deflate: DeflateParameters | None
    """How messages are compressed; None for not at all."""
    response: bytes
    """The whole 101 response; frames follow it."""


def accept(
    request: Request,
    *,
    subprotocols: Sequence[str] = (),
    deflate: bool = False,
    allowed_origins: Sequence[str] | None = None,
    scheme: str | None = None,
    host: str | None = None,
) -> Acceptance:
    """Answer an opening handshake.

    Args:
        request: what the client sent.
        subprotocols: those we speak; the client's order of preference decides.
        deflate: whether permessage-deflate may be agreed on.
        allowed_origins: such as ``https://example.com``, or ``*`` for any; ``None`` lets a browser
            in only from the host and port that it connects to. A client without an ``Origin`` is no
            browser and always let in: the header protects users from foreign pages, not us from clients.
        scheme: ``https`` if the peer speaks TLS, to us or to a proxy, ``http`` if it does not, None if nobody knows.
        host: what it connects to, if that is not the request's ``Host``.
    Raises:
        HandshakeError: 400, 405, 426 or 505 for what is no proper handshake, 403 for a foreign origin.
    """
    _check_upgrade(request)
    key = _key_of(request)
    _check_origin(request, allowed_origins, scheme, host)
    subprotocol = _choose_subprotocol(request, subprotocols)
    parameters = negotiate_deflate(request.values("sec-websocket-extensions")) if deflate else None
    lines = f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
    if subprotocol is not None:
        lines += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if parameters is not None:
        lines += f"Sec-WebSocket-Extensions: {parameters.response}\r\n"
    return Acceptance(subprotocol, parameters, b"%b%b\r\n" % (_SWITCHING, lines.encode("ascii")))


class Agreements:
    """What was agreed on with peers that asked alike, but for their keys: many do, above all when they all come back.

    To find it again costs a tenth of reading and checking a head. One per server: answers depend on its settings.
    What is found says what a peer asks for, never who it is: heads that are alike have the same credentials too, and
    those are looked at each time. Secrets are not kept here beyond the connection that brought them.

    Args:
        authenticates: the application looks at requests to find out who a peer is, and nobody knows at which headers:
            only those are shared that have nothing to find.
    """

    def __init__(self, *, authenticates: bool = False) -> None:
        self._authenticates = authenticates
        self._known: dict[bytes, tuple[Request, Acceptance]] = {}

    def to_keep(self, request: Request, acceptance: Acceptance) -> Request:
        """What a connection keeps of ``request``."""
        return request.to_keep(own=self._is_own(request, acceptance))

    def _is_own(self, request: Request, acceptance: Acceptance) -> bool:
        if not self._authenticates:
            return request.is_own
        offered = request.values("sec-websocket-protocol")
        return not request.has_only(_COMMON) or offered not in ((), (acceptance.subprotocol,))

    def recall(self, head: bytes) -> tuple[Request, Acceptance] | None:
        """The request, without the key, and how to accept it, if one like ``head`` has been noted."""
        key = _KEY_LINE.search(head)
        if key is None or (known := self._known.get(_without(key, head))) is None:
            return None
        request, acceptance = known
        response = acceptance.response.replace(_NO_KEY, accept_key(key[1].decode()).encode(), 1)
        return request, Acceptance(acceptance.subprotocol, acceptance.deflate, response)

    def note(self, head: bytes, request: Request, acceptance: Acceptance) -> None:
        """``head`` is all that came, and ``request`` is kept of it. Who brings credentials is not remembered."""
        if self._is_own(request, acceptance) or len(head) > _MAX_NOTED_BYTES or not head.endswith(b"\r\n\r\n"):
            return
        if (key := _KEY_LINE.search(head)) is None:
            return
        if len(self._known) >= _MAX_NOTED:  # rather than to find out which was not asked for lately
            self._known.clear()
        blank = acceptance.response.replace(accept_key(key[1].decode()).encode(), _NO_KEY)
        self._known[_without(key, head)] = request, attrs.evolve(acceptance, response=blank)


def _without(key: re.Match[bytes], head: bytes) -> bytes:
    # No two heads become the same by this: one that was accepted has a single line for a key.
    return head[: key.start(1)] + head[key.end(1) :]


def accept_key(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 §4.2.2)."""
    return b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _check_upgrade(request: Request) -> None:
    if request.method != "GET":
        raise HandshakeError(405, f"{request.method} opens no WebSocket; send GET", (("Allow", "GET"),))
    if not request.wants_upgrade:
        raise _upgrade_required("this is a WebSocket; send Upgrade: websocket")
    if request.version != "1.1":
        raise HandshakeError(505, f"HTTP/{request.version} opens no WebSocket; send the request as HTTP/1.1")
    if "upgrade" not in request.tokens("connection"):
        connection = ", ".join(request.values("connection"))[:_SHOWN]
        raise HandshakeError(400, f"Connection is {connection!r}; send Connection: Upgrade")
    versions = request.values("sec-websocket-version")
    if versions != (_VERSION,):
        offered = ", ".join(versions)[:_SHOWN]
        raise _upgrade_required(f"Sec-WebSocket-Version is {offered!r}; send {_VERSION}")


def _upgrade_required(message: str) -> HandshakeError:
    return HandshakeError(426, message, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION)))


def _key_of(request: Request) -> str:
    keys = request.values("sec-websocket-key")
    if len(keys) != 1:
        raise HandshakeError(400, f"request has {len(keys)} Sec-WebSocket-Key headers; send exactly one")
    if not _KEY.fullmatch(keys[0]):
        raise HandshakeError(
            400, f"Sec-WebSocket-Key {keys[0][:_SHOWN]!r} is malformed; send 16 random bytes in base64"
        )
    return keys[0]


def _check_origin(request: Request, allowed: Sequence[str] | None, scheme: str | None, host: str | None) -> None:
    origins = request.values("origin")
    if not origins or (allowed is not None and "*" in allowed):
        return
    origin = _parse_origin(origins[0])
    if len(origins) > 1:
        permitted = False
    elif allowed is None:
        permitted = _is_same_host(origin, scheme, host or request.header("host") or "")
    else:
        permitted = origin in map(_parse_origin, allowed)
    if not permitted:
        raise HandshakeError(
            403, f"origin {', '.join(origins)[:_SHOWN]!r} is not allowed; have it added to allowed_origins"
        )


def _parse_origin(origin: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, comparable. What has no such parts, like ``null``, stands as a scheme of its own."""
    origin = origin.lower()
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return origin, "", None
    scheme, host, port = match.groups()
    return scheme, host, int(port) if port else _DEFAULT_PORTS.get(scheme)


def _is_same_host(origin: tuple[str, str, int | None], known_scheme: str | None, host: str) -> bool:
    scheme, name, port = origin
    match = _HOST.fullmatch(host.lower())
    if match is None or scheme not in _DEFAULT_PORTS or (known_scheme or scheme) != scheme:
        return False
    # If nobody knows better, a Host without a port came over the page's scheme: a proxy may have ended its TLS.
    return (match[1], int(match[2] or _DEFAULT_PORTS[scheme])) == (name, port)


def _choose_subprotocol(request: Request, known: Sequence[str]) -> str | None:
    # Not `tokens`: the names of subprotocols are case-sensitive.
    for offered in split_list(request.values("sec-websocket-protocol")):
        if offered in known:
            return offered
    return None
