"""The header by which a proxy tells who connected to it, versions 1 and 2.

The specification is HAProxy's ``doc/proxy-protocol.txt``. The header comes first on a connection, before TLS, and what
follows it is not ours to read: hence `ProxyHeaderParser.taken`. Of version 2 the extensions (TLVs) are skipped, their
checksum too: TCP has its own, and nothing that they say is used here.
"""

from __future__ import annotations

import re
import struct

import attrs

from trioroom._core.networks import parse_address
from trioroom.errors import RemoteProtocolError

MAX_HEADER_BYTES = 16 + 4_096
"""Addresses take up to 216 bytes of a header; the rest is for extensions, of which HAProxy sends some hundred bytes."""

_V1_START = b"PROXY "
_V1_MAX_BYTES = 107  # with its CR LF (section 2.1)
_V1_LINE = re.compile(r"PROXY (TCP[46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_V1_UNKNOWN = b"PROXY UNKNOWN"
_MAX_PORT = 65_535

_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_START = struct.Struct(">12sBBH")  # signature, version and command, family and transport, length of what follows
_V2_VERSION = 2
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_V2_ADDRESS_BYTES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}


@attrs.frozen
class ProxyHeader:
    """What one header says."""

    source: str | None
    """The IP address that connected to the proxy; None if it speaks for itself, or does not know."""


class ProxyHeaderParser:
    """Reads the header of one connection. Done with after it has returned one or raised."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.taken = 0
        """How many of the bytes last fed belong to the header; those after it do not."""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """The header, once ``data`` completes it.

        Raises:
            RemoteProtocolError: what came is none, or one that means nothing here.
        """
        before = len(self._buffer)
        self._buffer += data[:MAX_HEADER_BYTES]
        size = _size_of(self._buffer)
        if size is None or size > len(self._buffer):
            self.taken = len(data)
            return None
        self.taken = size - before
        header = bytes(self._buffer[:size])
        return _parse_v2(header) if header.startswith(_V2_SIGNATURE) else _parse_v1(header)


def _size_of(start: bytearray) -> int | None:
    """How long the header is that begins so; None if more is needed to know that."""
    if _begins(start, _V1_START):
        end = start.find(b"\r\n", 0, _V1_MAX_BYTES)
        if end >= 0:
            return end + 2
        if len(start) >= _V1_MAX_BYTES:
            raise RemoteProtocolError(f"PROXY header has no end within {_V1_MAX_BYTES} bytes; see section 2.1")
        return None
    if _begins(start, _V2_SIGNATURE):
        if len(start) < _V2_START.size:
            return None
        size: int = _V2_START.size + _V2_START.unpack_from(start)[3]
        if size > MAX_HEADER_BYTES:
            raise RemoteProtocolError(f"PROXY header of {size} bytes exceeds {MAX_HEADER_BYTES}; send fewer extensions")
        return size
    raise RemoteProtocolError("no PROXY header; have the proxy send one (send-proxy-v2), or set proxy_protocol=False")


def _begins(start: bytearray, known: bytes) -> bool:
    """Whether ``start`` has ``known`` at its beginning, as far as it goes."""
    return known.startswith(start[: len(known)])


def _parse_v1(header: bytes) -> ProxyHeader:
    line = header.removesuffix(b"\r\n")
    if line == _V1_UNKNOWN or line.startswith(_V1_UNKNOWN + b" "):
        return ProxyHeader(None)
    match = _V1_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise RemoteProtocolError(f"PROXY header {line!r} is malformed; send 'PROXY TCP4 FROM TO PORT PORT'")
    family, *addresses, from_port, to_port = match.groups()
    parsed = [parse_address(address) for address in addresses]
    if not all(parsed) or any((":" in address) != (family == "TCP6") for address in addresses):
        raise RemoteProtocolError(f"PROXY header {line!r} has an address that is none of {family}; send two of them")
    if max(int(from_port), int(to_port)) > _MAX_PORT:
        raise RemoteProtocolError(f"PROXY header {line!r} has a port above {_MAX_PORT}; send one up to that")
    return ProxyHeader(parsed[0])


def _parse_v2(header: bytes) -> ProxyHeader:
    _, version_and_command, family, length = _V2_START.unpack_from(header)
    version, command = version_and_command >> 4, version_and_command & 0xF
    if version != _V2_VERSION or command not in (_LOCAL, _PROXY):
        raise RemoteProtocolError(f"PROXY header has version {version}, command {command}; send version 2, 0 or 1")
    if command == _LOCAL:  # such as a health check: whatever else it says is to be ignored
        return ProxyHeader(None)
    needed = _V2_ADDRESS_BYTES.get(family)
    if needed is None:
        raise RemoteProtocolError(f"PROXY header has family {family:#04x}; send TCP over IPv4, IPv6 or Unix sockets")
    if length < needed:
        raise RemoteProtocolError(f"PROXY header has {length} bytes where addresses take {needed}; send all of them")
    if family in (_UNSPECIFIED, _UNIX_STREAM):
        return ProxyHeader(None)
    address = header[_V2_START.size :][: 4 if family == _TCP4 else 16]
    return ProxyHeader(_address_of(address))


def _address_of(packed: bytes) -> str | None:
    if len(packed) == 4:
        return ".".join(map(str, packed))
    groups = (packed[at : at + 2].hex() for at in range(0, len(packed), 2))
    return parse_address(":".join(groups))
