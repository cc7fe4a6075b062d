from __future__ import annotations

import multiprocessing

import pytest

from trioroom.bench import pulse as pulse_module
from trioroom.bench.pulse import Pulse, Stalled, Stopped
from trioroom.bench.shared import Shared, open_shared
from trioroom.bench.tally import Counts, Tick


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(pulse_module, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    return now


def shared() -> Shared:
    return open_shared(multiprocessing.get_context("spawn"), 2, 1)


def test_ticks_come_now_and_then(clock: list[float]) -> None:
    ours, theirs = multiprocessing.Pipe()
    counts = Counts(opened=3)
    pulse = Pulse(theirs, 1, counts, shared(), patience=10.0)
    pulse.start()
    pulse.beat(None)
    assert not ours.poll()
    clock[0] += 0.3
    pulse.beat(None)
    assert ours.recv() == Tick(1, counts)
    pulse.beat(None)
    assert not ours.poll()


def test_parent_stops_it_by_a_word_or_its_end(clock: list[float]) -> None:
    for stop in ("word", "end"):
        ours, theirs = multiprocessing.Pipe()
        pulse = Pulse(theirs, 0, Counts(), shared(), patience=10.0)
        pulse.start()
        clock[0] += 1
        if stop == "word":
            ours.send("")
            with pytest.raises(Stopped):
                pulse.beat(None)
        else:
            ours.close()
            with pytest.raises(BrokenPipeError):
                pulse.beat(None)


def test_nothing_but_heartbeats_for_too_long_is_a_stall(clock: list[float]) -> None:
    ours, theirs = multiprocessing.Pipe()
    counts, elsewhere = Counts(), shared()
    pulse = Pulse(theirs, 0, counts, elsewhere, patience=10.0)
    pulse.start()
    for _ in range(20):
        clock[0] += 1
        counts.received += 1
        pulse.beat("messages")
    for _ in range(20):  # the publisher is through, and waits for others
        clock[0] += 1
        elsewhere.completed[1] += 1
        pulse.beat("messages")
    for _ in range(10):
        clock[0] += 1
        counts.pings += 1
        counts.received_bytes += 2
        pulse.beat("messages")
    clock[0] += 1
    pulse.beat(None)  # where it may be that nothing is, nothing is a stall
    clock[0] += 1
    with pytest.raises(Stalled, match="for 10 s while waiting for messages"):
        pulse.beat("messages")
    assert ours.poll()
