"""What befalls the servers, and when: a pure function of a seed, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

import attrs

NODES: Final = 2
WARM_UP: Final = 3.0
"""Seconds without faults at the beginning."""
PAUSE: Final = 1.8
"""Seconds between the beginnings of two faults, on average."""
REST: Final = 1.0
"""Seconds that what has been hit is left alone afterwards."""


@attrs.frozen
class Fault:
    """One of them."""

    at: float
    """Seconds since the beginning."""
    kind: str
    """See `KINDS`."""
    lasts: float
    """Seconds until it is undone: a process that was killed is started again then, and so on."""
    node: int | None = None
    """Which node, or the link of which; None is the broker, or none in particular."""
    count: int = 0
    """Peers, where it is they who make it."""

    def __str__(self) -> str:
        where = "" if self.node is None else f" node {self.node}"
        many = f" ×{self.count}" if self.count else ""
        return f"{self.at:6.1f} s  {self.kind}{where}{many}, {self.lasts:.1f} s"


@attrs.frozen
class Kind:
    """How faults of a kind are drawn."""

    weight: int
    lasts: tuple[float, float]
    """Seconds at least and at most."""
    hits: str
    """``node``, ``link``, ``broker``: what has no second fault meanwhile; ``members`` may have several."""
    count: tuple[int, int] = (0, 0)


KINDS: Final[dict[str, Kind]] = {
    "kill node": Kind(4, (0.2, 4.0), "node"),
    "drain node": Kind(3, (0.2, 3.0), "node"),
    "stop node": Kind(5, (0.5, 8.0), "node"),
    "no files": Kind(3, (1.0, 5.0), "node"),
    "jump clock": Kind(2, (1.0, 5.0), "node", (-7_200, 7_200)),
    "silence link": Kind(5, (1.0, 8.0), "link"),
    "reset link": Kind(5, (0.1, 0.1), "link"),
    "kill broker": Kind(3, (0.2, 4.0), "broker"),
    "kill and empty broker": Kind(2, (0.2, 4.0), "broker"),
    "stop broker": Kind(4, (0.5, 6.0), "broker"),
    "slow readers": Kind(5, (1.0, 7.0), "members", (2, 8)),
    "storm": Kind(5, (1.0, 3.0), "members", (50, 300)),
    "put out": Kind(3, (0.1, 0.1), "members"),
}
"""By name."""


def plan(seed: int, minutes: float) -> tuple[Fault, ...]:
    """The faults of a run, by their time; all are over when it ends."""
    return tuple(_draw(random.Random(seed), minutes * 60.0))


def _draw(chance: random.Random, end: float) -> Iterator[Fault]:
    free_at: dict[str, float] = {}
    at = WARM_UP
    while (at := at + chance.expovariate(1 / PAUSE)) < end:
        [name] = chance.choices(list(KINDS), [kind.weight for kind in KINDS.values()])
        kind = KINDS[name]
        lasts = round(min(chance.uniform(*kind.lasts), end - at), 1)
        node = None if kind.hits == "broker" else chance.randrange(NODES)
        fault = Fault(round(at, 1), name, lasts, node, _count(chance, kind))
        hit = f"{kind.hits} {node}"
        if kind.hits == "members":
            yield fault
        elif free_at.get(hit, 0.0) <= at:
            free_at[hit] = at + lasts + REST
            yield fault


def _count(chance: random.Random, kind: Kind) -> int:
    draw: Callable[[int, int], int] = chance.randint
    return draw(*kind.count)
