"""The server's side of a run, looked at from outside: memory, CPU, and what the kernel holds."""

from __future__ import annotations

import time

import attrs

from trioroom.bench.machine import cpu_seconds, kernel_bytes, listeners, resident_bytes
from trioroom.bench.tally import Counts
from trioroom.bench.target import Target


@attrs.frozen
class Sample:
    """A moment of the run."""

    at: float
    """Seconds since it began."""
    opened: int
    """Members who have joined so far, each time they did."""
    received: int
    """Messages so far."""
    resident: int
    """Bytes of the server's processes; 0 if they are elsewhere."""
    kernel: int
    """Bytes of the kernel, for all the machine."""
    cpu: float
    """Seconds the server's processes have used so far."""


@attrs.define
class Monitor:
    """Takes samples; of the server too when it is on this machine and we may look at it."""

    pids: tuple[int, ...]
    began: float = attrs.field(factory=time.monotonic)
    samples: list[Sample] = attrs.field(factory=list)

    def sample(self, counts: Counts) -> Sample:
        """Look at it now."""
        cpu = sum(cpu_seconds(pid) for pid in self.pids)
        at = time.monotonic() - self.began  # beside what has to do with time: the rest may take a while
        resident = sum(resident_bytes(pid) for pid in self.pids)
        taken = Sample(at, counts.opened, counts.received, resident, kernel_bytes(), cpu)
        self.samples.append(taken)
        return taken


def watch_servers(target: Target) -> Monitor:
    """Find the processes behind ``target``; none when they are on another machine, or somebody else's."""
    ports = {endpoint.port for endpoint in target.endpoints}
    return Monitor(listeners(ports) if target.loopback else ())
