"""What nobody of ours puts into the bucket, or on the subjects it tells on: presence goes on, and asks little more."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import msgspec
import pytest
import trio

from tests.backplane.nats.servers import NatsServer
from tests.backplane.processes import until
from trioroom.backplane.base import PresenceSeat
from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.backplane.nats import NatsBackplane, open_nats
from trioroom.backplane.nats.bucket import Bucket, Put
from trioroom.backplane.nats.presence_table import put_of_mark, put_of_row
from trioroom.errors import BackplaneError
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.nats
ROOM = "room/a"
DAMAGED = {
    "empty": b"",
    "no MessagePack": b"nonsense",
    "nested deeply": b"\x94\x01\x01" + b"\x91" * 100_000 + b"\xc0",
    "another shape": b"\x91\xa1a",
    "no UTF-8": b"\x94\x01\x01\xa1\xff\xc0",
    "a number that is none": b"\x94\xa1a\x01\xa1a\xc0",
}
FORGED: dict[str, dict[str, str]] = {
    "no headers": {},
    "no number": {"Nats-Sequence": "one", "Nats-Time-Stamp": "2030-01-01T00:00:00Z"},
    "digits without end": {"Nats-Sequence": "9" * 5_000, "Nats-Time-Stamp": "2030-01-01T00:00:00Z"},
    "digits that are not ASCII": {"Nats-Sequence": "²", "Nats-Time-Stamp": "2030-01-01T00:00:00Z"},
    "no time": {"Nats-Sequence": "7", "Nats-Time-Stamp": "soon"},
    "no time at all": {"Nats-Sequence": "7"},
}


@attrs.frozen
class Pair:
    """A seat of one node, and what another one is told of it."""

    seat: PresenceSeat
    watcher: Watcher
    node: NatsBackplane
    other: NatsBackplane

    @property
    def bucket(self) -> Bucket:
        return self.node.presence._bucket

    async def still_works(self) -> None:
        """Rows come and go."""
        self.seat.put("bob", b"2")
        await self.watcher.wait_rows(("ann", b"1"), ("bob", b"2"))
        self.seat.remove("bob")
        await self.watcher.wait_rows(("ann", b"1"))


@asynccontextmanager
async def open_pair(server: NatsServer) -> AsyncIterator[Pair]:
    watcher = Watcher()
    with trio.fail_after(20):
        async with (
            open_nats(server.url) as here,
            open_nats(server.url) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as ours,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            ours.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"))
            yield Pair(ours, watcher, here, there)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", DAMAGED)
async def test_damaged_row_is_followed_by_a_read(
    nats_server: NatsServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair(nats_server) as pair:
        resyncs = pair.watcher.resyncs
        await pair.bucket.put(Put(f"room.{ROOM}.feed.1.user", DAMAGED[name]))
        await pair.watcher.wait(lambda: pair.watcher.resyncs > resyncs)
        await pair.still_works()
        assert len(warnings(caplog)) == 2, "one for each node"


@pytest.mark.parametrize(
    "key", ["", ".feed", ".feed.1", ".feed.1.user.more", ".feed.1.=", ".feed.1.=ZZ", ".a=00.=FF.b"]
)
async def test_keys_that_are_nobodys_are_passed_over(nats_server: NatsServer, key: str) -> None:
    async with open_pair(nats_server) as pair:
        await pair.bucket.put(Put(f"room.{ROOM}{key}", b"nonsense"))
        await pair.still_works()
        late = Watcher()
        async with pair.other.presence.open(ROOM, late, 0.02):
            await late.wait_rows(("ann", b"1"))


@pytest.mark.parametrize("name", FORGED)
async def test_what_does_not_come_from_the_stream_is_passed_over(
    nats_server: NatsServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair(nats_server) as pair:
        put = put_of_row(ROOM, "feed.1", "ghost", b"1", 1, 1)
        resyncs = pair.watcher.resyncs
        for _ in range(3):
            with trio.move_on_after(0.05):  # nobody answers
                await pair.node._link.requests.ask(f"{pair.bucket.told}{put.key}", put.payload, FORGED[name])
        await pair.still_works()
        assert pair.watcher.resyncs == resyncs
        assert len(warnings(caplog)) == 2, "one for each node"


async def test_headers_of_who_puts_a_row_do_not_count(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        put = put_of_row(ROOM, "feed.1", "ghost", b"1", 1, 1)
        forged = {
            "Nats-Sequence": "one",
            "Nats-Time-Stamp": "soon",
            "Nats-Subject": "$KV.other",
            "Nats-Last-Sequence": "",
        }
        await pair.node._link.requests.ask(f"$KV.trioroom_presence.{put.key}", put.payload, forged)
        await pair.still_works()


async def test_flood_of_damaged_rows_is_no_flood_of_reads_and_none_of_the_log(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair(nats_server) as pair:
        resyncs, began = pair.watcher.resyncs, trio.current_time()
        for number in range(200):
            await pair.bucket.put(Put(f"room.{ROOM}.feed.1.user", b"noise"))
            await trio.sleep(0.005)
            pair.seat.put("ann", b"%d" % number)
        await pair.watcher.wait_rows(("ann", b"199"))
        most = 2 + (trio.current_time() - began) / RETRY_INTERVAL
        assert pair.watcher.resyncs - resyncs <= most
        assert len(warnings(caplog)) == 2


async def test_row_that_somebody_else_has_overwritten_is_put_again(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        [seat] = pair.watcher.seats
        await pair.bucket.put(put_of_row(ROOM, seat, "ann", b"forged", 1, 1))
        await pair.bucket.put(put_of_row(ROOM, seat, "ghost", b"forged", 1, 1))
        await pair.watcher.wait_rows(("ann", b"1"))
        late = Watcher()
        async with pair.other.presence.open(ROOM, late, 0.02):
            await late.wait_rows(("ann", b"1"))


@pytest.mark.parametrize("purged", [True, False])
async def test_seat_that_somebody_else_says_is_gone_is_there_again(nats_server: NatsServer, purged: bool) -> None:
    async with open_pair(nats_server) as pair:
        [seat] = pair.watcher.seats
        await pair.bucket.put(put_of_mark(ROOM, seat, gone=True))
        if purged:
            await pair.bucket.purge(f"room.{ROOM}.{seat}.>")
        await pair.watcher.wait(lambda: pair.watcher.gone == [seat])
        await pair.watcher.wait_rows(("ann", b"1"))


async def test_rows_of_a_node_that_never_was_go_soon(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        await pair.bucket.put(put_of_row(ROOM, "feed.1", "ghost", b"1", 1, 1))
        await pair.watcher.wait_row("ghost", b"1")
        await pair.watcher.wait_rows(("ann", b"1"))

        async def removed() -> bool:
            return not await pair.bucket.read(f"room.{ROOM}.feed.>")

        await until(removed, "they are removed from the bucket")


@pytest.mark.parametrize("lease", [b"", b"x", b"nan", b"inf", b"-1", b"1e400", b"\xff", b"9" * 5_000, b"1_0"])
async def test_lease_of_somebody_else_holds_up_nobody(nats_server: NatsServer, lease: bytes) -> None:
    with trio.fail_after(20):
        async with open_nats(nats_server.url) as here:
            for key in ("node.a", "node.=", "node.=FF", "node.a.b"):
                await here.presence._bucket.put(Put(key, lease))
        async with open_pair(nats_server) as pair:
            await pair.still_works()


@pytest.mark.parametrize("node", ["*", ">", "", "a.", ".b", "a*"])
async def test_node_whose_name_is_a_pattern_takes_nobody_with_it(nats_server: NatsServer, node: str) -> None:
    """Nobody but a hostile program puts such keys, and the server takes some of them."""
    async with open_pair(nats_server) as pair:
        requests, subject = pair.node._link.requests, "$KV.trioroom_presence"
        for key, payload in (
            (f"node.{node}", b"0"),
            (f"node.{node}", b"0.01"),  # one that will be found dead
            (f"room.{ROOM}.{node}.1.ghost", put_of_row(ROOM, "feed.1", "ghost", b"1", 1, 1).payload),
            (f"room.{ROOM}.{node}", b"gone"),
        ):
            with suppress(BackplaneError):
                await requests.ask(f"{subject}.{key}", payload)
        for backplane in (pair.node, pair.other):
            backplane.presence._leases.look_soon()
            await backplane.presence._leases.look()
            await backplane.presence._leases.bury()
        for seat in [*pair.node.presence._seats, *pair.other.presence._seats]:
            await seat.read()
        await pair.still_works()
        assert pair.watcher.gone == []
        assert len(await pair.bucket.read(f"room.{ROOM}.*.*.ann")) == 1
        late = Watcher()
        async with pair.other.presence.open(ROOM, late, 0.02):
            await late.wait_rows(("ann", b"1"))


async def test_message_that_fits_the_table_but_is_large_is_a_loss(nats_server: NatsServer) -> None:
    async with open_pair(nats_server) as pair:
        resyncs = pair.watcher.resyncs
        large = msgspec.msgpack.encode([1, 1, "ghost", bytes(5 << 20)])
        await pair.bucket.put(Put(f"room.{ROOM}.feed.1.ghost", large))
        await pair.watcher.wait(lambda: pair.watcher.resyncs > resyncs)
        await pair.still_works()
