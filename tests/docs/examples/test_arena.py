"""The game: the room moves everybody, twenty times a second, and only while there is somebody."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys
from trio.testing import MockClock

from tests.docs.examples.page import Page
from tests.docs.examples.running import DEADLINE
from trioroom import App, open_server
from trioroom.testing import V1Peer, open_test_server, open_v1_peer

ROOM = "arena/1"


@pytest.fixture
def steps() -> list[float]:
    """When the room has moved its players."""
    return []


@pytest.fixture
def app(steps: list[float]) -> App:
    from arena.app import Arena

    class Watched(Arena):
        idle_timeout = 10.0

        def step(self, seconds: float) -> None:
            steps.append(trio.current_time())
            super().step(seconds)

    app = App()
    app.route(ROOM, Watched)
    return app


async def picture_after(v1: V1Peer, seconds: float) -> dict[str, Any]:
    """The last one of those that come in so long."""
    last: dict[str, Any] = {}
    with trio.move_on_after(seconds):
        while True:
            if (envelope := await v1.receive())["type"] == "message":
                last = envelope["data"]
    return last


async def test_players_go_where_they_say_at_the_speed_of_the_room(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann, open_v1_peer(server) as bob:
        state = (await ann.join(ROOM))["state"]
        assert state["you"] == ann.id
        assert [*(await bob.join(ROOM))["state"]["picture"]["players"]] == [ann.id, bob.id]
        x, y, _ = state["picture"]["players"][ann.id]
        to_the_left = x > state["width"] / 2  # where there is way to go
        await ann.request("publish", room=ROOM, data=[-1 if to_the_left else 1, 0])
        picture = await picture_after(bob, 1.01)
        new_x, new_y, _ = picture["players"][ann.id]
        assert (abs(new_x - x), new_y) == (pytest.approx(45, abs=2.5), y)
        refused = await ann.request("publish", room=ROOM, data=[100, 0])
        assert (refused["code"], refused["message"]) == ("bad_input", "send [dx, dy], both from -1 to 1")


async def test_coin_is_for_who_reaches_it() -> None:
    from arena.app import Arena, Player

    room = Arena()
    room.coin = (50.0, 50.0)
    room.players = {"near": Player(42.0, 50.0, heard=0, dx=1), "far": Player(120.0, 50.0, heard=0)}
    room.step(0.05)
    assert room.coin == (50.0, 50.0)
    room.step(0.05)
    assert [player.coins for player in room.players.values()] == [1, 0]
    assert room.coin != (50.0, 50.0)


async def test_tick_keeps_time_and_ends_with_the_room(app: App, steps: list[float], autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server:
        await trio.sleep(1)
        assert steps == []
        async with open_v1_peer(server) as ann:
            await ann.join(ROOM)
            await picture_after(ann, 5.01)
            assert len(steps) == 100
            assert steps[-1] - steps[0] == pytest.approx(99 * 0.05)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().rooms == 0
        await trio.sleep(1)
        assert len(steps) == 100


async def test_who_does_not_play_is_put_out(app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_v1_peer(server) as ann, open_v1_peer(server) as bob:
        await ann.join(ROOM)
        await bob.join(ROOM)
        await trio.sleep(9)
        await ann.request("publish", room=ROOM, data=[0, 1])
        while (envelope := await bob.receive())["type"] != "kicked":
            pass
        assert envelope["reason"] == "no input for 10 seconds"
        assert [*(await picture_after(ann, 0.2))["players"]] == [ann.id]


@pytest.mark.browser
async def test_page_shows_the_game_and_steers(chromium: Chrome) -> None:
    from arena.app import app

    def press(driver: Chrome) -> None:
        ActionChains(driver).key_down(Keys.ARROW_DOWN).perform()

    with trio.fail_after(2 * DEADLINE):
        async with open_server(app, port=0) as server, open_v1_peer(server) as ann:
            page = Page(chromium)
            await ann.join(ROOM)
            await page.open(f"http://127.0.0.1:{server.port}/")
            await page.wait_text("scores", "you 0")
            await page.wait_text("scores", ann.id[:4])
            await page.do(press)
            while not (at := [at for id, at in (await picture_after(ann, 0.1))["players"].items() if id != ann.id]):
                pass
            while at[0][1] < 90:  # the lower edge
                at = [at for id, at in (await picture_after(ann, 0.1))["players"].items() if id != ann.id]
            await page.check()
