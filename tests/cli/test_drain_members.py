"""Two hundred members over a rolling restart, some of whom read nothing: the small form of a benchmark."""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.drain import drain


@pytest.mark.redis
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for foreign processes as Linux can")
@pytest.mark.parametrize("way", ["rolling", "worker"])
def test_nobody_loses_a_message_and_all_come_back_spread(way: str) -> None:
    settings = ["drain_timeout=3", "close_timeout=1", "reconnect_rate=100"]
    outcome = drain(way, members=200, stalled=10, rate=50, settings=settings)
    assert (outcome.lost, outcome.duplicates, outcome.exit_code) == (0, 0, 0)
    counts = outcome.counts
    assert (counts.not_recovered, counts.gaps) == (0, 0)
    assert counts.recovered > 50
    assert len(outcome.drains) == (2 if way == "rolling" else 1)
    assert max(outcome.drains) < 3 + 3  # with time for the process to end on a busy machine
    first_wave = [at - counts.returns[0] for at in counts.returns if at - counts.returns[0] < 1.5]
    assert max(first_wave) > 0.5  # some 100 members at 100 a second
