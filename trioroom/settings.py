"""Every number a user may turn, each with its unit, its default and the default's reason."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Any

import attrs
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE, number, one_of, texts, true_or_false, tuple_of

_COUNT_OR_NONE: Any = validators.optional(COUNT)  # Any: mypy would have it that the default is never None
_ORIGINS = validators.optional(texts)
_DELAY = validators.and_(number, validators.ge(0), validators.lt(math.inf))
_FORWARDED_HEADER = one_of("X-Forwarded-For", "Forwarded")


def _check_pattern(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        re.compile(value)
    except (TypeError, re.error) as exc:
        raise ValueError(f"{attribute.name}={value!r} is no regular expression: {exc}") from exc


def _check_networks(_: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError as exc:
            raise ValueError(f"{attribute.name}={network!r} is no network such as 10.0.0.0/8: {exc}") from exc


def _count_or_infinite(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    number(_, attribute, value)
    if not (value == math.inf or (value >= 1 and value == int(value))):
        raise ValueError(f"{attribute.name}={value} must be a whole number above 0, or math.inf")


@attrs.frozen(kw_only=True)
class Settings:
    """Limits and deadlines of one server. Times are seconds; ``math.inf`` switches a deadline off."""

    # -- who comes in -------------------------------------------------------------------------------

    handshake_timeout: float = attrs.field(default=10.0, validator=POSITIVE)
    """The whole opening handshake, absolute rather than per read, so that one byte a second is no way in."""
    auth_timeout: float = attrs.field(default=10.0, validator=POSITIVE)
    """How long a v1 peer without credentials in its handshake may take to show some by ``auth``, else it is closed with
    4003; also what ``authenticate`` may take for them. As long as a handshake: it is the second half of one. Only where
    an app authenticates, and not for peers that it lets in as anonymous."""
    max_head_bytes: int = attrs.field(default=16_384, validator=COUNT)
    """Request line and headers together."""
    max_headers: int = attrs.field(default=64, validator=COUNT)
    """Header lines of a request."""
    max_request_bytes: int = attrs.field(default=1 << 20, validator=COUNT)
    """The body of one request to the HTTP API, which only those with the API key may send."""
    public_metrics: bool = attrs.field(default=False, validator=true_or_false)
    """Serve ``/metrics`` to all, and not only to those with the API key, as on a port that only friends reach."""
    allowed_origins: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(tuple_of), validator=_ORIGINS
    )
    """Origins a browser may come from; ``None`` is the same host only, ``("*",)`` is any."""
    max_connections: int | None = attrs.field(default=None, validator=_COUNT_OR_NONE)
    """Peers that this server may have at a time, from accept to close, so those in the handshake too. One more is
    answered with HTTP 503, or just closed if it speaks TLS.

    ``None`` is what the limit of open files allows (``ulimit -n``; the command raises it to the hard one), less a
    reserve of a quarter and at most 2,048: half of that is for peers that are being refused, the other half for
    files that are served, the backplane and what the application opens. Each of several workers has as many.
    """
    max_connections_per_address: float = attrs.field(default=math.inf, validator=_count_or_infinite)
    """Of those, peers from one IPv4 address or one IPv6 network of 64 bits; one more is refused as above.

    Off (``math.inf``), as behind a NAT many peers have one address, and behind a proxy all, unless ``trusted_proxies``
    names it. Workers do not know of each other's peers: with N of them an address may have up to N times as many.
    """
    max_handshake_rate: float = attrs.field(default=math.inf, validator=POSITIVE)
    """Connections a second that this server takes in, those that ask for a file or its health too. More are answered
    with 503 and ``Retry-After``, or just closed if they speak TLS, before anything of them is read.

    Off (``math.inf``), as what a server can take in differs by an order of magnitude with its machine, TLS and what
    ``on_join`` does; ``trioroom bench connect`` measures it. Each of several workers takes in as many.
    """
    handshake_burst: int = attrs.field(default=1_000, validator=COUNT)
    """Connections it takes in at once after a quiet time, as the size of a token bucket. A quarter of ``backlog``."""
    max_handshake_rate_per_address: float = attrs.field(default=math.inf, validator=POSITIVE)
    """Connections a second from one address, as ``max_connections_per_address`` counts them; more are refused as above.

    Off (``math.inf``), for the same reasons. The 65,536 addresses that came last are remembered, in 15 MB at most;
    with more of them those before begin anew.
    """
    handshake_burst_per_address: int = attrs.field(default=100, validator=COUNT)
    """Connections from one address at once, such as those of an office that comes back."""
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=tuple_of, validator=[texts, _check_networks])
    """Addresses or networks (``10.0.0.0/8``) of proxies that are believed when they tell whom they speak for. Nobody
    else is: name no network from which peers come themselves."""
    forwarded_header: str = attrs.field(default="X-Forwarded-For", validator=_FORWARDED_HEADER)
    """The header in which they tell it, ``X-Forwarded-For`` (with ``X-Forwarded-Proto`` and ``X-Forwarded-Host``) or
    ``Forwarded``, RFC 7239. The other one is not looked at, as a proxy lets through what a client puts there."""
    proxy_protocol: bool = attrs.field(default=False, validator=true_or_false)
    """Expect each connection to begin with a PROXY header, version 1 or 2, before TLS. Then only ``trusted_proxies``
    may connect at all, and without that header they may not either."""
    backlog: int = attrs.field(default=4_096, validator=COUNT)
    """Connections the kernel holds for us before they are accepted (capped by net.core.somaxconn)."""

    # -- what a peer may send -----------------------------------------------------------------------

    max_message_bytes: int = attrs.field(default=65_536, validator=COUNT)
    """One inbound message, all fragments, after inflating; more is close code 1009."""
    max_fragments: int = attrs.field(default=64, validator=COUNT)
    """Frames one message may come in, empty ones counted."""
    max_message_rate: float = attrs.field(default=1_000.0, validator=POSITIVE)
    """Messages a second that one peer may send, requests in v1; more is close code 1008. Ten times what a game sends,
    and about a fiftieth of a core. ``math.inf`` is no limit."""
    message_burst: int = attrs.field(default=1_000, validator=COUNT)
    """Messages it may send at once after it has sent none for a while, as the size of a token bucket."""
    max_control_rate: float = attrs.field(default=10.0, validator=POSITIVE)
    """Pings and pongs a second that one peer may send; more is close code 1008. Clients ping every few seconds."""
    control_burst: int = attrs.field(default=100, validator=COUNT)
    """Pings and pongs at once, such as those of a peer whose network held them back."""
    max_calls_per_connection: int = attrs.field(default=16, validator=COUNT)
    """Calls of one v1 connection that may run at a time."""
    compression: bool = attrs.field(default=False, validator=true_or_false)
    """Offer permessage-deflate (RFC 7692). Off, as it costs CPU per message and helps only verbose payloads."""

    # -- rooms --------------------------------------------------------------------------------------

    max_rooms_per_connection: int = attrs.field(default=128, validator=COUNT)
    """Rooms one v1 connection may be in at a time."""
    max_members_per_room: int = attrs.field(default=100_000, validator=COUNT)
    """Members of one room on this server, which a room class may change for itself; v1 joins beyond get the error
    ``room_full``, plain ones close code 1013. A pass over so many takes the better part of a second."""
    max_room_name_bytes: int = attrs.field(default=255, validator=COUNT)
    """UTF-8 bytes of a room's name."""
    room_name_pattern: str = attrs.field(default=".*", validator=_check_pattern)
    """A regular expression that a room's whole name must match, besides that all its characters print."""

    # -- what may wait ------------------------------------------------------------------------------

    max_outbox_bytes: int = attrs.field(default=1 << 20, validator=COUNT)
    """Bytes waiting for one peer beyond what its kernel socket took, unless its room says otherwise; what happens when
    it is more is for ``Room.overflow`` to say, close code 4108 by default."""
    max_outbox_messages: int = attrs.field(default=4_096, validator=COUNT)
    """Messages waiting for one peer, likewise."""
    room_channel_size: int = attrs.field(default=1_024, validator=COUNT)
    """Publications that may wait for a room's fan-out on this server.

    ``publish`` awaits while half of them do, those on their way there counted; more is a loss, told by a ``gap``.
    """
    room_channel_bytes: int = attrs.field(default=4 << 20, validator=COUNT)
    """The same in bytes. 64 of the largest messages, or 4 KiB for each of ``room_channel_size``. One fits always."""
    publish_timeout: float = attrs.field(default=10.0, validator=POSITIVE)
    """How long ``publish`` waits while the room is behind on this server, before it raises `BackplaneUnavailable`."""
    max_queued_bytes: float = attrs.field(default=float(256 << 20), validator=POSITIVE)
    """All outboxes and room channels of this server together; ``math.inf`` is no bound.

    When they are used up the fattest outbox is closed with 4108, and so on until there is some room again. 256
    peers that let ``max_outbox_bytes`` wait, or 64 full room channels.
    """

    # -- how long a peer or a hook may take ---------------------------------------------------------

    ping_interval: float = attrs.field(default=25.0, validator=POSITIVE)
    """Between two pings to a peer; below the usual 30 s idle limit of proxies. The first one is jittered."""
    ping_timeout: float = attrs.field(default=10.0, validator=POSITIVE)
    """How long a pong (or any other byte) may take before the connection is dropped with 4110."""
    write_timeout: float = attrs.field(default=20.0, validator=POSITIVE)
    """How long a peer may take nothing of what waits for it before it is closed with 4108.

    One that goes on talking is never late with a pong, and with a dropping room its outbox never overflows. Below
    ``tcp_user_timeout``, at which the kernel drops such a peer without a word.
    """
    close_timeout: float = attrs.field(default=5.0, validator=POSITIVE)
    """How long a peer may take to answer our close frame, and to read what it was sent before."""
    leave_timeout: float = attrs.field(default=5.0, validator=POSITIVE)
    """How long ``on_leave`` and ``on_close`` may run, shielded, when a member or a room goes."""
    drain_delay: float = attrs.field(default=0.0, validator=_DELAY)
    """How long a stopping server goes on serving all who come, while ``/readyz`` says already that it is not ready.

    For load balancers that go by that: time enough for them to look, and to tell each other. 0, as nobody looks unless
    it has been set up.
    """
    drain_timeout: float = attrs.field(default=10.0, validator=POSITIVE)
    """How long a stopping server takes, after that, to close its peers and to wait for their ends. Peers that are left
    are dropped then. It may take ``leave_timeout`` more where ``on_leave`` does, and as much again where ``on_close``
    does.
    """
    reconnect_rate: float = attrs.field(default=1_000.0, validator=POSITIVE)
    """Peers a second that a stopping server sends to the others. It closes them at this pace, and tells each when to
    come back.

    An eighth of the handshakes that one core takes, so that joins, TLS and the members that are there already have the
    rest. All are to be back within ``drain_timeout`` all the same: a server with more peers than this allows for goes
    faster. ``math.inf`` closes all at once.
    """

    # -- the kernel's part --------------------------------------------------------------------------

    socket_unsent_bytes: int | None = attrs.field(default=16_384, validator=_COUNT_OR_NONE)
    """Bytes for one peer that the kernel takes before it can send them (TCP_NOTSENT_LOWAT, on Linux).

    All that a peer that reads nothing holds in the kernel is this and one segment; more waits in the outbox, where
    it is counted. What is on its way to a peer that reads may grow with its line all the same. ``None`` leaves it
    to the kernel, which then may take 4 MiB for each such peer.
    """
    socket_send_bytes: int | None = attrs.field(default=65_536, validator=_COUNT_OR_NONE)
    """Bytes for one peer that the kernel keeps until they are acknowledged (SO_SNDBUF; Linux doubles it, and
    counts its own overhead).

    Bounds a peer whose network goes silent amid a transfer, and the rate of one that is far away: 64 KiB in 100 ms
    are 640 KB/s for each member. ``None`` leaves it to the kernel (net.ipv4.tcp_wmem), up to 4 MiB.
    """
    socket_receive_bytes: int | None = attrs.field(default=65_536, validator=_COUNT_OR_NONE)
    """Bytes of one peer that the kernel takes while we do not read, as when its room is busy (SO_RCVBUF, doubled
    and counted as above).

    Bounds what a peer may send at a time, hence its rate: 64 KiB in 100 ms are 640 KB/s. ``None`` leaves it to the
    kernel (net.ipv4.tcp_rmem), 6 MiB or more.
    """
    tcp_user_timeout: float = attrs.field(default=30.0, validator=POSITIVE)
    """How long bytes for a peer may wait for its network, or for it to read at all, before the kernel drops it
    (TCP_USER_TIMEOUT, on Linux).

    Most peers that are gone are found by the heartbeat, within 35 s; this finds those without one (in a handshake,
    while closing, with ``ping_interval`` at infinity), and those that keep talking and read nothing.
    """
    tcp_keepalive_interval: float = attrs.field(default=60.0, validator=POSITIVE)
    """After this much silence the kernel asks whether the peer is there, three times as far apart, then drops it.

    Longer than ``ping_interval``, so that it costs nothing where the heartbeat speaks; for where that is off.
    Whole seconds, rounded up.
    """

    def __attrs_post_init__(self) -> None:
        if not (self.ping_timeout < self.ping_interval or math.isinf(self.ping_interval)):
            raise ValueError(
                f"ping_timeout={self.ping_timeout:g} must be below ping_interval={self.ping_interval:g}: "
                "the verdict on a ping comes before the next one"
            )
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol=True needs trusted_proxies: without them nobody may connect")
