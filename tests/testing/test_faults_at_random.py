"""Two servers whose link does whatever it can, while members come and go: who was told what, as with real brokers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.backplane.reconnecting import open_stage
from trioroom.backplane.base import Backplane
from trioroom.testing import FaultyBackplane

SECONDS = 10.0  # of publishing under faults, on the virtual clock
MEMBERS = 4


async def break_links(nodes: Sequence[FaultyBackplane], chance: random.Random, *, restarts: bool) -> None:
    """Now and then, until cancelled."""
    while True:
        await trio.sleep(chance.uniform(0, 1))
        node = chance.choice(nodes)
        if chance.random() < 0.5:
            with node.partitioned():
                await trio.sleep(chance.uniform(0, 2))
        elif restarts:
            node.restart()
        else:
            node.lose_next_answer()


async def told_in(seed: int, *, restarts: bool) -> tuple[list[str], int]:
    """What was wrong with what members were told, and how many gaps they were told of."""
    here = FaultyBackplane(seed=seed)
    nodes = [here, here.another_node()]
    left = iter(nodes)

    @asynccontextmanager
    async def open_node() -> AsyncIterator[Backplane]:
        yield next(left)

    async with open_stage(open_node, MEMBERS, 0.05, seed) as stage:
        for client in stage.clients:
            client.tcp = False
        for node in nodes:
            node.drop = node.duplicate = node.reorder = 0.05
            node.delay = (0.0, 0.05)
        with trio.move_on_after(SECONDS):
            await break_links(nodes, random.Random(seed), restarts=restarts)
        for node in nodes:
            node.heal()
            node.drop = node.duplicate = node.reorder = node.delay = 0.0
        await trio.sleep(5)  # the last publications in doubt are tried again
        await stage.settle(60)
        assert all(client.joins > 3 for client in stage.clients)
        assert sum(here.counts.values()) > 100
        return stage.faults(), sum(client.sequence.count(None) for client in stage.clients)


@pytest.mark.parametrize("seed", range(2))
async def test_history_heals_whatever_the_link_does(seed: int, autojump_clock: MockClock) -> None:
    assert await told_in(seed, restarts=False) == ([], 0)


@pytest.mark.parametrize("seed", range(2))
async def test_broker_that_forgets_is_told_by_gaps(seed: int, autojump_clock: MockClock) -> None:
    faults, gaps = await told_in(seed, restarts=True)
    assert (faults, gaps > 0) == ([], True)
