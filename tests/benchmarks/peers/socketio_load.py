"""The load of ``trioroom bench`` for servers that speak Socket.IO over WebSocket.

    python -m tests.benchmarks.peers.socketio_load SCENARIO URL --json FILE [--members N] [--in-flight N] [--duration S]

The generator is the bench's own, with its scenarios, its clocks and its way to count. What differs is on the wire:
a member is one when the server has answered its CONNECT to the main namespace, and a message is an event. Socket.IO's
packets are text frames, "42" and a JSON array for an event, so that the bench counts them as it counts all frames. Its
pings would be counted too, so servers under this load must not send any meanwhile.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode
from trioroom.bench.conductor import run_bench
from trioroom.bench.handshakes import Answer, Handshake
from trioroom.bench.machine import look_at_machine
from trioroom.bench.options import BenchOptions, Protocol, Scenario
from trioroom.bench.result import Result
from trioroom.bench.scenarios.base import Play, Step
from trioroom.bench.scenarios.echo import Echo
from trioroom.bench.scenarios.fanout import Fanout
from trioroom.bench.scenarios.idle import Connect, Idle
from trioroom.bench.tally import Counts
from trioroom.bench.target import Target, parse_target

CONNECT = encode_masked(Opcode.TEXT, b"40")
"""To the main namespace. Engine.IO's packet type 4 is a message, Socket.IO's type 0 is CONNECT."""
_ANSWERS = 2
"""Packets before the first event: Engine.IO's open, and the answer to CONNECT."""


@attrs.frozen
class SocketIOTarget(Target):
    """A server that speaks Socket.IO."""

    event: str = "all"

    def message(self, number: int, payload: int, id: int | None = None) -> bytes:
        """An event whose argument has so many bytes, as a frame."""
        packet = f"42{json.dumps([self.event, 'x' * payload], separators=(',', ':'))}"
        return encode_masked(Opcode.TEXT, packet.encode())


class _InNamespace(Play):
    """Members who connect to the main namespace before anything else."""

    def open(self) -> None:
        """Connect all members, and wait until the server has let them all into the namespace."""
        self._answers: dict[int, int] = {}
        self.opening.on_joined = self._connect
        self.swarm.on_messages = self._hear
        self.swarm.on_lost = lambda descriptor, number: self._answers.pop(descriptor, None)
        super().open()
        self.drive(lambda: not self._answers, "the answers to CONNECT")
        self.swarm.on_messages = lambda descriptor, count: None
        self.tally.counts.received = 0

    def _connect(self, handshake: Handshake, answer: Answer) -> None:
        """Send it behind the opening handshake."""
        self._answers[handshake.descriptor] = _ANSWERS
        self.swarm.send(handshake.descriptor, CONNECT)

    def _hear(self, descriptor: int, count: int) -> None:
        self.tally.counts.received += count  # which is progress
        self._answers[descriptor] -= count
        if self._answers[descriptor] <= 0:
            del self._answers[descriptor]


class _Connect(_InNamespace, Connect):
    pass


class _Idle(_InNamespace, Idle):
    pass


class _Echo(_InNamespace, Echo):
    pass


class _Fanout(_InNamespace, Fanout):
    pass


PLAYS: Mapping[Scenario, type[Play]] = MappingProxyType({
    Scenario.CONNECT: _Connect,
    Scenario.IDLE: _Idle,
    Scenario.ECHO: _Echo,
    Scenario.FANOUT: _Fanout,
})  # fmt: skip
"""What may be asked of such a server."""


class _Silent:
    """A `Watcher` who shows nothing: the comparison has its own line."""

    def begin(self, step: Step) -> None:
        """See `Watcher`."""

    def move(self, counts: Counts, elapsed: float) -> None:
        """See `Watcher`."""


def run(options: BenchOptions, url: str) -> Result:
    """All steps of one scenario, from one generator process."""
    event = "echo" if options.scenario is Scenario.ECHO else "all"
    plain = parse_target([url], Protocol.PLAIN)
    target = SocketIOTarget(plain.endpoints, plain.path, plain.protocol, event=event)
    return run_bench(options, target, _Silent(), look_at_machine().description, scenario=PLAYS[options.scenario])


def main() -> None:
    """Measure, and write the result as ``trioroom bench --json`` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[scenario.value for scenario in PLAYS])
    parser.add_argument("url")
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--duration", type=float, default=5.0)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    options = BenchOptions(
        scenario=Scenario(arguments.scenario),
        members=arguments.members,
        in_flight=arguments.in_flight,
        duration=arguments.duration,
    )
    result = run(options, arguments.url)
    arguments.json.write_text(json.dumps(result.as_json()))


if __name__ == "__main__":
    main()
