"""Two nodes, the broker that links them, and a proxy between each node and the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.backplane.processes import free_port
from tests.backplane.proxy import Proxy, open_proxy
from tests.faults.brokers import BROKERS, Broker
from tests.faults.node import Node
from tests.faults.records import Restart
from tests.faults.schedule import NODES


@attrs.define
class World:
    """Made by `open_world`."""

    broker: Broker
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
        if self.broker.server.alive:
            self.broker.server.resume()

    async def restart_broker(self, away: float, *, empty: bool) -> None:
        """Kill it, and have it back after ``away`` seconds, with its data or, where it can be ``empty``, without."""
        alive = trio.current_time()
        server = self.broker.server
        empty = empty and self.broker.forgetful
        if empty:
            server.forget()
        else:
            (self.broker.end or server.kill)()
        await trio.sleep(away)
        await server.restart()
        self.restarts.append(Restart(alive, trio.current_time(), empty))


@asynccontextmanager
async def open_world(folder: Path, broker_name: str) -> AsyncIterator[World]:
    """All of them serve; they are killed at the end.

    Args:
        broker_name: one of `BROKERS`.
        folder: gets the nodes' logs and journals.
    """
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(BROKERS[broker_name]())
        proxy_at = partial(open_proxy, broker.server.port, address=broker.address)
        proxies = [await stack.enter_async_context(proxy_at()) for _ in range(NODES)]
        nodes = []
        for number, proxy in enumerate(proxies):
            directory = folder / f"node-{number}"
            directory.mkdir(parents=True)
            node = Node(number, directory, free_port(), broker.url(proxy.port))
            nodes.append(node)
        for node in nodes:
            await stack.enter_async_context(node.running())
        yield World(broker, proxies, nodes)
