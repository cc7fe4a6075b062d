"""Which server to try next: those of the URL, and those of which they tell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from trioroom.backplane.nats.connection import ServerInfo
from trioroom.backplane.nats.location import DEFAULT_PORT
from trioroom.backplane.url import Endpoint


class Servers:
    """Those that are known. Each node tries them in an order of its own, so that all are used alike."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._given = endpoints
        self._known = random.sample(endpoints, len(endpoints))  # the latest that was used last

    @property
    def has_others(self) -> bool:
        """Whether there is more than one."""
        return len(self._known) > 1

    def in_turn(self) -> list[Endpoint]:
        """All, the one last that was used latest."""
        return list(self._known)

    def learn(self, used: Endpoint, info: ServerInfo) -> None:
        """What the server that is used now tells of its cluster, in any order; one alone tells nothing."""
        told: list[Endpoint] = []
        for address in info.addresses:
            with suppress(ValueError):
                parts = urlsplit(f"//{address}")
                if parts.hostname:
                    told.append(Endpoint(parts.hostname, parts.port or DEFAULT_PORT))
        others = [endpoint for endpoint in dict.fromkeys([*self._given, *told]) if endpoint != used]
        self._known = [*random.sample(others, len(others)), used]

    def hostname_of(self, endpoint: Endpoint) -> str | None:
        """Whose certificate it has to show, if not its own: one that was told by address only, the URL's first."""
        if endpoint in self._given:
            return None
        try:
            ip_address(endpoint.host)
        except ValueError:
            return None
        return self._given[0].host
