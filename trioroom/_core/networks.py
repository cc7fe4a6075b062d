"""IP addresses as they are written, and the networks that they are in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

_MOST_KNOWN = 1_024  # addresses whose answer is remembered: the same few proxies connect again and again
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"({_BYTE})\.({_BYTE})\.({_BYTE})\.({_BYTE})")


def parse_address(text: str) -> str | None:
    """``text`` as IP addresses are usually written, so that equal ones compare equal; None if it is none.

    An IPv4 address inside an IPv6 one is the same peer, and comes out as IPv4. A zone, as in ``fe80::1%eth0``, means
    nothing on another machine: such a text is no address.
    """
    if _IPV4.fullmatch(text):  # most are, and `ipaddress` takes ten times as long
        return text
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
        self._masked = [
            (int(network.network_address), int(network.netmask)) for network in self._networks if network.version == 4
        ]
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str | None) -> bool:
        """Whether ``address``, as accept(2) gives it or `parse_address`, is in one of them; None is nowhere."""
        if not self._networks or address is None:
            return False
        if (known := self._known.get(address)) is not None:
            return known
        if len(self._known) >= _MOST_KNOWN:  # rather than to find out which was not asked for lately
            self._known.clear()
        answer = self._known[address] = self._has(address)
        return answer

    def _has(self, address: str) -> bool:
        if match := _IPV4.fullmatch(address):
            a, b, c, d = match.groups()
            number = int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
            return any(number & mask == network for network, mask in self._masked)
        parsed = _unmapped(ipaddress.ip_address(address))
        return any(parsed in network for network in self._networks)
