"""Leases of nodes in Redis: a sorted set of nodes by when they end."""

from __future__ import annotations

import trio
from redis.exceptions import ResponseError

from trioroom.backplane.leases import Leases
from trioroom.backplane.redis.presence_scripts import RENEW
from trioroom.backplane.redis.topology import Topology
from trioroom.errors import BackplaneError


class RedisLeases(Leases):
    """By the clock of the server."""

    broker = "redis"

    def __init__(self, topology: Topology, prefix: str, lease: float) -> None:
        super().__init__(lease)
        self._topology = topology
        self._key = f"{prefix}:{{nodes}}".encode()

    async def renew(self) -> bool:
        """See `Leases`."""
        milliseconds = round(self.lease * 1000)
        began = trio.current_time()
        try:
            nodes = await RENEW.run(
                self._topology, [self._key], lambda _: [self.node, milliseconds, 1 if self.held else 0]
            )
        except ResponseError as exc:
            raise BackplaneError(f"the broker refuses the lease of a node: {exc}") from exc
        if nodes is None:
            return False
        self.held = True
        names = [name.decode(errors="replace") for name in nodes[::2]]
        self.live = {name: began + left / 1000 for name, left in zip(names, nodes[1::2], strict=True)}
        return True
