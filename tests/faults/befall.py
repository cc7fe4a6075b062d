"""How each fault of the schedule is done to the servers, and undone."""

from __future__ import annotations

import random
from typing import Final

import attrs
import trio

from tests.faults.crowd import Crowd
from tests.faults.node import Node
from tests.faults.schedule import NODES, Fault
from tests.faults.strangers import put_out_all, read_slowly, storm
from tests.faults.world import World

_FEW_FILES: Final = 2
"""Files that a node may open when it has been given too few."""


@attrs.define
class Hand:
    """Does them; what hits the same process waits for the one before."""

    world: World
    crowd: Crowd
    _nodes: list[trio.Lock] = attrs.field(factory=lambda: [trio.Lock() for _ in range(NODES)])
    _broker: trio.Lock = attrs.field(factory=trio.Lock)

    async def befall(self, fault: Fault) -> None:
        """One, from beginning to end."""
        chance = self.crowd.chance(str(fault))
        self.crowd.count(f"fault: {fault.kind}")
        if fault.node is None:
            async with self._broker:
                await self._befall_broker(fault)
        elif fault.kind in ("slow readers", "storm", "put out"):
            await self._send_strangers(fault, fault.node, chance)
        elif fault.kind in ("silence link", "reset link"):
            await self._befall_link(fault, fault.node)
        else:
            async with self._nodes[fault.node]:
                await self._befall_node(fault, self.world.nodes[fault.node])

    async def _befall_broker(self, fault: Fault) -> None:
        broker = self.world.broker.server
        if fault.kind == "stop broker":
            broker.stop()
            await trio.sleep(fault.lasts)
            broker.resume()
        else:
            await self.world.restart_broker(fault.lasts, empty=fault.kind == "kill and empty broker")

    async def _befall_link(self, fault: Fault, node: int) -> None:
        proxy = self.world.proxies[node]
        if fault.kind == "silence link":
            proxy.black_hole()
            await trio.sleep(fault.lasts)
            proxy.heal()
        else:
            proxy.reset()

    async def _send_strangers(self, fault: Fault, node: int, chance: random.Random) -> None:
        if fault.kind == "slow readers":
            await read_slowly(self.crowd, node, fault.count, fault.lasts, chance)
        elif fault.kind == "storm":
            await storm(self.crowd, node, fault.count, chance)
        else:
            await put_out_all(self.crowd, node, chance)

    async def _befall_node(self, fault: Fault, node: Node) -> None:
        match fault.kind:
            case "kill node":
                node.die()
                await trio.sleep(fault.lasts)
                await self._start(node)
            case "drain node":
                await node.drain()
                await trio.sleep(fault.lasts)
                await self._start(node)
            case "stop node":
                node.stop()
                await trio.sleep(fault.lasts)
                node.resume()
            case "no files":
                node.allow_files(_FEW_FILES)
                await trio.sleep(fault.lasts)
                node.allow_files(None)
            case "jump clock":
                node.set_clock(fault.count)
                await trio.sleep(fault.lasts)
                node.set_clock(0.0)

    async def _start(self, node: Node) -> None:
        try:
            await node.start()
        except trio.TooSlowError:
            self.crowd.trouble(f"node {node.number} does not come up: {node.log[-2_000:]}")
