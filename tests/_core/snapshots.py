"""Snapshots of nodes that nobody runs."""

from __future__ import annotations

from typing import Any

from trioroom._core.overflow import Overflow
from trioroom._core.snapshot import BusyRoom, SlowConnection, Snapshot
from trioroom._core.statistics import Deliveries


def make_snapshot(node: str, **changed: Any) -> Snapshot:
    """Of a node that has been up for ten seconds, is called as its id says, and does a little of everything."""
    figures: dict[str, Any] = {
        "node": node,
        "label": f"host:{node}",
        "version": "0.1.0",
        "time": 1_800_000_000.0,
        "uptime": 10.0,
        "draining": False,
        "backplane_ready": True,
        "connections": 3,
        "max_connections": 1_000,
        "refused_connections": 0,
        "rooms": 1,
        "members": 3,
        "messages_received": 20,
        "deliveries": {policy.value: Deliveries(60, 50, 5, 3, 2, 1) for policy in (Overflow.DISCONNECT,)},
        "queued_bytes": 4_096,
        "max_queued_bytes": 10**9,
        "loop_lag": 0.002,
        "cpu_seconds": 1.0,
        "resident_bytes": 50 << 20,
        "open_files": 20,
        "max_open_files": 1_024,
        "busy_rooms": [BusyRoom("chat/lobby", 3, 0, 60)],
        "slow_connections": [SlowConnection("00c0ffee", 5, 1_000, 1.5)],
    }
    return Snapshot(**{**figures, **changed})
