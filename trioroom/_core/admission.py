"""Whether one more connection may come in: how many there are and how many come, in all and from one address."""

from __future__ import annotations

import enum
import ipaddress
import math
from collections import Counter

from trioroom._core.ratelimit import Buckets, RateLimit

MAX_ADDRESSES = 65_536
"""Addresses of which is known how often they came lately: 15 MB at most. With more, who came first begins anew."""

_MOST_RESERVED = 2_048
_RESERVED_SHARE = 4  # of a small limit no more than a quarter


class Verdict(enum.Enum):
    """What is said to one who comes; a refusal's value is the setting that is behind it."""

    ADMITTED = ""
    FULL = "max_connections"
    ADDRESS_FULL = "max_connections_per_address"
    RATE = "max_handshake_rate"
    ADDRESS_RATE = "max_handshake_rate_per_address"
    NOT_A_PROXY = "trusted_proxies"
    NO_HEADER = "proxy_protocol"


class Place:
    """What one connection has, from accept to close."""

    __slots__ = ("_admission", "_network")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._network: str | None = None  # that it counts for

    def claim(self, address: str, now: float) -> Verdict:
        """Count the connection for ``address``, once; if it is refused its place is still to be given back."""
        admission = self._admission
        verdict, network = admission.claim(address, now)
        if network is not None:
            self._network = network
        return verdict

    def leave(self) -> None:
        """Give it back; to be called once."""
        self._admission.leave(self._network)


class Admission:
    """Who is in now, from accept to close, and how many were refused; owned by one server.

    Args:
        rate: how many may come a second, and ``burst`` at once.
        address_rate: as ``rate``, from one address.
    """

    def __init__(
        self,
        max_connections: float,
        max_per_address: float,
        rate: tuple[float, int] = (math.inf, 1),
        address_rate: tuple[float, int] = (math.inf, 1),
    ) -> None:
        self.limits = {
            Verdict.FULL: max_connections,
            Verdict.ADDRESS_FULL: max_per_address,
            Verdict.RATE: rate[0],
            Verdict.ADDRESS_RATE: address_rate[0],
        }
        """The bound behind each refusal that has one; ``math.inf`` is none."""
        self.present = 0
        """Connections that are in."""
        self.refused: Counter[Verdict] = Counter()
        """Connections that were not let in, by the reason."""
        self._rate = RateLimit(*rate) if rate[0] < math.inf else None
        self._full_at = 0.0  # see RateLimit
        self._rates = Buckets(RateLimit(*address_rate), MAX_ADDRESSES) if address_rate[0] < math.inf else None
        self._by_network: dict[str, int] | None = {} if max_per_address < math.inf else None
        self._knows_networks = self._rates is not None or self._by_network is not None
        self._uncounted = Place(self)

    @property
    def max_connections(self) -> float:
        """How many may be in; ``math.inf`` is no bound."""
        return self.limits[Verdict.FULL]

    def enter(self, address: str | None, now: float) -> Verdict:
        """Take a place for a connection from ``address``, if there is one; `place` gives it.

        Where it comes from need not be known yet: then it counts for no address until `Place.claim`.
        """
        full_at = now if self._rate is None else self._rate.spend(self._full_at, now)
        if self.present >= self.limits[Verdict.FULL]:
            return self.refuse(Verdict.FULL)
        if full_at == math.inf:
            return self.refuse(Verdict.RATE)
        if address is not None and self._knows_networks:
            verdict, _ = self.claim(address, now)
            if verdict is not Verdict.ADMITTED:
                return verdict  # and the token is not spent: one address must not use up those of all
        self._full_at = full_at
        self.present += 1
        return Verdict.ADMITTED

    def place(self, address: str | None) -> Place:
        """The place that `enter` took for ``address``.

        While addresses are not counted it is one object for all: connections are many, and each keeps its own.
        """
        if self._by_network is None:
            return self._uncounted
        place = Place(self)
        if address is not None:
            place._network = network_of(address)
        return place

    def claim(self, address: str, now: float) -> tuple[Verdict, str | None]:
        """See `Place.claim`; with the network that has one connection more now, if they are counted."""
        if not self._knows_networks:
            return Verdict.ADMITTED, None
        network = network_of(address)
        taken = 0 if self._by_network is None else self._by_network.get(network, 0)
        if taken >= self.limits[Verdict.ADDRESS_FULL]:
            return self.refuse(Verdict.ADDRESS_FULL), None
        if self._rates is not None and not self._rates.spend(network, now):
            return self.refuse(Verdict.ADDRESS_RATE), None
        if self._by_network is None:
            return Verdict.ADMITTED, None
        self._by_network[network] = taken + 1
        return Verdict.ADMITTED, network

    def leave(self, network: str | None) -> None:
        """See `Place.leave`."""
        self.present -= 1
        if network is not None:
            assert self._by_network is not None
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]

    def refuse(self, verdict: Verdict) -> Verdict:
        """Count a connection that is not let in, and give ``verdict`` back."""
        self.refused[verdict] += 1
        return verdict

    def due_in(self, verdict: Verdict, address: str | None, now: float) -> float:
        """Seconds until another that comes from ``address`` need not be refused so; 0 if nobody can know."""
        if verdict is Verdict.RATE and self._rate is not None:
            return self._rate.due_in(self._full_at, now)
        if verdict is Verdict.ADDRESS_RATE and address is not None and self._rates is not None:
            return self._rates.due_in(network_of(address), now)
        return 0.0


def network_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, as its owner has 2^64 to come from."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    return str(address.ipv4_mapped or address.packed[:8].hex())


def reserved_descriptors(open_files: float) -> int:
    """How many of ``open_files`` descriptors are not for connections: half of them are for those that are refused
    and get an answer, half for files that are served, the backplane and what the application opens.
    """
    return int(min(_MOST_RESERVED, open_files // _RESERVED_SHARE))
