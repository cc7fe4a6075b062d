"""Words that no mutation would find."""

from __future__ import annotations

from typing import Final

import msgspec

from tests.fuzz.handshake_targets import KEY
from tests.fuzz.names import NAMES

_OF_HEADS = (
    "GET ", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "\r\n", "\r\n\r\n", "Host: ", "Upgrade: websocket",
    "Connection: Upgrade", "Origin: ", "Sec-WebSocket-Key: ", KEY, "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: ", "trioroom.v1.json", "trioroom.v1.msgpack", "Cookie: ",
    "Authorization: Bearer ", "Content-Length: ", "Transfer-Encoding: ", "https://example.com", "http://",
    "example.com", "null", "token=", "%E2%82%AC", "X-Forwarded-For: ", "X-Forwarded-Proto: ", "X-Forwarded-Host: ",
    "Forwarded: ", "for=", "proto=", "host=", '"[2001:db8::1]:80"', "192.0.2.1", "10.0.0.2", "unknown",
)  # fmt: skip
_OF_EXTENSIONS = (
    "permessage-deflate", "server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits=",
    "client_max_window_bits",
)  # fmt: skip
_WORDS: Final = {
    "extensions": _OF_EXTENSIONS,
    "http": _OF_HEADS,
    "handshake": _OF_HEADS + _OF_EXTENSIONS,
    "forwarded": _OF_HEADS,
    "proxy_protocol": ("PROXY ", "TCP4 ", "TCP6 ", "UNKNOWN", "192.0.2.1 ", "2001:db8::1 ", "::ffff:192.0.2.1 "),
}


def words(target: str) -> list[bytes]:
    """Bytes that libFuzzer may put into an input of the target."""
    if target in ("envelopes", "server_envelopes"):
        return [f'"{name}":'.encode() for name in NAMES] + [msgspec.msgpack.encode(name) for name in NAMES]
    return [word.encode() for word in _WORDS.get(target, ())]
