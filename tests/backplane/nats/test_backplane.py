"""What the backplane for NATS is beyond the contract: ids, bounds, permissions, and what it needs of the server."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.processes import SETTLE_TIMEOUT, until
from trioroom.backplane.base import Counting, Lost
from trioroom.backplane.nats import NatsSettings, open_nats
from trioroom.backplane.nats.protocol import MAX_SUBJECT
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing.conformance import subscribed

pytestmark = pytest.mark.nats


async def test_server_without_jetstream_is_refused_with_what_to_do() -> None:
    async with open_nats_server(jetstream=False) as server:
        with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match="start it with `nats-server -js`"):
            async with open_nats(server.url):
                pytest.fail("it has no order for all")


async def test_account_without_jetstream_is_refused_too() -> None:
    accounts = "accounts { A { users: [{ user: a, password: a }] } }\nno_auth_user: a\n"
    async with open_nats_server(accounts) as server:
        with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match="without JetStream"):
            async with open_nats(server.url):
                pytest.fail("it has no order for all")


async def test_one_of_several_servers_is_enough(nats_server: NatsServer) -> None:
    for _ in range(4):  # in any order
        async with open_nats(f"nats://127.0.0.1:1,127.0.0.1:{nats_server.port}") as node:
            assert node.ready
    with pytest.raises(BackplaneUnavailable) as raised:
        async with open_nats("nats://127.0.0.1:1,127.0.0.1:2"):
            pytest.fail("nobody is there")
    assert "127.0.0.1:1: cannot connect" in str(raised.value)
    assert "127.0.0.1:2: cannot connect" in str(raised.value)


async def test_log_counts_the_rooms_when_the_link_is_up_and_not_what_is_heard_beside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trioroom.backplane")
    async with open_nats_server() as server, open_nats(server.url) as node, subscribed(node, "a", 9) as deliveries:
        assert caplog.messages == [f"nats: 127.0.0.1:{server.port} is up, 0 rooms subscribed"]

        async def ready() -> bool:
            return node.ready

        await server.restart()
        with trio.fail_after(SETTLE_TIMEOUT):
            assert isinstance(await deliveries.receive(), Lost)
        await until(ready, "the link is up")
        assert caplog.messages[-1] == f"nats: 127.0.0.1:{server.port} is up, 1 rooms subscribed"


# -- ids -------------------------------------------------------------------------------------------


async def test_publication_id_counts_once_in_each_room_on_any_node(nats_server: NatsServer) -> None:
    odd = "id with spaces\r\nand: lines"
    async with open_nodes(nats_server.url, nats_server.url) as (here, there), subscribed(there, "a", 9) as deliveries:
        async with subscribed(there, "b", 9) as others:
            for node in (here, there, here):
                await node.publish("a", b"once", odd)
            await there.publish("b", b"other room", odd)
            await here.publish("a", b"another id", odd + "!")
            assert [await deliveries.receive() for _ in range(2)] == [b"once", b"another id"]
            assert await others.receive() == b"other room"
            assert (len(deliveries), len(others)) == (0, 0)


async def test_publication_id_is_forgotten_after_its_time(nats_server: NatsServer) -> None:
    settings = NatsSettings(publication_id_ttl=0.3)
    async with open_nodes(nats_server.url, settings=settings) as (node,), subscribed(node, "a", 9) as deliveries:
        await node.publish("a", b"1", "id")
        await trio.sleep(1)
        await node.publish("a", b"2", "id")
        assert [await deliveries.receive() for _ in range(2)] == [b"1", b"2"]


async def test_settings_that_have_changed_reach_the_stream(nats_server: NatsServer) -> None:
    async with open_nats(nats_server.url), open_nats(f"{nats_server.url}?max_relay_bytes=70000&publication_id_ttl=7"):
        told = await nats_server.monitor("jsz?streams=true&config=true")
        [stream] = [
            stream
            for account in told["account_details"]
            for stream in account["stream_detail"]
            if stream["name"] == "trioroom_relay"
        ]
        assert (stream["config"]["max_bytes"], stream["config"]["duplicate_window"]) == (70_000, 7_000_000_000)


async def test_stream_that_cannot_be_had_is_told(nats_server: NatsServer) -> None:
    with pytest.raises(BackplaneUnavailable, match="JetStream refuses: replicas > 1 not supported in non-clustered"):
        async with open_nats(f"{nats_server.url}?replicas=3"):
            pytest.fail("there is one server only")


# -- bounds ----------------------------------------------------------------------------------------


async def test_publication_beyond_the_bound_of_the_settings_or_the_server_is_refused() -> None:
    async with open_nats_server("max_payload: 1000") as server, open_nats(server.url) as node:
        async with subscribed(node, "a", 9) as deliveries:
            await node.publish("a", b"x" * 1_000)
            with pytest.raises(
                BackplaneError, match="1001 bytes are more than the broker takes; raise max_payload=1000"
            ):
                await node.publish("a", b"x" * 1_001)
            with pytest.raises(BackplaneError, match="raise max_payload=1000"):
                await node.publish("a", b"x" * 990, "an id counts too")
            with pytest.raises(ValueError, match="exceeds max_publication_bytes"):
                await node.publish("a", bytes(5_000_000))
            await node.publish("a", b"after")
            assert [await deliveries.receive() for _ in range(2)] == [b"x" * 1_000, b"after"]
            assert node.ready


async def test_room_whose_name_is_too_long_for_the_server_is_an_error_of_that_room(nats_server: NatsServer) -> None:
    longest = "x" * (MAX_SUBJECT - len("trioroom.got.room."))
    async with open_nats(nats_server.url) as node, subscribed(node, longest, 9) as deliveries:
        refused = pytest.raises(BackplaneError, match=r"takes no subject of 4001 bytes.* choose a shorter name$")
        with trio.fail_after(1), refused:
            async with subscribed(node, longest + "x", 9):
                pytest.fail("it is too long")
        with trio.fail_after(1), refused:
            await node.publish(longest + "x", b"x")
        await node.publish(longest, b"x", "an id")
        assert await deliveries.receive() == b"x"
        assert node.meters.outages == 0


async def test_many_who_come_while_others_publish_are_told_of_no_loss(nats_server: NatsServer) -> None:
    async with open_nats(nats_server.url) as node, trio.open_nursery() as nursery:

        async def publish() -> None:
            while True:
                await node.publish("a", b"x")

        for _ in range(30):
            nursery.start_soon(publish)
        for _ in range(200):
            async with subscribed(node, "a", 100) as deliveries:
                assert [await deliveries.receive() for _ in range(5)] == [b"x"] * 5
        nursery.cancel_scope.cancel()


async def test_what_another_program_publishes_beyond_the_bound_is_a_gap(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with (
        open_nats(f"{nats_server.url}?max_publication_bytes=100") as node,
        subscribed(node, "a", 9) as deliveries,
    ):
        await nats_server.ask("trioroom.put.room.a", b"x" * 101)
        await nats_server.ask("trioroom.put.room.a", b"x" * 100)
        assert [await deliveries.receive() for _ in range(2)] == [Lost("backplane", 1), b"x" * 100]
    assert caplog.messages == ["dropped 101 bytes on subject b'trioroom.got.room.a': more than max_publication_bytes"]


async def test_what_has_no_number_of_the_relay_is_no_publication(nats_server: NatsServer) -> None:
    async with open_nats(nats_server.url) as node, subscribed(node, "a", 9) as deliveries:
        with trio.move_on_after(0.1):
            await nats_server.ask("trioroom.got.room.a", b"out of order")  # nobody answers
        await node.publish("a", b"in order")
        assert await deliveries.receive() == b"in order"


async def test_rooms_beyond_the_subscriptions_that_the_server_takes_are_errors_of_those_rooms() -> None:
    async with open_nats_server("max_subscriptions: 20") as server, open_nats(server.url) as node:
        async with AsyncExitStack() as stack:
            rooms: list[RoomChannel] = []
            refused = pytest.raises(BackplaneError, match=r"refuses the subscription: maximum subscriptions")
            with trio.fail_after(5), refused:
                while True:
                    rooms.append(await stack.enter_async_context(subscribed(node, f"{len(rooms)}", 9)))
            with trio.fail_after(1), refused:
                async with subscribed(node, "more", 9):
                    pytest.fail("there is no place")
            assert node.meters.outages == 0
            await server.kick_clients()
            with trio.fail_after(5):
                for number, room in enumerate(rooms):
                    assert await room.receive() == Lost("backplane")
                    await node.publish(f"{number}", b"x")
                    assert await room.receive() == b"x"
            assert node.meters.outages == 1
        await node.publish("more", b"x")  # behind which those that have been left are
        async with subscribed(node, "more", 9) as deliveries:
            await node.publish("more", b"x")
            assert await deliveries.receive() == b"x"


# -- permissions -----------------------------------------------------------------------------------


def permitted(publish: str, subscribe: str) -> str:
    """A user with bounds."""
    return (
        "accounts { A { jetstream: enabled, users: [{ user: a, password: a, permissions: "
        f"{{ publish: {publish}, subscribe: {subscribe} }} }}] }} }}\nno_auth_user: a\n"
    )


async def test_room_that_may_not_be_subscribed_or_published_is_an_error_of_that_room() -> None:
    allowed = permitted('{ deny: ["trioroom.put.room.secret"] }', '{ deny: ["trioroom.got.room.secret"] }')
    async with open_nats_server(allowed) as server, open_nats(server.url) as node:
        async with subscribed(node, "a", 9) as deliveries:
            with trio.fail_after(1), pytest.raises(BackplaneError, match="Permissions Violation for Subscription"):
                async with subscribed(node, "secret", 9):
                    pytest.fail("it may not")
            with trio.fail_after(1), pytest.raises(BackplaneError, match="Permissions Violation for Publish"):
                await node.publish("secret", b"x")
            await node.publish("a", b"x")
            assert await deliveries.receive() == b"x"
            assert node.ready


async def test_advisories_that_may_not_be_heard_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with (
        open_nats_server(permitted('">"', '["trioroom.>", "_INBOX.>"]')) as server,
        open_nats(server.url) as node,
    ):
        async with subscribed(node, "a", 9) as deliveries:
            await node.publish("a", b"x")
            assert await deliveries.receive() == b"x"
    advisory = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.trioroom_relay"
    assert f'nats: the server says: Permissions Violation for Subscription to "{advisory}"' in caplog.messages


@pytest.mark.parametrize(
    ("publish", "subscribe", "refusal"),
    [
        ('"$JS.>"', '">"', "the broker refuses a publication: .*trioroom"),
        ('">"', '"_INBOX.>"', "the broker refuses the subscription: .*trioroom.got.probe"),
        ('"trioroom.>"', '">"', r"the broker refuses a publication: .*JS.API.STREAM.CREATE"),
    ],
)
async def test_link_that_may_not_do_its_work_is_told_when_opening(publish: str, subscribe: str, refusal: str) -> None:
    async with open_nats_server(permitted(publish, subscribe)) as server:
        with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match=refusal):
            async with open_nats(server.url):
                pytest.fail("it may not")


# -- figures ---------------------------------------------------------------------------------------


async def test_link_counts(nats_server: NatsServer) -> None:
    async with open_nats(nats_server.url) as node:
        assert isinstance(node, Counting)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(node.publish, "a", b"x")
        meters = node.meters
        assert (meters.outages, meters.round_trips.count) == (0, 1)
        assert meters.batches.sum == 10
        assert 1 <= meters.publishing.count <= 10
        await nats_server.kick_clients()
        while node.ready:  # noqa: ASYNC110  # it has no event for that
            await trio.sleep(0.01)
        assert meters.outages == 1
