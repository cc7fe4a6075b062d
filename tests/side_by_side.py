"""Processes that share the tests, run by pytest-xdist: how many there are, and what each has for itself."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

MAX_WORKERS: Final = 8  # the longest tests take as long as all others would then

# Below the ports that Linux and macOS give to outgoing connections, and so are their cluster bus ports, 10,000 higher.
# Else a client that keeps trying to reach a dead server could be connected to itself, and leave the port taken when the
# server is to come back.
_PORTS: Final = range(12_000, 22_000)


def worker_count(arguments: Sequence[str], cores: int) -> int:
    """How many workers are to run what ``arguments`` name: four for each core, as most of the time tests only wait.

    None, 0, for single files, which are through before workers would have started.
    """
    if any(not Path(argument).is_dir() for argument in arguments):
        return 0
    return min(4 * cores, MAX_WORKERS)


def own_part_first(everything: Sequence[T], environment: Mapping[str, str] = os.environ) -> list[T]:
    """All of it in an order in which this worker comes to its part before the others do."""
    number, count = _place(environment)
    start = len(everything) * number // count
    return [*everything[start:], *everything[:start]]


_LONGEST: Final = ("backplane/kafka/test_presence_nodes", "backplane/kafka/")


def turn(path: str) -> int:
    """When the tests below ``path`` are to begin, 0 first: all others would wait for who has the longest at the end."""
    return next((number for number, start in enumerate(_LONGEST) if path.startswith(start)), len(_LONGEST))


def own_ports(environment: Mapping[str, str] = os.environ) -> list[int]:
    """Ports that no other worker of this run hands out, in an order of chance.

    A port is found to be free a moment before its server takes it, and a server that was killed is to find it free
    again: two workers would come into conflict now and then. No seed, as test runs go on side by side too.
    """
    number, count = _place(environment)
    ports = list(_PORTS[number::count])
    random.SystemRandom().shuffle(ports)
    return ports


def _place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which worker this is, counted from 0, and of how many."""
    number = environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(number), int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
