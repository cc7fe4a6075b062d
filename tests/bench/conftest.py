"""A server in a process of its own for all tests of the bench, and one generator's parts in this process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import attrs
import pytest

from trioroom.bench.connecting import Connector
from trioroom.bench.handshakes import Opening
from trioroom.bench.options import BenchOptions, Protocol, Scenario
from trioroom.bench.pulse import Pulse
from trioroom.bench.scenarios import SCENARIOS
from trioroom.bench.scenarios.base import Play
from trioroom.bench.server import open_own_server, url_on
from trioroom.bench.shared import open_shared
from trioroom.bench.swarm import Swarm
from trioroom.bench.tally import Tally
from trioroom.bench.target import parse_target

PATIENCE = 10.0  # seconds: a test that waits longer for anything fails


@pytest.fixture(scope="session")
def server_port() -> Iterator[int]:
    """As the bench starts it."""
    with open_own_server(1) as server:
        yield server.ports[0]


def options_for(scenario: Scenario, members: int = 20, **changed: Any) -> BenchOptions:
    """Small and short."""
    protocol = Protocol.V1 if scenario is Scenario.RECOVERY else Protocol.PLAIN
    options = BenchOptions(
        scenario=scenario, members=members, duration=0.2, payload=40, protocol=protocol, patience=PATIENCE
    )
    return attrs.evolve(options, **changed)


@pytest.fixture
def open_play(server_port: int) -> Iterator[Callable[..., Play]]:
    """Makes the whole load of a scenario as one generator has it; its connections end with the test."""
    swarms: list[Swarm] = []
    links: list[Connection] = []

    def make(options: BenchOptions, url: str | None = None) -> Play:
        target = parse_target([url or url_on(server_port, options.scenario)], options.protocol, options.token)
        share = options.shares[0]
        tally = Tally()
        swarm = Swarm(tally)
        swarms.append(swarm)
        ours, theirs = multiprocessing.Pipe()
        links.extend((ours, theirs))
        opening = Opening(swarm, Connector(target, share.first, options.members), options.handshakes)
        shared = open_shared(multiprocessing.get_context("spawn"), 1, options.in_flight)
        pulse = Pulse(theirs, 0, tally.counts, shared, options.patience)
        pulse.start()
        return SCENARIOS[options.scenario](share, target, swarm, opening, pulse, shared)

    yield make
    for swarm in swarms:
        swarm.close()
    for link in links:
        link.close()


def take_all_steps(play: Play) -> Tally:
    """One after another; what was counted."""
    for step in play.plan(play.options):
        getattr(play, step.name)()
    return play.tally
