"""Live cursors: a slow member gets the latest place of each, and a page shows where the others point."""

from __future__ import annotations

import pytest
import trio
from selenium.webdriver import ActionChains, Chrome

from tests.docs.examples.page import Page
from tests.docs.examples.running import DEADLINE
from trioroom import open_server
from trioroom.testing import open_peer, open_test_server, open_v1_peer

ROOM = "cursors/home"
PLACE = {"x": 0.5, "y": 0.25, "name": "otter"}


async def test_slow_member_gets_the_latest_place_of_each_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    from cursors import app as cursors

    app = cursors.app
    monkeypatch.setattr(cursors, "LONGEST_NAME", 20_000)
    rounds, name = 300, "x" * 20_000  # 12 MB: more than the kernel's part
    with trio.fail_after(DEADLINE):
        async with (
            open_server(app, port=0) as server,
            open_v1_peer(server, tcp=True) as slow,
            open_v1_peer(server) as one,
            open_v1_peer(server) as two,
        ):
            for peer in (slow, one, two):
                await peer.join(ROOM)
            for number in range(rounds):
                for mover, other in ((one, two), (two, one)):
                    place = {"x": number, "y": 0, "name": name}
                    await mover.send({"type": "publish", "room": ROOM, "data": place})
                    assert (await other.receive())["data"] == place
            seen: list[int] = []
            while seen.count(rounds - 1) < 2:
                if (envelope := await slow.receive())["type"] == "message":
                    seen.append(envelope["data"]["x"])
            assert len(seen) < rounds  # of 600


async def test_who_comes_sees_where_all_point_and_then_who_goes() -> None:
    from cursors.app import app

    async with open_test_server(app) as server, open_v1_peer(server) as one:
        await one.join(ROOM)
        async with open_v1_peer(server) as two:
            await two.join(ROOM)
            assert (await two.request("publish", room=ROOM, data=PLACE | {"more": "x" * 1_000}))["type"] == "ok"
            async with open_v1_peer(server) as three:
                assert (await three.join(ROOM))["state"] == {two.id: PLACE}
            moves = [await one.receive() for _ in range(2)]  # of two, and of three who went without a move
            assert [(move["from"], move.get("data")) for move in moves] == [
                (two.id, PLACE),
                (three.id, None),
            ]


@pytest.mark.parametrize("place", ["x" * 60_000, None, {"x": "0", "y": 0, "name": "a"}, PLACE | {"name": "o" * 31}])
async def test_what_is_no_place_is_not_kept_for_all_who_come(place: object) -> None:
    from cursors.app import app

    async with open_test_server(app) as server, open_v1_peer(server) as one, open_v1_peer(server) as two:
        await one.join(ROOM)
        assert (await one.request("publish", room=ROOM, data=place))["code"] == "bad_place"
        assert (await two.join(ROOM))["state"] == {}


@pytest.mark.browser
async def test_page_shows_the_others_and_tells_its_own_place(chromium: Chrome) -> None:
    from cursors.app import app

    def point(driver: Chrome) -> None:
        board = driver.find_element("id", "board")
        ActionChains(driver).move_to_element(board).move_by_offset(50, 0).perform()

    with trio.fail_after(2 * DEADLINE):
        async with open_server(app, port=0) as server:
            page = Page(chromium)
            async with open_v1_peer(server) as crane:
                await crane.join(ROOM)
                await crane.request("publish", room=ROOM, data={"x": 0.25, "y": 0.5, "name": "<i>crane"})
                await page.open(f"http://127.0.0.1:{server.port}/?name=otter")
                await page.wait_text("board", "<i>crane")
                await page.wait_for("document.querySelector('.cursor').style.translate.endsWith('px')")
                await page.do(point)
                while (place := (await crane.receive()).get("data")) is None or place["x"] <= 0.5:
                    pass
                assert place["name"] == "otter"
                assert place["y"] == pytest.approx(0.5, abs=0.02)
                await page.check()
            await page.wait_text("count", "1")  # the crane's cursor goes with it
            await page.wait_for("document.querySelector('.cursor') === null")


async def test_previews_are_for_who_can_take_them() -> None:
    from preview import app

    with trio.fail_after(DEADLINE):
        async with open_test_server(app) as server, open_peer(server, "/preview") as watcher:
            pictures = [await watcher.receive() for _ in range(3)]
            first, *others = [picture[-1] for picture in pictures if isinstance(picture, bytes)]
            assert others == [first + 1, first + 2]
