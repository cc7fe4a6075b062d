"""A link is up while its probes come round, and comes back when they do not; on a fake network, by a fake clock."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Command, FakeServer, message
from tests.backplane.redis.scenes import ENDPOINT, keep_talking, open_link
from tests.backplane.redis.servers import binaries, open_redis_server
from trioroom.backplane.base import Lost
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis import RedisSettings, open_redis
from trioroom.backplane.redis.resp import RedisConnection
from trioroom.backplane.redis.sources import FixedSource
from trioroom.errors import BackplaneUnavailable

NOTICED = 1.0 + 2.0  # probe_interval + probe_timeout
EPSILON = 0.01


def probes(server: FakeServer) -> list[Command]:
    return [command for command in server.log if command[:2] == [b"PUBLISH", b"probe"]]


# -- up --------------------------------------------------------------------------------------------


async def test_link_is_ready_when_the_first_probe_has_come_round(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        assert (scene.link.ready, scene.link.failure) == (False, None)
        server = await scene.run()
        assert scene.link.ready
        assert scene.changes == [(True, None)]
        assert server.log == [[b"PING"], [b"INFO", b"server"], [b"SUBSCRIBE", b"probe"], [b"PUBLISH", b"probe", b"1"]]
        await trio.sleep(10.5)
        assert probes(server) == [[b"PUBLISH", b"probe", b"%d" % number] for number in range(1, 12)]
        assert (scene.attempts, len(scene.changes)) == (2, 1)


async def test_what_waited_is_published_when_the_rooms_can_hear_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        record, results = scene.room(), list[str]()
        for payload in (b"1", b"2"):
            scene.nursery.start_soon(scene.publish, payload, results)
            await wait_all_tasks_blocked()
        await scene.run()
        assert (record.heard, results) == ([b"1", b"2"], ["done", "done"])


async def test_foreign_noise_on_the_probe_channel_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        server = await scene.run()
        for noise in (b"x", b"", b"9" * 5_000, b"y" * 5_000_000):  # the last one is a gap to the probe
            server.say(message(b"probe", noise), b"probe")
        await trio.sleep(10)
        assert scene.link.ready
        assert scene.attempts == 2


# -- silence ---------------------------------------------------------------------------------------


async def test_silence_is_noticed_within_its_bound_and_the_link_comes_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        record = scene.room()
        server = await scene.run()
        for offset in (0.0, 0.3, 0.6, 0.999):
            await trio.sleep(10 + offset)
            before = scene.attempts
            server.latency = math.inf
            await trio.sleep(1.0 + 1.0 + EPSILON)  # probe_interval + a tick
            assert not scene.link.ready
            assert scene.attempts == before  # not given up yet
            server.latency = 0
            await trio.sleep(NOTICED - 2.0 + EPSILON)
            assert scene.changes[-1 - scene.link.ready] == (False, "fake:1: a probe did not come round within 2 s")
            await trio.sleep(1)  # max_backoff
            assert scene.link.ready
            assert scene.link.failure is None
        assert record.heard == [Lost("backplane")] * 4


async def test_silence_from_the_start_is_noticed(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with open_link(monkeypatch) as scene:
        scene.network.add().latency = math.inf
        await scene.run()
        await trio.sleep(2 + EPSILON)
        assert scene.changes == [(False, "fake:1: no answer to the first command")]


async def test_silence_before_the_channels_are_restored_is_noticed_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        server = scene.network.add()
        server.answers[b"SUBSCRIBE"] = lambda _: b""  # says nothing to it
        await scene.run()
        await trio.sleep(2 + EPSILON)
        assert scene.changes == [(False, "fake:1: subscriptions were not confirmed for 2 s")]


class _Slow(FakeServer):
    """Takes ever longer to confirm."""

    def _obey(self, session, command: Command) -> None:  # type: ignore[no-untyped-def]  # a private type
        if command[0] == b"SUBSCRIBE":
            self.latency += 1.5
        super()._obey(session, command)


async def test_restoring_may_take_long_while_confirmations_come(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        for number in range(512 * 4):
            scene.link.subscriber.add(Channel(b"%d" % number))
        server = scene.network.servers[1] = _Slow()
        await scene.run(server)
        await trio.sleep(7)
        assert not scene.link.ready
        assert scene.changes == []
        server.latency = 0
        await trio.sleep(3)
        assert scene.link.ready
        assert scene.attempts == 2


async def test_lag_is_tolerated_while_traffic_comes_up_to_ten_times_the_timeout(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        scene.room()
        server = await scene.run()
        scene.nursery.start_soon(keep_talking, scene)
        await trio.sleep(1)
        begin = trio.current_time()
        while scene.attempts == 2:
            await trio.sleep(0.1)
            lag = (trio.current_time() - begin) * 0.9 / 1.9  # of what comes now, as what is sent now has twice as much
            server.latency = (trio.current_time() - begin) * 0.9
            if scene.attempts == 2:
                assert scene.link.ready
        assert 19 <= lag <= 22
        assert scene.link.failure == "fake:1: a probe did not come round within 20 s"


async def test_steady_lag_below_the_timeout_is_no_reason_to_give_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        scene.room()
        server = await scene.run()
        scene.nursery.start_soon(keep_talking, scene)
        server.latency = 1.5
        await trio.sleep(120)
        assert (scene.attempts, scene.changes) == (2, [(True, None)])


@pytest.mark.parametrize("interval", [1.0, 5.0])
async def test_our_own_pause_does_not_give_the_link_up(
    interval: float, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch, settings=RedisSettings(probe_interval=interval)) as scene:
        server = await scene.run()
        server.latency = 0.5
        await trio.sleep(interval + 0.1)  # a probe is on its way
        number = len(probes(server))
        autojump_clock.jump(1_000)  # as after SIGSTOP: all deadlines are over, and the bytes have come meanwhile
        await trio.sleep(interval + 2)
        assert len(probes(server)) > number
        assert (scene.attempts, scene.link.ready) == (2, True)


# -- down ------------------------------------------------------------------------------------------


async def test_lost_link_comes_back_and_tells_what_was_on_its_way(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_link(monkeypatch) as scene:
        record, results = scene.room(), list[str]()
        server = await scene.run()
        server.latency = 0.5
        scene.nursery.start_soon(scene.publish, b"lost", results)
        await trio.sleep(1.1)  # a probe is on its way too
        scene.nursery.start_soon(scene.publish, b"lost too", results)
        await wait_all_tasks_blocked()
        server.reset()
        await wait_all_tasks_blocked()
        server.latency = 0
        scene.nursery.start_soon(scene.publish, b"waits", results)
        await trio.sleep(0.1)
        assert results[0] == "done"
        assert "it may have gone out or not" in results[1]
        assert results[2:] == ["done"]
        assert record.heard == [b"lost", Lost("backplane"), b"waits"]
        assert scene.changes == [(True, None), (False, "fake:1: the server closed the connection"), (True, None)]
        assert caplog.messages == ["redis: fake:1: the server closed the connection; trying again"]


async def test_attempts_back_off_up_to_the_bound_with_jitter_and_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_link(monkeypatch) as scene:
        await scene.run()
        await trio.sleep(1_000)
        caplog.clear()
        scene.network.remove()
        attempts = scene.attempts
        await trio.sleep(1_000)
        times = scene.network.times[attempts:]
        assert len(times) > 1_030  # 2 ** 1030 would be no float any more
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        for number, gap in enumerate(gaps, 1):
            longest = min(1.0, 0.05 * 2.0 ** min(number, 50))
            assert longest / 2 - EPSILON <= gap <= longest + EPSILON
        assert len({round(gap, 1) for gap in gaps[50:]}) > 3
        reasons = ["the server closed the connection", "cannot connect: refused"]
        assert caplog.messages == [f"redis: fake:1: {reason}; trying again" for reason in reasons]
        assert set(scene.changes[2:]) == {(False, f"fake:1: {reasons[1]}")}
        scene.network.add()
        await trio.sleep(1)
        assert scene.link.ready
        await trio.sleep(60)
        scene.network.remove()
        assert len(caplog.messages) == 2
        await wait_all_tasks_blocked()
        assert len(caplog.messages) == 3  # anew, as it was up


async def test_failure_of_the_very_first_attempt_is_for_the_opener_to_tell(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_link(monkeypatch) as scene:
        scene.nursery.start_soon(scene.link.run)
        await trio.sleep(10)
        assert scene.changes[0] == (False, "fake:1: cannot connect: refused")
        assert caplog.messages == []


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (b"PUBLISH", "fake:1: the server refuses to publish: NOPERM no right"),
        (b"SUBSCRIBE", "fake:1: the broker refuses SUBSCRIBE: NOPERM no right"),
    ],
)
async def test_refused_probe_says_what_the_server_said(
    word: bytes, reason: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        server = scene.network.add()
        server.refuse(word, "NOPERM no right")
        await scene.run()
        assert scene.changes == [(False, reason)]
        del server.answers[word]
        await trio.sleep(1)
        assert scene.link.ready


class _SilentCheck(FixedSource):
    async def check(self, connection: RedisConnection) -> None:
        await trio.sleep_forever()


async def test_first_command_without_an_answer_is_a_lost_link(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch, _SilentCheck(ENDPOINT)) as scene:
        await scene.run()
        await trio.sleep(2 + EPSILON)
        assert scene.changes == [(False, "fake:1: no answer to the first command")]


async def test_publication_that_waits_when_the_link_is_closed_is_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        results: list[str] = []
        async with trio.open_nursery() as publishers, trio.open_nursery() as closing:
            closing.start_soon(scene.link.run)
            publishers.start_soon(scene.publish, b"x", results)
            await wait_all_tasks_blocked()
            closing.cancel_scope.cancel()
        assert results == ["the link to the broker is closed; publish while it is open"]


# -- a real server ---------------------------------------------------------------------------------


@pytest.mark.redis
async def test_user_who_may_not_listen_and_missing_password_are_told_when_opening() -> None:
    async with open_redis_server(binaries()["valkey"], "--requirepass", "pw") as server:
        await server.command("ACL", "SETUSER", "writer", "on", ">wpw", "&*", "+publish")
        await server.command("ACL", "SETUSER", "reader", "on", ">rpw", "&*", "+subscribe")
        at = f"127.0.0.1:{server.port}"
        for login, query, refusal in (
            ("writer:wpw@", "", "the broker refuses SUBSCRIBE: NOPERM "),
            ("reader:rpw@", "", "the server refuses to publish: NOPERM "),
            ("", "?protocol=2", "the broker refuses SUBSCRIBE: NOAUTH "),
            ("", "", "the server refused us: NOAUTH "),
        ):
            with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match=re.escape(f"{at}: {refusal}")):
                async with open_redis(f"redis://{login}{at}{query}"):
                    pytest.fail("it may not")
