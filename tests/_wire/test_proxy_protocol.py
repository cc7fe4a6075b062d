"""The header of the PROXY protocol, as HAProxy's specification has it; built here by hand and by other means."""

from __future__ import annotations

import ipaddress
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.networks import parse_address
from trioroom._wire.proxy_protocol import MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderParser
from trioroom.errors import RemoteProtocolError

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
UNIX = b"/run/a.sock".ljust(108, b"\0") * 2


def v2(command: int, family: int, body: bytes = b"", *, version: int = 2, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, size) + body


def tcp4(source: str = "192.0.2.1") -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("198.51.100.7") + struct.pack(">HH", 56324, 443)


def tcp6(source: str = "2001:db8::1") -> bytes:
    packed = [socket.inet_pton(socket.AF_INET6, address) for address in (source, "2001:db8::2")]
    return b"".join(packed) + struct.pack(">HH", 56324, 443)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


HEADERS = [
    (V1, "192.0.2.1"),
    (b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 1\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2(1, 0x11, tcp4()), "192.0.2.1"),
    (v2(1, 0x21, tcp6()), "2001:db8::1"),
    (v2(1, 0x21, tcp6("::ffff:192.0.2.1")), "192.0.2.1"),
    (v2(1, 0x11, tcp4() + tlv(0x02, b"example.com") + tlv(0x20, b"\x01\0\0\0\0")), "192.0.2.1"),
    (v2(1, 0x11, tcp4() + b"no TLV at all"), "192.0.2.1"),
    (v2(1, 0x00), None),
    (v2(1, 0x00, b"whatever"), None),
    (v2(1, 0x31, UNIX), None),
    (v2(0, 0x00), None),
    (v2(0, 0x11, tcp4()), None),
    (v2(0, 0xFF, b"x"), None),
    (v2(1, 0x11, tcp4().ljust(4_096, b"\0")), "192.0.2.1"),
]


@pytest.mark.parametrize(("header", "source"), HEADERS)
def test_header_tells_who_connected_to_the_proxy(header: bytes, source: str | None) -> None:
    parser = ProxyHeaderParser()
    assert parser.feed(header + b"GET / HTTP/1.1\r\n") == ProxyHeader(source)
    assert parser.taken == len(header)


def test_longest_line_of_version_1_passes_and_a_longer_one_does_not() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(longest) == 107
    assert ProxyHeaderParser().feed(longest) == ProxyHeader(None)
    with pytest.raises(RemoteProtocolError, match="no end within 107 bytes"):
        ProxyHeaderParser().feed(b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n")
    with pytest.raises(RemoteProtocolError, match="no end within 107 bytes"):
        ProxyHeaderParser().feed(b"PROXY TCP4 " + b"1" * 96)


WRONG = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 ::ffff:192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
    b"PROXY TCP4 \xb2.0.0.1 192.0.2.2 1 2\r\n",
    SIGNATURE[:-1] + b"\r",
    v2(1, 0x11, tcp4(), version=1),
    v2(1, 0x11, tcp4(), version=3),
    v2(2, 0x11, tcp4()),
    v2(1, 0x12, tcp4()),
    v2(1, 0x22, tcp6()),
    v2(1, 0x10, tcp4()),
    v2(1, 0x41, tcp4()),
    v2(1, 0x11, tcp4()[:-1]),
    v2(1, 0x21, tcp4()),
    v2(1, 0x31, UNIX[:-1]),
    v2(1, 0x11, length=4_097),
    v2(0, 0x00, length=65_535),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_header_is_refused_with_what_to_send(wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="; ") as raised:
        ProxyHeaderParser().feed(wrong)
    assert len(str(raised.value)) < 300


def test_server_that_others_reach_directly_is_told_the_setting() -> None:
    with pytest.raises(RemoteProtocolError, match=r"no PROXY header; .*proxy_protocol=False"):
        ProxyHeaderParser().feed(b"G")


def test_length_is_looked_at_before_the_bytes_come() -> None:
    with pytest.raises(RemoteProtocolError, match="PROXY header of 65551 bytes exceeds 4112"):
        ProxyHeaderParser().feed(v2(1, 0x11, length=65_535)[:16])


# -- in pieces -------------------------------------------------------------------------------------


@given(
    header=st.sampled_from(HEADERS),
    behind=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_any_chunking_gives_the_same_and_takes_nothing_that_follows(
    header: tuple[bytes, str | None], behind: bytes, cuts: list[int]
) -> None:
    data, source = header[0] + behind, header[1]
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parser, taken = ProxyHeaderParser(), 0
    for at, end in pairwise(bounds):
        found = parser.feed(data[at:end])
        taken += parser.taken
        if found is not None:
            assert found == ProxyHeader(source)
            assert taken == len(header[0])
            return
        assert parser.taken == end - at
    raise AssertionError("a whole header was not found")


@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21", b"PROXY ", b"PROXY TCP4 "]))
def test_any_bytes_are_a_header_a_part_of_one_or_refused(data: bytes, start: bytes) -> None:
    whole, single = ProxyHeaderParser(), ProxyHeaderParser()
    data = start + data
    try:
        expected = whole.feed(data)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            feed_singly(single, data)
        return
    assert whole.taken <= len(data)
    assert feed_singly(single, data) == expected
    if expected is not None:
        assert expected.source is None or parse_address(expected.source) == expected.source


def feed_singly(parser: ProxyHeaderParser, data: bytes) -> ProxyHeader | None:
    for at in range(len(data)):
        if (found := parser.feed(data[at : at + 1])) is not None:
            return found
    return None


def test_header_of_the_largest_size_costs_no_more_than_that() -> None:
    parser = ProxyHeaderParser()
    assert parser.feed(v2(1, 0x11, tcp4(), length=4_096)) is None
    found = parser.feed(b"x" * 1_000_000)
    assert found == ProxyHeader("192.0.2.1")
    assert parser.taken == MAX_HEADER_BYTES - 16 - 12
    assert len(parser._buffer) <= 2 * MAX_HEADER_BYTES


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_addresses_of_ipv4_come_through(source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address) -> None:
    line = f"PROXY TCP4 {source} {destination} 1 2\r\n".encode()
    binary = v2(1, 0x11, source.packed + destination.packed + bytes(4))
    for header in (line, binary):
        assert ProxyHeaderParser().feed(header) == ProxyHeader(str(source))


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_addresses_of_ipv6_come_through(source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address) -> None:
    line = f"PROXY TCP6 {source} {destination} 1 2\r\n".encode()
    binary = v2(1, 0x21, source.packed + destination.packed + bytes(4))
    for header in (line, binary):
        assert ProxyHeaderParser().feed(header) == ProxyHeader(str(source.ipv4_mapped or source))
