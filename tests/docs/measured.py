"""Measured points that `docs/examples/capacity_model.py` is held to, and how each was measured.

All of them on one machine: two cores of a cloud VM with 24 GiB, Linux 6.18, Python 3.11.7, the server on one core
and its peers on the other one, over loopback, where the kernel does the receiver's part in the sender's time.
Others used the machine at the same time, so that CPU seconds and medians are to be trusted, and rates and 99th
percentiles less: the factors in `test_capacity.py` are as wide as that asks for.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Pass:
    """CPU of a pass for each member; `python -m tests.benchmarks.passes`."""

    members: int
    messages: int
    payload: int
    seconds: float


@attrs.frozen
class Last:
    """Time to the last member at random times; `python -m tests.benchmarks.last_member`."""

    members: int
    rate: float
    payload: int
    p50: float
    p99: float


@attrs.frozen
class Share:
    """CPU of one publication through Redis 7; `python -m tests.benchmarks.broker_share`."""

    nodes: int
    payload: int
    broker: float
    publishing: float
    hearing: float


@attrs.frozen
class Rate:
    """Deliveries a second with one message in flight, where each pass carries one."""

    members: int
    per_second: float
    source: str


PASSES = (
    Pass(100, 1, 128, 8.66e-6),
    Pass(100, 8, 128, 8.27e-6),
    Pass(100, 32, 128, 12.67e-6),
    Pass(100, 128, 128, 31.96e-6),
    Pass(1_000, 1, 128, 8.41e-6),
    Pass(1_000, 8, 128, 6.52e-6),
    Pass(1_000, 32, 128, 7.89e-6),
    Pass(1_000, 128, 128, 11.17e-6),
    Pass(10_000, 1, 128, 8.95e-6),
    Pass(10_000, 8, 128, 9.89e-6),
    Pass(10_000, 32, 128, 9.67e-6),
    Pass(10_000, 128, 128, 8.64e-6),
    Pass(100, 1, 1_024, 7.21e-6),
    Pass(100, 8, 1_024, 9.41e-6),
    Pass(100, 32, 1_024, 19.20e-6),
    Pass(100, 128, 1_024, 112.77e-6),  # 131 KB are more than the kernel takes: from here on with an outbox
    Pass(1_000, 1, 1_024, 6.89e-6),
    Pass(1_000, 8, 1_024, 7.93e-6),
    Pass(1_000, 32, 1_024, 11.58e-6),
    Pass(1_000, 128, 1_024, 103.06e-6),
    Pass(10_000, 1, 1_024, 8.99e-6),
    Pass(10_000, 8, 1_024, 7.09e-6),
    Pass(10_000, 32, 1_024, 12.67e-6),
    Pass(10_000, 128, 1_024, 98.27e-6),
    Pass(1_000, 1, 8_192, 8.73e-6),
    Pass(1_000, 8, 8_192, 18.68e-6),
)

LAST = (
    Last(1_000, 20, 128, 8.6e-3, 18.5e-3),
    Last(1_000, 100, 128, 9.8e-3, 36.9e-3),
)
"""Others had a tenth of the server's core at most, which the benchmark tells."""

LAST_BESIDE_OTHERS = (
    Last(100, 100, 128, 0.7e-3, 5.7e-3),
    Last(100, 500, 128, 1.0e-3, 11.1e-3),
    Last(100, 1_000, 128, 2.1e-3, 19.5e-3),
    Last(1_000, 20, 128, 10.2e-3, 38.0e-3),
    Last(1_000, 50, 128, 7.3e-3, 26.2e-3),
    Last(1_000, 100, 128, 10.7e-3, 80.0e-3),
    Last(1_000, 200, 128, 10.8e-3, 65.3e-3),
    Last(1_000, 500, 128, 23.0e-3, 39.6e-3),
    Last(10_000, 2, 128, 117.9e-3, 266.4e-3),
    Last(10_000, 5, 128, 176.7e-3, 390.3e-3),
    Last(10_000, 20, 128, 178.9e-3, 364.6e-3),
    Last(10_000, 100, 128, 204.3e-3, 461.7e-3),
)
"""Others had a part of it that was not noted. Waiting for the core is no part of the model, so that these bound it
from above, and are near only in the median."""

SHARES = (
    Share(1, 128, 0.92e-6, 7.17e-6, 5.62e-6),
    Share(10, 128, 2.84e-6, 7.88e-6, 5.94e-6),
    Share(50, 128, 9.72e-6, 8.59e-6, 6.28e-6),
    Share(1, 1_024, 1.69e-6, 7.98e-6, 6.67e-6),
    Share(50, 1_024, 28.17e-6, 13.92e-6, 9.62e-6),
)

RATES = (
    Rate(1_000, 154_900, "README.md: tests.benchmarks.side_by_side, median of three rounds"),
    Rate(10_000, 124_000, "README.md: the same"),
)

MEMBER_BYTES = (4_640, 4_660, 4_675, 4_690)
"""At rest, 10,000 of them: `trioroom bench idle --members 10000`, README.md, and the bench again twice."""
KERNEL_BYTES = (3_100, 3_434, 3_712)
"""Of one end: a million connections held; half of both ends in `trioroom bench idle`; the sum of the slab objects
TCP, sock_inode_cache, filp, dentry and eventpoll_epi."""
HANDSHAKES = (120e-6, 125e-6)
"""CPU seconds, decisions/0011: heads with a cookie or a header of a proxy. Those that are alike take half of it."""
HEARTBEATS = (33.4e-6, 30.1e-6, 28.7e-6)
"""CPU seconds of a ping and its pong: 9,703 members at rest for 20 s with a ping_interval of 10 s, before the pong was
known at a glance; 6,000 members every 2 s, twice."""
ECHOES = (1 / 71_200, 14.7e-6, 1 / 67_000, 1 / 43_000)
"""CPU seconds of a message in and out: README.md, `trioroom bench echo`, and the bench on a busier machine."""
