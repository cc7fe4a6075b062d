from __future__ import annotations

import attrs
import pytest

from trioroom.bench.limits import OwnServer, cautions, connections_of_process, obstacles, processes_for
from trioroom.bench.machine import Machine
from trioroom.bench.options import BenchOptions, Protocol, Scenario
from trioroom.bench.target import Endpoint, Target

LARGE = Machine(open_files=20_000, ports=28_232, memory=24 << 30, cpus=2, description="")
HERE = Target((Endpoint("127.0.0.1", "127.0.0.1", 8000),), "/all", Protocol.PLAIN)
ELSEWHERE = attrs.evolve(HERE, endpoints=(Endpoint("h", "192.0.2.1", 8000),))


def idle(members: int, processes: int = 1) -> BenchOptions:
    return BenchOptions(scenario=Scenario.IDLE, members=members, processes=processes)


@pytest.mark.parametrize(
    ("options", "target", "machine", "server", "told"),
    [
        (idle(15_000), HERE, LARGE, OwnServer(1), []),
        (idle(19_990), HERE, LARGE, None, ["open files", "--processes 2"]),
        (idle(18_000), HERE, LARGE, OwnServer(1), ["open files", "17952", "--workers 2"]),
        (idle(100_000, 6), HERE, LARGE, OwnServer(6), []),
        (idle(30_000, 2), ELSEWHERE, LARGE, None, ["ports", "28232", "net.ipv4.ip_local_port_range"]),
        (idle(10), HERE, attrs.evolve(LARGE, ports=100), None, ["ports", "net.ipv4.ip_local_port_range"]),
        (idle(10_000), HERE, attrs.evolve(LARGE, memory=50 << 20), None, ["memory", "0.1 GB are free"]),
        (idle(10_000), ELSEWHERE, attrs.evolve(LARGE, memory=None), None, []),
    ],
)
def test_limit_is_told_with_what_lifts_it(
    options: BenchOptions, target: Target, machine: Machine, server: OwnServer | None, told: list[str]
) -> None:
    found = "\n".join(obstacles(options, target, machine, server))
    assert found.count("\n") == 0
    assert all(part in found for part in told)
    assert bool(found) == bool(told)


def test_processes_are_as_few_as_can_have_the_connections() -> None:
    most = connections_of_process(LARGE)
    assert [processes_for(members, most) for members in (1, most, most + 1, 1_000_000)] == [1, 1, 2, 51]


def test_more_processes_than_cpus_are_cautioned_about() -> None:
    assert not list(cautions(idle(10), LARGE, OwnServer(1)))
    assert not list(cautions(idle(10, 2), LARGE, None))
    (caution,) = cautions(idle(10, 2), LARGE, OwnServer(1))
    assert "3 processes share 2 CPUs" in caution
