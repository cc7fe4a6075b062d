"""The auction: who bids too low, too late or without leave is told so, and latecomers see the course."""

from __future__ import annotations

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from trio.testing import MockClock

from tests.docs.examples.page import Page
from tests.docs.examples.running import DEADLINE, running, stop
from trioroom import App, Data, Room, open_server
from trioroom.testing import V1Peer, open_test_server, open_v1_peer

ROOM = "auction/vase"


@pytest.fixture
def app() -> App:
    """An auction that has not begun, for the lot remembers what was bid."""
    from auction import app as auction

    class Lamp(auction.Auction):
        lot = auction.Lot("A lamp", minimum=100, seconds=60)

    app = App(authenticate=auction.authenticate)
    app.route(ROOM, Lamp)
    app.static("/", auction.PAGE)
    return app


async def join_as(v1: V1Peer, user: str, role: str) -> object:
    from auction.app import issue

    await v1.request("auth", token=issue(user, role))
    return (await v1.join(ROOM))["state"]


async def bid(v1: V1Peer, amount: object) -> object:
    """What the bidder gets: the price, or the reason."""
    answer = await v1.request("call", room=ROOM, data={"bid": amount})
    return answer["data"]["yours_at"] if answer["type"] == "ok" else (answer["code"], answer["message"])


