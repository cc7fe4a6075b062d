"""One run: servers and members, faults by the schedule of a seed, a quiet end, and the records."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.benchmarks.soak.watch import read_metrics
from tests.faults.befall import Hand
from tests.faults.checker import check_remains
from tests.faults.clients import be_client
from tests.faults.crowd import ROOMS, Crowd
from tests.faults.node import START_TIMEOUT
from tests.faults.raw import be_raw, who_is_in
from tests.faults.records import PresenceSeen, Remains, Run
from tests.faults.rooms import kind_of
from tests.faults.schedule import NODES, plan
from tests.faults.waiting import comes_true
from tests.faults.world import World, open_world

_SETTLE: Final = 25.0
"""Seconds within which all is to be well when there are no faults any more: leases, back-off and grace have ended."""
_LAST_WORDS: Final = 45.0
"""Seconds for the last publications."""
_AT_REST: Final = 0.5
"""Seconds between two looks at whether a node that has just started has all its tasks."""


@attrs.frozen
class Outcome:
    """What one seed has led to."""

    run: Run
    counts: dict[str, int]
    """What happened how often."""


async def run_seed(seed: int, minutes: float, folder: Path, broker: str, *, quiet: bool = False) -> Outcome:
    """From the start of the servers to their end.

    Args:
        folder: gets the nodes' logs and journals.
        broker: its name.
        quiet: do not tell how it goes.
    """
    async with open_world(folder, broker) as world:
        for number in range(NODES):
            await comes_true(partial(_is_linked, world, number), _SETTLE)
        idle_tasks = await _count_at_rest(world)
        crowd = Crowd(world, seed)
        async with trio.open_nursery() as members:
            _invite(crowd, members)
            async with trio.open_nursery() as watching:
                watching.start_soon(_watch, world, crowd, quiet)
                await _let_befall(world, crowd, seed, minutes)
                world.heal()
                await _settle(world, crowd)
                watching.cancel_scope.cancel()
            crowd.close_all()
            members.cancel_scope.cancel()
        warm = [node.warm for node in world.nodes]
        await _part(world, crowd, idle_tasks, warm)
        crowd.run.restarts = world.restarts
        crowd.run.dense = world.broker.dense
        return Outcome(crowd.run, crowd.counts)


def _invite(crowd: Crowd, nursery: trio.Nursery) -> None:
    """Those who stay, on each node: a publisher and a raw peer for each room, and one client that reads all rooms."""
    for node in range(NODES):
        nursery.start_soon(be_client, crowd, f"reader-{node}", node, ROOMS, False)
        for number, room in enumerate(ROOMS):
            nursery.start_soon(be_client, crowd, f"client-{node}-{number}", node, [room], True)
            nursery.start_soon(be_raw, crowd, f"raw-{node}-{number}", node, room)


async def _let_befall(world: World, crowd: Crowd, seed: int, minutes: float) -> None:
    hand = Hand(world, crowd)
    began = trio.current_time()
    async with trio.open_nursery() as faults:
        for fault in plan(seed, minutes):
            await trio.sleep_until(began + fault.at)
            faults.start_soon(hand.befall, fault)
        await trio.sleep_until(began + minutes * 60)


# -- how it ends ------------------------------------------------------------------------------------


async def _settle(world: World, crowd: Crowd) -> None:
    """Each publishes a last time, it comes everywhere, and all agree who is there."""

    async def have_published() -> bool:
        return not crowd.publishing

    async def have_received() -> bool:
        return not crowd.waits_for()

    async def agree() -> bool:
        crowd.run.presence = await _presence(world, crowd)
        return all(each.seen == each.truly for each in crowd.run.presence)

    crowd.quiet.set()
    await comes_true(have_published, _LAST_WORDS)
    await comes_true(have_received, _SETTLE)
    await comes_true(agree, _SETTLE)


async def _presence(world: World, crowd: Crowd) -> list[PresenceSeen]:
    found = []
    for room in [each for each in ROOMS if kind_of(each).presence]:
        for node in range(NODES):
            asked = await who_is_in(world.nodes[node].port, room, f"reader-{node}")
            truly = crowd.members_of(room)
            found.append(PresenceSeen(room, node, "who", asked, truly))
            found.append(PresenceSeen(room, node, "a client's list", crowd.listed(room, node), truly))
    return found


async def _part(world: World, crowd: Crowd, idle_tasks: float, warm: list[int]) -> None:
    """All have gone: what is left is counted, and the nodes are told to end."""
    for node in world.nodes:
        remains = Remains(node.number, {}, 0.0, idle_tasks, 0, warm[node.number])
        await comes_true(partial(_is_idle, world, remains), _SETTLE)
        remains.resident = node.resident()
        crowd.run.remains.append(remains)
    for node in world.nodes:
        await node.drain()
        crowd.run.lives += node.lives


async def _is_idle(world: World, remains: Remains) -> bool:
    """Whether nothing is left, by what the node tells now."""
    remains.tasks = await world.nodes[remains.node].count_tasks()
    metrics = await _metrics(world, remains.node)
    remains.metrics = {name: value for name, value in metrics.items() if name.startswith("trioroom_")}
    return next(check_remains(Run(remains=[remains])), None) is None


async def _count_at_rest(world: World) -> float:
    """Tasks of a node without members, once they are as many as a moment ago; both nodes are alike.

    On a busy machine one may not have begun all of its own yet.
    """
    before = math.inf
    with trio.fail_after(START_TIMEOUT):
        while True:
            await trio.sleep(_AT_REST)
            now = max([await node.count_tasks() for node in world.nodes])
            if now == before < math.inf:  # that is what a node tells which does not answer
                return now
            before = now


# -- looking ----------------------------------------------------------------------------------------


async def _is_linked(world: World, node: int) -> bool:
    return bool((await _metrics(world, node)).get("trioroom_backplane_up"))


async def _metrics(world: World, node: int) -> dict[str, float]:
    return await trio.to_thread.run_sync(read_metrics, world.nodes[node].port)


async def _watch(world: World, crowd: Crowd, quiet: bool) -> None:
    """See how it goes, and tell."""
    began = trio.current_time()
    while True:
        for node in world.nodes:
            node.look()
            if (trouble := await node.raise_from_the_dead()) is not None:
                crowd.trouble(trouble)
        if not quiet:
            _tell(trio.current_time() - began, crowd)
        await trio.sleep(1)


def _tell(seconds: float, crowd: Crowd) -> None:
    run = crowd.run
    faults = sum(count for what, count in crowd.counts.items() if what.startswith("fault: "))
    gaps = sum(len(record.entries) for record in run.records)
    line = f"{seconds:5.0f} s  {faults:3} faults  {len(run.publications):6,} publications  {gaps:8,} entries of members"
    print(line, end="\033[K\r", file=sys.stderr, flush=True)
