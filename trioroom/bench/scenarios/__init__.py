"""What the load is, one module for each scenario; `SCENARIOS` has them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trioroom.bench.options import Scenario
from trioroom.bench.scenarios.base import Play
from trioroom.bench.scenarios.churn import Churn
from trioroom.bench.scenarios.echo import Echo
from trioroom.bench.scenarios.fanout import Fanout
from trioroom.bench.scenarios.idle import Connect, Idle
from trioroom.bench.scenarios.recovery import Recovery
from trioroom.bench.scenarios.rooms import Rooms

SCENARIOS: Mapping[Scenario, type[Play]] = MappingProxyType({
    Scenario.CONNECT: Connect,
    Scenario.IDLE: Idle,
    Scenario.FANOUT: Fanout,
    Scenario.ECHO: Echo,
    Scenario.ROOMS: Rooms,
    Scenario.CHURN: Churn,
    Scenario.RECOVERY: Recovery,
})  # fmt: skip