async def test_bids_go_up_and_all_see_them(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as ann, open_v1_peer(server) as bob, open_v1_peer(server) as viewer:
            state = await join_as(ann, "ann", "bidder")
            assert state == {"title": "A lamp", "minimum": 100, "seconds_left": 60.0, "may_bid": True}
            await join_as(bob, "bob", "bidder")
            assert (await viewer.join(ROOM))["state"]["may_bid"] is False
            assert await bid(ann, 99) == ("too_low", "99 is too low; bid 100 or more")
            assert await bid(ann, 100) == 100
            assert await bid(bob, 104) == ("too_low", "104 is too low; bid 105 or more")
            assert await bid(bob, 120) == 120
            assert await bid(bob, "all") == ("bad_bid", 'call with {"bid": 120}, a whole number')
            assert await bid(viewer, 1_000) == ("denied", "you may look, but not bid")
            seen = [(await viewer.receive())["data"] for _ in range(2)]
            assert [(each["bidder"], each["amount"]) for each in seen] == [("ann", 100), ("bob", 120)]


async def test_latecomer_sees_the_course_and_nobody_writes_it_but_the_room(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann:
        await join_as(ann, "ann", "bidder")
        await bid(ann, 100)
        forged = await ann.request("publish", room=ROOM, data={"kind": "bid", "bidder": "bob", "amount": 9_999})
        assert (forged["code"], forged["message"]) == ("denied", "only the auctioneer speaks here; bids are calls")
        async with open_v1_peer(server) as late:
            assert (await late.join(ROOM))["state"]["minimum"] == 105
            page = await late.request("history", room=ROOM)
            assert [message["data"]["amount"] for message in page["messages"]] == [100]


async def test_excluded_does_not_come_in(app: App, autojump_clock: MockClock) -> None:
    from auction.app import issue

    async with open_test_server(app) as server, open_v1_peer(server) as eve:
        await eve.request("auth", token=issue("eve", "excluded"))
        refused = await eve.request("join", room=ROOM)
        assert (refused["code"], refused["message"]) == ("denied", "eve is excluded from this auction")


async def test_lot_is_sold_once_to_the_highest_bidder_in_time(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as ann:
            await join_as(ann, "ann", "bidder")
            await bid(ann, 150)
            assert (await ann.receive())["data"]["kind"] == "bid"
        await trio.sleep(30)  # nobody looks, the room is over, and yet the clock goes on
        async with open_v1_peer(server) as bob:
            await join_as(bob, "bob", "bidder")
            began = trio.current_time()
            assert (await bob.receive())["data"] == {"kind": "sold", "bidder": "ann", "amount": 150}
            assert trio.current_time() - began == pytest.approx(30, abs=1)
            assert await bid(bob, 500) == ("closed", "the auction has ended: A lamp")
        async with open_v1_peer(server) as late:
            await late.join(ROOM)
            await trio.testing.wait_all_tasks_blocked()
            page = await late.request("history", room=ROOM)
            assert [message["data"]["kind"] for message in page["messages"]] == ["bid", "sold"]


@pytest.mark.parametrize("amount", [1_000_001, 2**64 - 1])
async def test_bid_beyond_all_reason_costs_nobody_the_auction(app: App, amount: int, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann:
        await join_as(ann, "ann", "bidder")
        assert await bid(ann, amount) == ("too_high", f"{amount} is more than anybody here may bid")
        assert await bid(ann, 100) == 100


async def test_bid_that_was_taken_is_told_though_its_bidder_has_gone(
    app: App, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auction.app import Auction

    async def publish_slowly(room: Auction, data: Data, **options: str) -> None:
        await trio.sleep(1)
        await Room.publish(room, data, **options)  # type: ignore[arg-type]  # a publication_id, or none

    monkeypatch.setattr(Auction, "publish", publish_slowly)
    async with open_test_server(app) as server, open_v1_peer(server) as viewer:
        await viewer.join(ROOM)
        async with open_v1_peer(server) as ann:
            await join_as(ann, "ann", "bidder")
            await ann.send({"type": "call", "id": 9, "room": ROOM, "data": {"bid": 100}})
            await trio.sleep(0.5)
        assert (await viewer.receive())["data"] == {"kind": "bid", "bidder": "ann", "amount": 100, "minimum": 105}


async def test_sale_is_told_once_however_late_somebody_looks(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as viewer:
            await viewer.join(ROOM)
            assert (await viewer.receive())["data"]["kind"] == "sold"
        await trio.sleep(400)  # longer than a publication_id is remembered
        async with open_v1_peer(server) as late:
            await late.join(ROOM)
            await trio.testing.wait_all_tasks_blocked()
            page = await late.request("history", room=ROOM)
            assert [message["data"]["kind"] for message in page["messages"]] == ["sold"]


async def test_program_prints_a_link_for_each() -> None:
    with (
        trio.fail_after(DEADLINE),
        running("-c", "import trio; from auction import app; trio.run(app.main, 0)") as process,
    ):
        assert process.stdout is not None
        lines = [await trio.to_thread.run_sync(process.stdout.readline) for _ in range(4)]
        assert [line.partition(": http://127.0.0.1:")[0] for line in lines] == [
            *("ann, bidder", "bob, bidder", "eve, excluded", "nobody, who may look")
        ]
        stop(process)


@pytest.mark.browser
async def test_page_shows_bids_and_why_one_is_refused(app: App, chromium: Chrome) -> None:
    from auction.app import issue

    def offer(amount: str) -> None:
        box = chromium.find_element("id", "amount")
        box.clear()
        box.send_keys(amount + Keys.ENTER)

    with trio.fail_after(2 * DEADLINE):
        async with open_server(app, port=0) as server, open_v1_peer(server) as bob:
            page = Page(chromium)
            await join_as(bob, "bob", "bidder")
            await bid(bob, 100)
            await page.open(f"http://127.0.0.1:{server.port}/#{issue('ann', 'bidder')}")
            await page.wait_text("course", "bob: 100 €")
            await page.do(lambda _: offer("110"))
            await page.wait_text("highest", "110 €, ann")
            await bid(bob, 200)
            await page.wait_text("highest", "200 €, bob")
            await page.do(lambda driver: driver.execute_script("document.getElementById('amount').min = 0"))
            await page.do(lambda _: offer("190"))  # as one who has not seen it yet
            await page.wait_text("note", "190 is too low; bid 205 or more")
            await page.check()
