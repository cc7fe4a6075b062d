"""What is seen of the server from outside: its processes' memory and files, and its own metrics."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.processes import open_files, resident_bytes

API_KEY = "soak-of-twenty-minutes"
_TIMEOUT = 10.0  # seconds for an answer to /metrics


@attrs.frozen
class Sample:
    """A moment."""

    at: float
    """Seconds since the beginning."""
    resident: Mapping[int, int]
    """Bytes by process."""
    files: Mapping[int, int]
    """Open files by process."""
    metrics: Mapping[str, float]
    """Sums over workers and labels, by the name of the sample; empty if nobody answered."""


def children_of(pid: int) -> Iterator[int]:
    """All that it has started, and what those have."""
    for thread in Path(f"/proc/{pid}/task").iterdir():  # each has those that it has started
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from children_of(int(child))


def name_of(pid: int, server: int) -> str:
    """What a process of the server is there for."""
    if pid == server:
        return "parent"
    return "fork server" if any(True for _ in children_of(pid)) else f"worker {pid}"


def look(began: float, server: int, port: int) -> Sample:
    """See how it is now."""
    pids = [server, *children_of(server)]
    return Sample(
        time.monotonic() - began,
        {pid: resident_bytes(pid) for pid in pids},
        {pid: open_files(pid) for pid in pids},
        read_metrics(port),
    )


def read_metrics(port: int) -> dict[str, float]:
    """Each sample's sum over its labels."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {API_KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums
