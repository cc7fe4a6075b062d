"""What the command line asks for, and the part of it that one generator process does."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType

import attrs
from attrs import validators


class Scenario(enum.Enum):
    """What the load is."""

    CONNECT = "connect"
    IDLE = "idle"
    FANOUT = "fanout"
    ECHO = "echo"
    ROOMS = "rooms"
    CHURN = "churn"
    RECOVERY = "recovery"


class Protocol(enum.Enum):
    """How it is spoken."""

    PLAIN = "plain"
    V1 = "v1"


DEFAULT_MEMBERS: Mapping[Scenario, int] = MappingProxyType({
    Scenario.CONNECT: 1_000,
    Scenario.IDLE: 10_000,
    Scenario.FANOUT: 1_000,
    Scenario.ECHO: 100,
    Scenario.ROOMS: 1_000,
    Scenario.CHURN: 200,
    Scenario.RECOVERY: 200,
})  # fmt: skip
"""Small enough for a laptop, large enough for the figures to mean something."""

_COUNT = validators.and_(validators.instance_of(int), validators.gt(0))


@attrs.frozen(kw_only=True)
class BenchOptions:
    """A whole run; each is the option of that name."""

    scenario: Scenario
    members: int = attrs.field(validator=_COUNT)
    """Connections in all, each a member of one room."""
    processes: int = attrs.field(default=1, validator=_COUNT)
    """Generator processes."""
    payload: int = attrs.field(default=128, validator=validators.ge(1))
    """Bytes of a message."""
    messages: int | None = attrs.field(default=None, validator=validators.optional(_COUNT))
    """Publications in all; None is as many as ``duration`` allows."""
    in_flight: int = attrs.field(default=1, validator=_COUNT)
    """Messages under way at a time: of the room, of each room, of each connection."""
    duration: float = attrs.field(default=5.0, validator=[validators.gt(0), validators.lt(math.inf)])
    """Seconds of load."""
    rate: float = attrs.field(default=100.0, validator=validators.gt(0))
    """Members that leave and are replaced, a second, in all; of the scenario ``churn``."""
    room_size: int = attrs.field(default=5, validator=validators.ge(2))
    """Members of a room; of the scenario ``rooms``."""
    protocol: Protocol = Protocol.PLAIN
    token: str | None = None
    """For rooms that ask who joins."""
    handshakes: int = attrs.field(default=64, validator=_COUNT)
    """Opening handshakes that one process has under way at a time."""
    patience: float = attrs.field(default=15.0, validator=validators.gt(0))
    """Seconds without any progress after which a step is given up."""

    def __attrs_post_init__(self) -> None:
        if self.scenario is Scenario.RECOVERY and self.protocol is not Protocol.V1:
            raise ValueError("positions are a part of protocol v1; add --protocol v1")
        if self.scenario in (Scenario.FANOUT, Scenario.RECOVERY) and self.members < 2:
            raise ValueError(f"{self.scenario.value} needs one who publishes and one who gets it; give 2 --members")
        if self.members < self.processes * self.unit:
            raise ValueError(f"{self.members} members are too few for {self.processes} processes; lower --processes")

    @property
    def unit(self) -> int:
        """Members that have to be in one process: a whole room of the scenario ``rooms``."""
        return self.room_size if self.scenario is Scenario.ROOMS else 1

    @property
    def shares(self) -> tuple[Share, ...]:
        """What each process does, as even as may be. Of ``rooms`` whole rooms, so that a few may be missing."""
        units = self.members // self.unit
        bounds = [units * process // self.processes * self.unit for process in range(self.processes + 1)]
        return tuple(Share(self, number, bounds[number], bounds[number + 1]) for number in range(self.processes))


@attrs.frozen
class Share:
    """The part of one process."""

    options: BenchOptions
    process: int
    """Its number, from 0; the first one publishes where there is one publisher."""
    first: int
    """The number of its first member among all."""
    end: int
    """That of the one behind its last."""

    @property
    def members(self) -> int:
        """How many are its own."""
        return self.end - self.first

    @property
    def rate(self) -> float:
        """Its part of what is asked of all, a second."""
        return self.options.rate * self.members / self.options.members
