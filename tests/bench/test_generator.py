"""What a process does, done by this one while a thread plays its parent."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tests.bench.conftest import options_for
from trioroom.bench.generator import FINISH, generate
from trioroom.bench.options import BenchOptions, Protocol, Scenario
from trioroom.bench.scenarios import SCENARIOS
from trioroom.bench.server import url_on
from trioroom.bench.shared import open_shared
from trioroom.bench.tally import Finished, StepDone, Tick
from trioroom.bench.target import parse_target


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    gc.enable()


def parent(link: Connection, words: list[str], heard: list[object]) -> None:
    """Say these, each when the one before is done; then go."""
    for word in words:
        link.send(word)
        while not isinstance(heard[-1] if heard else None, Finished):
            heard.append(link.recv())
            if isinstance(heard[-1], StepDone):
                break
    link.close()


def run_generator(options: BenchOptions, port: int, words: list[str], server: int | None = None) -> list[object]:
    """What it tells its parent."""
    ours, theirs = multiprocessing.Pipe()
    shared = open_shared(multiprocessing.get_context("spawn"), 1, options.in_flight)
    heard: list[object] = []
    thread = threading.Thread(target=parent, args=(ours, words, heard))
    thread.start()
    target = parse_target([url_on(port, options.scenario)], options.protocol)
    generate(options.shares[0], target, shared, theirs, server, SCENARIOS[options.scenario])
    thread.join()
    theirs.close()
    return heard


def test_steps_are_done_and_what_was_counted_is_handed_over(server_port: int) -> None:
    heard = run_generator(options_for(Scenario.IDLE), server_port, ["open", "stay", FINISH])
    assert [said.step for said in heard if isinstance(said, StepDone)] == ["open", "stay"]
    finished = heard[-1]
    assert isinstance(finished, Finished)
    assert finished.tally.counts.opened == 20
    ticks = [said for said in heard if isinstance(said, Tick)]
    assert ticks[-1].counts == finished.tally.counts


def test_step_that_stalls_says_so(server_port: int) -> None:
    options = options_for(Scenario.RECOVERY, protocol=Protocol.V1, members=3)
    heard = run_generator(options, server_port, ["cut", "miss", FINISH])  # nobody is there to publish
    assert isinstance(heard[-1], Finished)
    options = options_for(Scenario.FANOUT, members=3)
    heard = run_generator(options, server_port, ["warm_up", FINISH])
    (done,) = (said for said in heard if isinstance(said, StepDone))
    assert done.complaint == "member 0, who is to publish, is not connected"


def test_server_of_a_parent_that_is_gone_is_ended(server_port: int) -> None:
    server = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    run_generator(options_for(Scenario.CONNECT), server_port, ["open"], server.pid)
    assert server.wait(10) == -signal.SIGTERM
    run_generator(options_for(Scenario.CONNECT), server_port, ["open"], server.pid)  # gone already
