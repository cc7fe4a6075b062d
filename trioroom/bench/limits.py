"""Whether this machine can bear a run, told before it starts rather than by its failure half-way."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from trioroom.bench.connecting import PORTS_OF_ADDRESS
from trioroom.bench.machine import Machine
from trioroom.bench.options import BenchOptions
from trioroom.bench.target import Target

SPARE_FILES = 64
"""Open files of a generator that are no connections."""
BYTES_OF_GENERATOR = 1_024
"""For a connection at rest, in the process."""
BYTES_OF_KERNEL = 4_096
"""For one end of a connection at rest."""
BYTES_OF_SERVER = 8_192
"""For a member at rest, if the server is ours; others may want more."""
BYTES_OF_PROCESS = 48 << 20
"""For a generator, or a server, before it has any connection."""


@attrs.frozen
class OwnServer:
    """The server that the bench starts for itself."""

    workers: int
    """Processes."""

    def capacity(self, open_files: int) -> int:
        """Connections that all of them take: the default of `Settings.max_connections`, for each."""
        return self.workers * (open_files - min(open_files // 4, 2_048))


def connections_of_process(machine: Machine) -> int:
    """The most that one generator can have."""
    return max(1, machine.open_files - SPARE_FILES)


def processes_for(members: int, connections: int) -> int:
    """Generators, if each has at most so many connections."""
    return math.ceil(members / connections)


def obstacles(options: BenchOptions, target: Target, machine: Machine, server: OwnServer | None) -> Iterator[str]:
    """Limits that the run would meet: which one, what it is, what is wanted, and how to lift it.

    Args:
        server: None when it is not ours, so that what it can take is not known.
    """
    largest = max(share.members for share in options.shares)
    if largest > connections_of_process(machine):
        processes = processes_for(options.members, connections_of_process(machine))
        yield (
            f"open files: {largest} connections in one process are more than {machine.open_files} open files allow; "
            f"add --processes {processes}, or raise the hard limit (ulimit -Hn, or nofile in limits.conf)"
        )
    if server is not None and options.members > server.capacity(machine.open_files):
        workers = math.ceil(options.members / OwnServer(1).capacity(machine.open_files))
        yield (
            f"open files: {options.members} connections are more than the {server.capacity(machine.open_files)} that "
            f"the server's processes may have; add --workers {workers}"
        )
    yield from _ports(options, target, machine)
    yield from _memory(options, target, machine, server)


def _ports(options: BenchOptions, target: Target, machine: Machine) -> Iterator[str]:
    """To this machine there are as many source addresses as we like, each with ports of its own."""
    if target.loopback and machine.ports < PORTS_OF_ADDRESS:
        yield (
            f"ports: net.ipv4.ip_local_port_range has {machine.ports}, and {PORTS_OF_ADDRESS} are wanted; "
            'widen it: sysctl -w net.ipv4.ip_local_port_range="1024 65535"'
        )
    elif not target.loopback and options.members > machine.ports * len(target.endpoints):
        first, members = target.endpoints[0], options.members // len(target.endpoints)
        yield (
            f"ports: {members} connections to {first.address}:{first.port} are more than the {machine.ports} ports of "
            'this machine; sysctl -w net.ipv4.ip_local_port_range="1024 65535", or use several machines'
        )


def _memory(options: BenchOptions, target: Target, machine: Machine, server: OwnServer | None) -> Iterator[str]:
    if machine.memory is None:
        return
    ends = 2 if target.loopback else 1
    wanted = options.members * (BYTES_OF_GENERATOR + ends * BYTES_OF_KERNEL) + options.processes * BYTES_OF_PROCESS
    if server is not None:
        wanted += options.members * BYTES_OF_SERVER + server.workers * BYTES_OF_PROCESS
    if wanted > machine.memory:
        yield (
            f"memory: about {wanted / 1e9:.1f} GB are wanted and {machine.memory / 1e9:.1f} GB are free; "
            "lower --members, or put server and bench on machines of their own"
        )


def cautions(options: BenchOptions, machine: Machine, server: OwnServer | None) -> Iterator[str]:
    """What does not keep the run from being done, but has to be said beside its figures."""
    busy = options.processes + (server.workers if server is not None else 0)
    if busy > machine.cpus:
        yield (
            f"CPU: {busy} processes share {machine.cpus} CPUs, so that server and generators slow each other down; "
            "compare runs, but do not take the figures for what the server can do"
        )
