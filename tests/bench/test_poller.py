from __future__ import annotations

import socket

import pytest

from trioroom.bench.poller import Poller, SelectorsPoller, open_poller


@pytest.fixture(params=[open_poller, SelectorsPoller])
def poller(request: pytest.FixtureRequest) -> Poller:
    made: Poller = request.param()
    return made


def test_readiness_is_told_for_what_is_watched(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.watch(ours.fileno(), writing=True)
        assert [descriptor for descriptor, _ in poller.poll(0, 10)] == [ours.fileno()]
        poller.turn_to_reading(ours.fileno())
        assert poller.poll(0, 10) == []
        theirs.send(b"x")
        assert [descriptor for descriptor, _ in poller.poll(5, 10)] == [ours.fileno()]
        poller.forget(ours.fileno())
        assert poller.poll(0, 10) == []
        poller.close()


def test_at_most_so_many_are_told_at_a_time_and_the_others_next(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, theirs in pairs:
        poller.watch(ours.fileno())
        theirs.send(b"x")
    found = set[int]()
    for most in (2, 1):
        ready = [descriptor for descriptor, _ in poller.poll(5, most)]
        assert len(ready) == most
        for descriptor in ready:
            poller.forget(descriptor)
        found.update(ready)
    assert found == {ours.fileno() for ours, _ in pairs}
    poller.close()
    for pair in pairs:
        for end in pair:
            end.close()
