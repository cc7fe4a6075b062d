"""Each scenario in this process, against a server in another one: do the counts add up?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.bench.conftest import options_for, take_all_steps
from trioroom.bench.options import Protocol, Scenario
from trioroom.bench.pulse import Stalled
from trioroom.bench.scenarios.base import Play
from trioroom.bench.scenarios.recovery import MISSED
from trioroom.bench.tally import Counts

OpenPlay = Callable[..., Play]
BOTH = pytest.mark.parametrize("protocol", list(Protocol))


def check_all_got(counts: Counts) -> None:
    """Each of 20 members got all; the publisher, for whom nobody waits, maybe not yet the last ones."""
    assert 19 * counts.sent <= counts.received <= 20 * counts.sent


@pytest.mark.parametrize("scenario", [Scenario.CONNECT, Scenario.IDLE])
@BOTH
def test_members_join_and_stay(open_play: OpenPlay, scenario: Scenario, protocol: Protocol) -> None:
    tally = take_all_steps(open_play(options_for(scenario, protocol=protocol, token="secret")))
    assert (tally.counts.opened, tally.counts.failed, tally.counts.closed) == (20, 0, 0)
    assert tally.handshakes.total == 20
    assert tally.counts.received == 0


@BOTH
def test_idle_members_get_a_few_messages_if_asked_for(open_play: OpenPlay, protocol: Protocol) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.IDLE, messages=2, duration=1.0, protocol=protocol)))
    assert (tally.counts.closed, tally.counts.sent, tally.whole.total) == (0, 2, 2)
    check_all_got(tally.counts)


@BOTH
@pytest.mark.parametrize("in_flight", [1, 8])
def test_fanout_delivers_each_message_to_each_member(open_play: OpenPlay, protocol: Protocol, in_flight: int) -> None:
    options = options_for(Scenario.FANOUT, protocol=protocol, in_flight=in_flight)
    counts = (tally := take_all_steps(open_play(options))).counts
    assert counts.sent > 0
    check_all_got(counts)
    assert tally.latencies.total == 19 * counts.sent
    assert tally.whole.total == counts.sent
    assert tally.latencies.longest <= tally.whole.longest + 0.1


def test_fanout_ends_after_so_many_messages(open_play: OpenPlay) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.FANOUT, messages=7, duration=30.0, in_flight=4)))
    assert (tally.counts.sent, tally.whole.total) == (7, 7)
    check_all_got(tally.counts)


def test_fanout_counts_large_messages_that_come_in_parts(open_play: OpenPlay) -> None:
    options = options_for(Scenario.FANOUT, payload=60_000, messages=20, duration=30.0, in_flight=10)
    tally = take_all_steps(open_play(options))
    assert tally.counts.sent == 20
    check_all_got(tally.counts)


@BOTH
@pytest.mark.parametrize("in_flight", [1, 3])
def test_echo_gets_an_answer_to_each_message(open_play: OpenPlay, protocol: Protocol, in_flight: int) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.ECHO, protocol=protocol, in_flight=in_flight)))
    assert tally.counts.sent > 20
    assert tally.counts.received == tally.counts.sent == tally.latencies.total


def test_echo_ends_after_so_many_messages(open_play: OpenPlay) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.ECHO, messages=50, duration=30.0)))
    assert (tally.counts.sent, tally.counts.received) == (50, 50)


@BOTH
def test_rooms_deliver_to_their_own_members(open_play: OpenPlay, protocol: Protocol) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.ROOMS, protocol=protocol, in_flight=2)))
    assert tally.counts.sent > 4
    assert tally.latencies.total == 4 * tally.counts.sent
    assert tally.whole.total == tally.counts.sent
    assert tally.counts.received == pytest.approx(5 * tally.counts.sent, abs=2 * 4)  # publishers may get theirs later


def test_rooms_end_after_so_many_messages(open_play: OpenPlay) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.ROOMS, messages=30, duration=30.0, room_size=2)))
    assert (tally.counts.sent, tally.latencies.total) == (30, 30)


@BOTH
def test_churn_replaces_members_one_by_one(open_play: OpenPlay, protocol: Protocol) -> None:
    play = open_play(options_for(Scenario.CHURN, protocol=protocol, rate=200.0))
    tally = take_all_steps(play)
    assert (tally.counts.opened, tally.counts.left, tally.counts.closed) == (60, 40, 0)
    assert (tally.handshakes.total, tally.latencies.total) == (60, 40)
    assert sorted(play.swarm.members.values()) == list(range(20))


def test_recovery_brings_everybody_everything(open_play: OpenPlay) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.RECOVERY)))
    assert (tally.counts.opened, tally.counts.left) == (20 + 19, 19)
    assert (tally.counts.recovered, tally.counts.not_recovered) == (19, 0)
    assert tally.counts.received == 19 * MISSED
    assert tally.latencies.total == 19


def test_recovery_of_more_than_may_wait_is_told(open_play: OpenPlay) -> None:
    tally = take_all_steps(open_play(options_for(Scenario.RECOVERY, messages=3_000)))
    assert (tally.counts.recovered, tally.counts.not_recovered) == (0, 19)


def test_recovery_wants_a_room_with_a_history(open_play: OpenPlay, server_port: int) -> None:
    play = open_play(options_for(Scenario.RECOVERY), f"ws://127.0.0.1:{server_port}/all")
    with pytest.raises(Stalled, match="keeps no history"):
        play.open()


def test_room_that_does_not_publish_to_all_is_told(open_play: OpenPlay, server_port: int) -> None:
    play = open_play(options_for(Scenario.FANOUT, members=3, patience=1.5), f"ws://127.0.0.1:{server_port}/echo")
    play.open()
    with pytest.raises(Stalled, match="does it publish to each"):
        play.warm_up()  # type: ignore[attr-defined]  # of most scenarios


@pytest.mark.parametrize("scenario", [Scenario.FANOUT, Scenario.ECHO, Scenario.ROOMS])
def test_member_that_is_lost_amid_the_load_is_waited_for_no_more(open_play: OpenPlay, scenario: Scenario) -> None:
    play = open_play(options_for(scenario, duration=0.5, in_flight=2))
    *before, load = play.plan(play.options)
    for step in before:
        getattr(play, step.name)()
    beats = 0
    beat = play.pulse.beat

    def disturb(waiting_for: str | None) -> None:
        nonlocal beats
        beats += 1
        if beats == 5:
            victim = next(d for d, number in play.swarm.members.items() if number == 7)
            play.swarm.send(victim, b"\xff\xff" + bytes(20))  # no frame: the server closes it
        beat(waiting_for)

    play.pulse = type("Disturbed", (), {"beat": staticmethod(disturb)})()
    getattr(play, load.name)()
    counts = play.tally.counts
    assert (counts.closed, len(play.swarm.members)) == (1, 19)
    assert "closed by the server with 1002" in next(iter(play.tally.reasons))
    assert counts.received > 20
