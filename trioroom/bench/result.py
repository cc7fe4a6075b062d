"""What came of a run: the numbers, which of them are worth a line, and what to think of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs

from trioroom import __version__
from trioroom.bench.monitor import Sample
from trioroom.bench.options import BenchOptions, Scenario
from trioroom.bench.scenarios import SCENARIOS
from trioroom.bench.tally import StepDone, Tally

BUSY = 0.9
"""Share of a core above which a generator has no time left, so that it may be what is measured."""


@attrs.define
class Measured:
    """A step over all processes."""

    began: float = math.inf
    ended: float = 0.0
    cpu_shares: list[float] = attrs.field(factory=list)
    """Of a core, that each generator used."""

    def add(self, done: StepDone) -> None:
        """One process has done it."""
        self.began = min(self.began, done.began)
        self.ended = max(self.ended, done.ended)
        self.cpu_shares.append(done.cpu / max(done.ended - done.began, 1e-9))

    @property
    def seconds(self) -> float:
        """From the first to begin to the last to end."""
        return max(self.ended - self.began, 1e-9)


@attrs.frozen
class Figure:
    """A line of the table."""

    name: str
    value: float
    unit: str = ""

    @property
    def text(self) -> str:
        """The value with the digits that count."""
        has_fraction = self.value != int(self.value) and abs(self.value) < 100
        return f"{self.value:,.2f}" if self.unit == "ms" or has_fraction else f"{self.value:,.0f}"


@attrs.frozen(kw_only=True)
class Result:
    """A run that is over."""

    options: BenchOptions
    machine: str
    tally: Tally
    steps: dict[str, Measured]
    samples: tuple[Sample, ...]
    complaints: tuple[str, ...]
    """Why it ended before its time, if it did."""
    generator_bytes: int
    """By which all generators have grown."""
    watched_server: bool
    """The server was on this machine."""
    interrupted: bool

    @property
    def measured(self) -> Measured | None:
        """The step that the run is about; None when it was not reached."""
        names = [step.name for step in SCENARIOS[self.options.scenario].plan(self.options) if step.measured]
        return self.steps.get(names[0])

    def figures(self) -> Iterator[Figure]:
        """The table."""
        yield from self._members()
        yield from self._load()
        yield from self._memory()
        yield from self._cpu()

    def _members(self) -> Iterator[Figure]:
        counts = self.tally.counts
        yield Figure("members joined", counts.opened)
        yield Figure("failed to join", counts.failed)
        yield Figure("closed unexpectedly", counts.closed)
        yield Figure("heartbeats answered", counts.pings)
        if (opening := self.steps.get("open")) is not None:
            joined = counts.opened if self.options.scenario not in _COME_AGAIN else self.options.members
            yield Figure("handshakes/s", joined / opening.seconds)
        yield from _times("handshake", self.tally.handshakes.quantile, self.tally.handshakes.total)

    def _load(self) -> Iterator[Figure]:
        counts, measured = self.tally.counts, self.measured
        if measured is None or self.options.scenario is Scenario.CONNECT:
            return
        latency, rate = _NAMES[self.options.scenario]
        if counts.sent:
            yield Figure("messages sent", counts.sent)
        load = self.steps.get("load") if self.options.scenario is Scenario.IDLE else measured
        if rate and load is not None:
            yield Figure(rate, counts.received)
            yield Figure(f"{rate}/s", counts.received / load.seconds)
        if self.options.scenario is Scenario.CHURN:
            yield Figure("members replaced", counts.left)
            yield Figure("members replaced/s", counts.left / measured.seconds)
        if self.options.scenario is Scenario.RECOVERY:
            yield Figure("recovered", counts.recovered)
            yield Figure("not recovered", counts.not_recovered)
            yield Figure("until all were back", measured.seconds, "s")
        yield from _times(latency, self.tally.latencies.quantile, self.tally.latencies.total)
        yield from _times("last member", self.tally.whole.quantile, self.tally.whole.total)

    def _memory(self) -> Iterator[Figure]:
        members = self.tally.counts.opened
        if not members or len(self.samples) < 2 or self.options.scenario in _COME_AGAIN:
            return
        first, last = self.samples[0], self.samples[-1]
        if self.watched_server:
            yield Figure("server memory per member", (last.resident - first.resident) / members, "bytes")
        if self.watched_server and members >= _ENOUGH_TO_SEE:
            yield Figure("kernel memory per member, both ends", (last.kernel - first.kernel) / members, "bytes")
        yield Figure("generator memory per member", self.generator_bytes / members, "bytes")

    def _cpu(self) -> Iterator[Figure]:
        if self.measured is None:
            return
        yield Figure("generator CPU, busiest process", 100 * max(self.measured.cpu_shares, default=0.0), "%")
        if self.watched_server:
            shares = [share for _, share in self.server_cpu()]
            yield Figure("server CPU, highest", 100 * max(shares, default=0.0), "% of a core")

    def server_cpu(self) -> Iterator[tuple[float, float]]:
        """When, and how many cores the server's processes used since the time before."""
        span = self.samples[-1].at - self.samples[0].at if self.samples else 0.0
        yield from self._rates("cpu", min(_CPU_INTERVAL, span / 4))

    def throughput(self) -> Iterator[tuple[float, float]]:
        """When, and messages a second since the time before."""
        yield from self._rates("received")

    def joining(self) -> Iterator[tuple[float, float]]:
        """When, and members who joined a second since the time before."""
        yield from self._rates("opened")

    def _rates(self, name: str, interval: float = 0.05) -> Iterator[tuple[float, float]]:
        """Over at least so many seconds: at the ends of steps there are several samples at almost one time."""
        before = self.samples[0] if self.samples else None
        for after in self.samples[1:]:
            assert before is not None
            if after.at - before.at > interval:
                yield after.at, max(0.0, getattr(after, name) - getattr(before, name)) / (after.at - before.at)
                before = after

    def notes(self) -> Iterator[str]:
        """What to know before believing the figures."""
        if self.interrupted:
            yield "interrupted: what was measured until then"
        for complaint in self.complaints:
            yield f"given up: {complaint}"
        for reason, times in self.tally.reasons.most_common(10):
            yield f"{times} connections: {reason}"
        if self.measured is not None and max(self.measured.cpu_shares, default=0.0) > BUSY:
            yield "the load generator was the bottleneck: a process had no CPU left; add --processes, or more machines"

    @property
    def succeeded(self) -> bool:
        """It was done as asked, and nobody was lost."""
        return not (self.interrupted or self.complaints or self.tally.counts.failed or self.tally.counts.closed)

    def as_json(self) -> dict[str, object]:
        """All of it, for programs. Names and units are those of the table."""
        options = attrs.asdict(self.options, filter=lambda attribute, value: attribute.name != "token")
        return {
            "trioroom": __version__,
            "machine": self.machine,
            "options": {**options, "scenario": self.options.scenario.value, "protocol": self.options.protocol.value},
            "succeeded": self.succeeded,
            "figures": [attrs.asdict(figure) for figure in self.figures()],
            "counts": attrs.asdict(self.tally.counts),
            "notes": list(self.notes()),
            "steps": {name: step.seconds for name, step in self.steps.items()},
            "latencies": list(self.tally.latencies.buckets()),
            "handshakes": list(self.tally.handshakes.buckets()),
            "last_member": list(self.tally.whole.buckets()),
            "samples": [attrs.asdict(sample) for sample in self.samples],
        }


_CPU_INTERVAL = 1.0
"""Seconds over which CPU is told, in a run of a few: to look at fifty processes of a busy machine takes time."""
_ENOUGH_TO_SEE = 5_000
"""Members whose part of the kernel's memory stands out: it is counted for the whole machine."""
_COME_AGAIN = (Scenario.CHURN, Scenario.RECOVERY)  # more joins than members
_NAMES = {
    Scenario.IDLE: ("delivery", "deliveries"),
    Scenario.FANOUT: ("delivery", "deliveries"),
    Scenario.ROOMS: ("delivery", "deliveries"),
    Scenario.ECHO: ("round trip", "round trips"),
    Scenario.CHURN: ("leaving", ""),
    Scenario.RECOVERY: ("recovery", "messages recovered"),
}
"""What latencies are of, and what messages that came are called."""


def _times(name: str, quantile: Callable[[float], float], total: int) -> Iterator[Figure]:
    if total:
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            yield Figure(f"{name} {label}", 1e3 * quantile(share), "ms")
