"""Two nodes, the broker that links them, and a proxy between each node and the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.backplane.processes import free_port
from tests.backplane.proxy import Proxy, open_proxy
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from tests.faults.node import Node
from tests.faults.records import Restart
from tests.faults.schedule import NODES

OF_BACKPLANE: Final = "timeout=3&connect_timeout=2&presence_lease=4"
"""Deadlines short enough for faults of some seconds to be longer."""
_KEEPING: Final = ("--appendonly", "yes", "--appendfsync", "always")  # what it has confirmed outlives the process


@attrs.define
class World:
    """Made by `open_world`."""

    broker: RedisServer
    proxies: list[Proxy]
    nodes: list[Node]
    restarts: list[Restart] = attrs.field(factory=list)
    """Those of the broker."""

    def heal(self) -> None:
        """Whatever is stopped, cut or short of files is not any more."""
        for node in self.nodes:
            if node.alive:
                node.resume()
                node.allow_files(None)
                node.set_clock(0.0)
        for proxy in self.proxies:
            proxy.heal()
        if self.broker.alive:
            self.broker.resume()

    async def restart_broker(self, away: float, *, empty: bool) -> None:
        """Kill it, and have it back after ``away`` seconds, with its data or without."""
        alive = trio.current_time()
        self.broker.kill()
        if empty:
            self.broker.forget()
        await trio.sleep(away)
        await self.broker.restart()
        self.restarts.append(Restart(alive, trio.current_time(), empty))


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    """All of them serve; they are killed at the end.

    Args:
        folder: gets the nodes' logs and journals.
    """
    async with AsyncExitStack() as stack:
        program = binaries()
        broker = await stack.enter_async_context(open_redis_server(program.get("redis", program["valkey"]), *_KEEPING))
        proxies = [await stack.enter_async_context(open_proxy(broker.port)) for _ in range(NODES)]
        nodes = []
        for number, proxy in enumerate(proxies):
            directory = folder / f"node-{number}"
            directory.mkdir(parents=True)
            node = Node(number, directory, free_port(), f"redis://127.0.0.1:{proxy.port}?{OF_BACKPLANE}")
            nodes.append(node)
        for node in nodes:
            await stack.enter_async_context(node.running())
        yield World(broker, proxies, nodes)
