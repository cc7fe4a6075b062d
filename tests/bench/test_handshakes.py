from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from tests.bench.conftest import options_for
from trioroom.bench.handshakes import Wanted
from trioroom.bench.options import Protocol, Scenario
from trioroom.bench.pulse import Stalled
from trioroom.bench.scenarios.base import Play

OpenPlay = Callable[..., Play]


def reasons_of(play: Play) -> str:
    play.open()
    assert play.tally.counts.opened == 0
    assert play.tally.counts.failed == play.share.members
    return "\n".join(play.tally.reasons)


def test_no_server_is_a_failure_of_each(open_play: OpenPlay) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert reasons_of(open_play(options_for(Scenario.CONNECT), f"ws://127.0.0.1:{port}/")) == "Connection refused"


def test_answer_that_is_no_upgrade_is_told(open_play: OpenPlay, server_port: int) -> None:
    url = f"ws://127.0.0.1:{server_port}/nowhere"
    assert "HTTP 404" in reasons_of(open_play(options_for(Scenario.CONNECT), url))


def test_refused_join_is_told(open_play: OpenPlay, server_port: int) -> None:
    url = f"ws://127.0.0.1:{server_port}/nowhere"
    told = reasons_of(open_play(options_for(Scenario.CONNECT, protocol=Protocol.V1), url))
    assert told.startswith("unknown_room: no room is called 'nowhere'")


def test_server_that_closes_in_the_handshake_is_told(open_play: OpenPlay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):
                accepted, _ = server.accept()
                accepted.recv(4_096)
                accepted.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        told = reasons_of(open_play(options_for(Scenario.CONNECT, members=2), url))
        thread.join()
    assert told == "closed by the server in the handshake"


def test_server_that_says_nothing_is_given_up(open_play: OpenPlay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        play = open_play(options_for(Scenario.CONNECT, members=3, handshakes=2, patience=0.3), url)
        with pytest.raises(Stalled):
            play.open()
        play.opening.give_up("no answer")
        assert (play.opening.left, play.tally.counts.failed, play.tally.reasons["no answer"]) == (0, 3, 3)
        play.opening.give_up("no answer")
        assert play.tally.counts.failed == 3


def test_only_so_many_handshakes_are_under_way_at_a_time(open_play: OpenPlay) -> None:
    play = open_play(options_for(Scenario.CONNECT, members=20, handshakes=3))
    play.opening.want([Wanted(number, 0) for number in range(20)])
    most = 0
    while play.opening.left:
        most = max(most, len(play.swarm.pending))
        play.swarm.turn(0.05)
    assert most == 3
    assert play.tally.counts.opened == 20
