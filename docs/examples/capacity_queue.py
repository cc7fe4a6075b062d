"""How long messages take to the last member of a room, when they come at random and one core makes all passes."""

from __future__ import annotations

import math
import random
from collections import deque
from functools import cache
from statistics import quantiles

import attrs
from capacity_model import Plan, other_cpu, pass_cpu

MAX_BATCH = 512  # publications in one pass
MAX_BATCH_BYTES = 1 << 18  # of payload
MESSAGES = 4_000  # of a simulation


@attrs.frozen
class Delays:
    """What came of a simulation."""

    p50: float
    """Seconds to the last member."""
    p99: float
    """The same, of all but one in a hundred."""
    batch: float
    """Messages in a pass, on average."""
    busy: float
    """Share of the core that passes and all else take."""
    behind: bool
    """Whether messages came faster than they went, so that the delays grow with time."""


@cache
def simulate(plan: Plan, messages: int = MESSAGES, seed: int = 1) -> Delays:
    """One worker: each pass takes all that waits of the room that waits longest, while messages go on coming.

    Heartbeats and the rest make each pass as much longer as they take of the core. Rooms take turns by whole passes
    here; in truth large rooms give way to small ones some hundred members at a time, so that those fare better.
    """
    if other_cpu(plan) >= 1:  # before any pass is made
        return Delays(p50=math.inf, p99=math.inf, batch=1.0, busy=1.0, behind=True)
    chance = random.Random(seed)
    slower = 1 / (1 - other_cpu(plan))
    rate = plan.rooms_per_worker * plan.rate
    largest = min(MAX_BATCH, max(1, MAX_BATCH_BYTES // max(1, plan.payload)))
    due = chance.expovariate(rate)
    waiting: dict[int, deque[float]] = {}  # by room: when each came; the first room has waited longest
    now = fan_out = 0.0
    took: list[float] = []
    passes = 0
    while len(took) < messages:
        if not waiting:
            now = max(now, due)
        while due <= now:
            waiting.setdefault(chance.randrange(plan.rooms_per_worker), deque()).append(due)
            due += chance.expovariate(rate)
        room = next(iter(waiting))
        came = waiting.pop(room)
        batch = [came.popleft() for _ in range(min(largest, len(came)))]
        spent = pass_cpu(plan.costs, plan.members_per_pass, len(batch), plan.payload)
        now += spent * slower
        fan_out += spent
        passes += 1
        took += [now - at for at in batch]
        if came:
            waiting[room] = came  # behind the others
    hundredths = quantiles(took, n=100)
    later, earlier = (max(half) for half in (took[len(took) // 2 :], took[: len(took) // 2]))
    return Delays(
        p50=hundredths[49],
        p99=hundredths[98],
        batch=len(took) / passes,
        busy=min(1.0, fan_out / now + other_cpu(plan)),
        behind=later > 1.5 * earlier and fan_out / now + other_cpu(plan) > 0.99,
    )
