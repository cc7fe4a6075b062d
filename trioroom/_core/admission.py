"""Whether one more connection may come in: bounds on how many there are, in all and from one address."""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable
from functools import partial

_MOST_RESERVED = 2_048
_RESERVED_SHARE = 4  # of a small limit no more than a quarter


class Verdict(enum.Enum):
    """What is said to one who comes; a refusal's value is the setting that is reached."""

    ADMITTED = ""
    FULL = "max_connections"
    ADDRESS_FULL = "max_connections_per_address"


class Admission:
    """Who is in now, from accept to close, and how many were refused; owned by one server."""

    def __init__(self, max_connections: float, max_per_address: float) -> None:
        self.limits = {Verdict.FULL: max_connections, Verdict.ADDRESS_FULL: max_per_address}
        """The bound behind each refusal; ``math.inf`` is none."""
        self.present = 0
        """Connections that are in."""
        self.refused: Counter[Verdict] = Counter()
        """Connections that were not let in, by the reason."""
        self._by_network: dict[str, int] = {}  # empty while addresses have no bound
        self._counts_networks = max_per_address != float("inf")
        self._leave_uncounted = partial(self._leave, None)

    @property
    def max_connections(self) -> float:
        """How many may be in; ``math.inf`` is no bound."""
        return self.limits[Verdict.FULL]

    def enter(self, host: str) -> Verdict:
        """Take a place for a connection from the address ``host``, if there is one."""
        verdict = Verdict.ADMITTED
        network = network_of(host) if self._counts_networks else None
        if self.present >= self.limits[Verdict.FULL]:
            verdict = Verdict.FULL
        elif network is not None:
            taken = self._by_network.get(network, 0)
            if taken >= self.limits[Verdict.ADDRESS_FULL]:
                verdict = Verdict.ADDRESS_FULL
            else:
                self._by_network[network] = taken + 1
        if verdict is Verdict.ADMITTED:
            self.present += 1
        else:
            self.refused[verdict] += 1
        return verdict

    def leaver(self, host: str) -> Callable[[], None]:
        """What gives the place back that `enter` took for ``host``; to be called once.

        While addresses have no bound it is one object for all: connections are many, and each keeps its own.
        """
        return partial(self._leave, network_of(host)) if self._counts_networks else self._leave_uncounted

    def _leave(self, network: str | None) -> None:
        self.present -= 1
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]


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
