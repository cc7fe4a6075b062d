"""What a proxy that is trusted says of who connected to it, in ``X-Forwarded-For`` or ``Forwarded`` (RFC 7239).

Each proxy adds to the end of the list, so it is read from there: as long as an entry is a trusted proxy's own address,
the one before it was added by a trusted proxy and is believed. All before that may be invented. Only one of the two
headers is looked at, as a proxy that writes the one lets through what a client has put into the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from trioroom._core.networks import Networks, parse_address
from trioroom._wire.http import Request, is_host

X_FORWARDED_FOR, FORWARDED = "X-Forwarded-For", "Forwarded"

_MAX_PROXIES = 32  # one behind the other, that are looked at
_MAX_FORWARDED = 2_048  # characters; longer than any chain of proxies makes it
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}  # some proxies tell WebSocket's own names
_LINE = re.compile(rb"(?<!\r\n)\r\n(?i:X-Forwarded-For): ([0-9A-Fa-f.:, \[\]]{1,256})(?=\r\n)")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'("(?:[^"\\]|\\.)*"|[!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]+)'  # a colon is to be quoted, and is often not
    r"[ \t]*(?:(?P<end>[;,])|$)"
)
_ESCAPED = re.compile(r"\\(.)")


@attrs.frozen
class Forwarded:
    """Where a request comes from, as far as it is known."""

    address: str | None
    """The peer's IP address."""
    scheme: str | None
    """What the peer speaks, ``http`` or ``https``; None if nobody knows."""
    host: str | None = None
    """The ``Host`` that it asked for, if that is another one than the request's."""


class Forwarding:
    """Which proxies are believed, and what.

    Args:
        trusted: addresses of proxies.
        header: `X_FORWARDED_FOR` or `FORWARDED`.
    """

    def __init__(self, trusted: Networks, header: str = X_FORWARDED_FOR) -> None:
        self.trusted = trusted
        self.header = header.lower()

    def cut(self, head: bytes) -> tuple[bytes, str | None]:
        """``head`` without what it has of each peer's own, and that; for finding out that two peers ask alike."""
        if self.header == FORWARDED.lower() or (line := _LINE.search(head)) is None:
            return head, None
        return head[: line.start()] + head[line.end() :], line[1].decode("ascii")

    def was_cut(self, request: Request, told: str | None) -> bool:
        """Whether ``told``, as `cut` gave it, is all that ``request`` says of its peer's address."""
        return len(request.values(self.header)) == (told is not None)

    def strip(self, request: Request) -> Request:
        """``request`` without the header, so that peers who ask alike may share it."""
        headers = tuple([pair for pair in request.headers if pair[0] != self.header])
        return request if len(headers) == len(request.headers) else attrs.evolve(request, headers=headers)

    def client(self, proxy: str, told: str | None) -> str:
        """The peer's address, if the header is ``told``; that of ``proxy``, which told it, if it says nothing."""
        return proxy if told is None else _last_untrusted([told], proxy, self.trusted)

    def read(self, request: Request, proxy: str) -> Forwarded:
        """All that ``proxy``, which is trusted, says with ``request``; what makes no sense counts as not said."""
        values = request.values(self.header)
        if self.header == FORWARDED.lower():
            return _read_rfc7239(values, proxy, self.trusted)
        # Of these two a client may invent the first values. They only decide which pages a browser may come from,
        # and a browser lets no page set them.
        scheme = _first(request, "x-forwarded-proto")
        host = _first(request, "x-forwarded-host")
        return Forwarded(_last_untrusted(values, proxy, self.trusted), _scheme_of(scheme), _host_of(host))


def _first(request: Request, header: str) -> str | None:
    value = request.header(header)
    return None if value is None else value.partition(",")[0].strip(" \t")


def _scheme_of(told: str | None) -> str | None:
    return None if told is None else _SCHEMES.get(told.lower())


def _host_of(told: str | None) -> str | None:
    return told if told and is_host(told) else None


def _last_untrusted(values: Sequence[str], proxy: str, trusted: Networks) -> str:
    address = proxy
    for element in reversed(",".join(values).rsplit(",", _MAX_PROXIES)):
        told = _parse_node(element.strip(" \t"))
        if told is None:  # "unknown", or nonsense: what stands before it was added by nobody we know
            break
        address = told
        if told not in trusted:
            break
    return address


def _read_rfc7239(values: Sequence[str], proxy: str, trusted: Networks) -> Forwarded:
    found = Forwarded(proxy, None)
    for element in reversed(_parse_elements(", ".join(values))[-_MAX_PROXIES:]):
        told = _parse_node(element.get("for", ""))
        if told is None:
            break
        found = Forwarded(told, _scheme_of(element.get("proto")), _host_of(element.get("host")))
        if told not in trusted:
            break
    return found


def _parse_elements(text: str) -> list[dict[str, str]]:
    """The elements of a ``Forwarded`` header; none if it is malformed anywhere: a quote may hide where one begins."""
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text) <= _MAX_FORWARDED:
        match = _PAIR.match(text, at)
        if match is None or match[1].lower() in elements[-1]:
            return []
        value = match[2]
        elements[-1][match[1].lower()] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        if match["end"] == ",":
            elements.append({})
        at = match.end()
    return elements


def _parse_node(text: str) -> str | None:
    """The address in ``192.0.2.1:80``, ``[2001:db8::1]:80`` or either without a port; None if there is none."""
    match = _NODE.fullmatch(text)
    return None if match is None else parse_address(match[1] or match[2] or match[3])
