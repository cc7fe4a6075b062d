"""Which server to try next: those of the URL, and those of which they tell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from trioroom.backplane.nats.connection import ServerInfo
from trioroom.backplane.nats.location import DEFAULT_PORT, Endpoint


class Servers:
    """They take turns, those of the URL first and in its order."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._given = endpoints
        self._told: list[Endpoint] = []  # by the latest that told any
        self._tried: list[Endpoint] = []  # the latest last; of those that are known

    @property
    def has_others(self) -> bool:
        """Whether there is another one than the latest."""
        return len(self._known) > 1

    @property
    def _known(self) -> list[Endpoint]:
        return [*self._given, *self._told]

    def next(self) -> Endpoint:
        """The one that has not been tried for longest."""
        known = self._known
        self._tried = [endpoint for endpoint in self._tried if endpoint in known]
        chosen = next((endpoint for endpoint in known if endpoint not in self._tried), None) or self._tried[0]
        if chosen in self._tried:
            self._tried.remove(chosen)
        self._tried.append(chosen)
        return chosen

    def learn(self, info: ServerInfo) -> None:
        """What a server tells of its cluster, which has a bound of its own there; one alone tells nothing."""
        told: list[Endpoint] = []
        for address in info.addresses:
            with suppress(ValueError):
                parts = urlsplit(f"//{address}")
                if parts.hostname:
                    told.append(Endpoint(parts.hostname, parts.port or DEFAULT_PORT))
        told = [endpoint for endpoint in dict.fromkeys(told) if endpoint not in self._given]
        if info.addresses:
            self._told = random.sample(told, len(told))  # nodes that lose a server do not all go to the same one

    def hostname_of(self, endpoint: Endpoint) -> str | None:
        """Whose certificate it has to show; of one that was told by its address only, that of the URL's first."""
        if endpoint in self._given:
            return None
        try:
            ip_address(endpoint.host)
        except ValueError:
            return None
        return self._given[0].host
