"""IP addresses as they are written, and the networks that they are in."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

_MOST_KNOWN = 1_024  # addresses whose answer is remembered: looking one up takes microseconds for each network


def parse_address(text: str) -> str | None:
    """``text`` as IP addresses are usually written, so that equal ones compare equal; None if it is none.

    An IPv4 address inside an IPv6 one is the same peer, and comes out as IPv4. A zone, as in ``fe80::1%eth0``, means
    nothing on another machine: such a text is no address.
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(_unmapped(address))


def _unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


class Networks:
    """Some networks, such as ``10.0.0.0/8`` or ``fd00::/8``; a single address is a network of one.

    Raises:
        ValueError: one of them is no network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str | None) -> bool:
        """Whether ``address``, as accept(2) gives it or `parse_address`, is in one of them; None is nowhere."""
        if not self._networks or address is None:
            return False
        if (known := self._known.get(address)) is not None:
            return known
        if len(self._known) >= _MOST_KNOWN:  # rather than to find out which was not asked for lately
            self._known.clear()
        parsed = _unmapped(ipaddress.ip_address(address))
        answer = self._known[address] = any(parsed in network for network in self._networks)
        return answer
