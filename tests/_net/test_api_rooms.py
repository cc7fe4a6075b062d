"""What the HTTP API does with rooms: publishing to them, and looking at them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests._net.api_client import BEARER, room_path
from tests._net.api_sites import Site, open_site
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_peer, open_v1_peer

# -- publishing ------------------------------------------------------------------------------------


async def test_publication_reaches_members_on_all_servers(sites: Sequence[Site]) -> None:
    here, there = sites
    async with open_peer(here.server, "/plain/a") as one, open_peer(there.server, "/plain/a") as other:
        await wait_all_tasks_blocked()
        answer = await here.api.post(room_path("plain/a", "/publish"), {"data": {"hello": [1, 2.5, None]}})
        assert (answer.status, answer.body) == (200, {})
        assert [await peer.receive() for peer in (one, other)] == ['{"hello":[1,2.5,null]}'] * 2


async def test_position_is_told_and_a_publication_id_counts_once(site: Site) -> None:
    path = room_path("chat/a", "/publish")
    first = await site.api.post(path, {"data": "one", "publication_id": "p1"})
    assert first.body["position"]["offset"] == 1
    again = await site.api.post(path, {"data": "one", "publication_id": "p1"})
    assert again.body == first.body
    async with open_peer(site.server, "/chat/a?ann") as ann:
        await wait_all_tasks_blocked()
        assert (await site.api.post(path, {"data": "two"})).body["position"]["offset"] == 2
        assert await ann.receive() == "two"


async def test_bytes_are_sent_as_base64(site: Site) -> None:
    async with open_peer(site.server, "/plain/a") as peer:
        await wait_all_tasks_blocked()
        data = base64.b64encode(b"\x00\xff").decode()
        assert (await site.api.post(room_path("plain/a", "/publish"), {"data": data, "encoding": "base64"})).body == {}
        assert await peer.receive() == b"\x00\xff"


@pytest.mark.parametrize(
    ("room", "path"),
    [
        ("chat/a", "/api/v1/rooms/chat%2Fa/publish"),
        ("chat/a", "/api/v1/rooms/chat/a/publish"),
        ("chat/a", "http://test/api/v1/rooms/chat%2Fa/publish"),
        ("chat/a", "/%61pi/v1/rooms/chat%2fa/publish"),
        ("chat/ä b", "/api/v1/rooms/chat%2F%C3%A4%20b/publish"),
        ("chat/a/publish", "/api/v1/rooms/chat%2Fa%2Fpublish/publish"),
        ("chat/a/publish", "/api/v1/rooms/chat/a/publish/publish"),
        ("chat/publish", "/api/v1/rooms/chat%2Fpublish/publish"),
        ("chat/%2F", "/api/v1/rooms/chat%2F%252F/publish"),
        ("chat/?", "/api/v1/rooms/chat%2F%3F/publish"),
    ],
)
async def test_room_is_found_in_the_path(room: str, path: str, site: Site) -> None:
    async with open_v1_peer(site.server) as v1:
        await v1.join(room)
        assert (await v1.receive())["type"] == "presence"
        body = b'{"data":1}'
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: {BEARER}\r\nContent-Type: application/json\r\n"
        answer = await site.api.exchange(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert answer.status == 200
        assert (await v1.receive())["data"] == 1


async def test_many_publications_have_a_result_each_in_their_order(site: Site) -> None:
    publications: list[dict[str, object]] = [
        {"room": "chat/a", "data": "one"},
        {"room": "nowhere", "data": "lost"},
        {"room": "plain/a", "data": "x"},
        {"room": "chat/a", "data": "AA=", "encoding": "base64"},
        {"room": "chat/a", "data": "two"},
        {"room": "\0orders", "data": "no"},
    ]
    results = (await site.api.post("/api/v1/publish", {"publications": publications})).body["results"]
    assert [result.get("error", {}).get("code") for result in results] == [
        *(None, "unknown_room", None, "invalid", None, "unknown_room"),
    ]
    assert [result.get("position", {}).get("offset") for result in results] == [1, None, None, None, 2, None]


@pytest.mark.parametrize(("count", "status"), [(0, 400), (1_000, 200), (1_001, 400)])
async def test_number_of_publications_is_bounded(count: int, status: int, site: Site) -> None:
    publications = [{"room": f"plain/{number % 3}", "data": number} for number in range(count)]
    assert (await site.api.post("/api/v1/publish", {"publications": publications})).status == status


class Down(MemoryBackplane):
    is_up = True

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if not self.is_up:
            await trio.sleep(4)
            raise trioroom.BackplaneUnavailable("the broker is down")
        await super().publish(room, payload, publication_id)


async def test_outage_is_a_503_that_says_when_to_come_back(autojump_clock: MockClock) -> None:
    backplane = Down()
    async with open_site(backplane) as site:
        backplane.is_up = False
        assert (await site.api.post(room_path("plain/a", "/publish"), {"data": 1})).error == (503, "unavailable")
        assert (await site.api.get("/api/v1/rooms")).error == (503, "unavailable")
        assert (await site.api.get("/api/v1/rooms?here=true")).body["nodes"] == 1
        began = trio.current_time()
        publications = [{"room": "plain/a", "data": 1}] * 100
        answer = await site.api.post("/api/v1/publish", {"publications": publications})
        assert {result["error"]["code"] for result in answer.body["results"]} == {"unavailable"}
        assert trio.current_time() - began < 15, "not for each of them anew"
        assert (await site.api.get("/api/v1/info")).status == 200


# -- looking -----------------------------------------------------------------------------------------


async def test_rooms_of_all_servers_are_listed_by_pages(sites: Sequence[Site]) -> None:
    here, there = sites
    async with AsyncExitStack() as stack:
        for site, rooms in ((here, "abcx"), (there, "cdx")):
            for room in rooms:
                path = f"/plain/{room}" if room != "x" else "/chat/x"
                await stack.enter_async_context(open_peer(site.server, path))
        await wait_all_tasks_blocked()
        everything = await here.api.get("/api/v1/rooms")
        assert {room["name"]: room["members"] for room in everything.body["rooms"]} == {
            **{"chat/x": 2, "plain/a": 1, "plain/b": 1, "plain/c": 2, "plain/d": 1}
        }
        assert [room["name"] for room in everything.body["rooms"]] == sorted(
            room["name"] for room in everything.body["rooms"]
        )
        assert (everything.body["more"], everything.body["nodes"], everything.body["silent"]) == (False, 2, 0)
        names: list[str] = []
        more = True
        while more:
            after = names[-1] if names else ""
            page = (await there.api.get(f"/api/v1/rooms?prefix=plain/&limit=2&after={after}")).body
            names += [room["name"] for room in page["rooms"]]
            more = page["more"]
        assert names == ["plain/a", "plain/b", "plain/c", "plain/d"]
        own = (await there.api.get("/api/v1/rooms?here=true")).body
        assert ([room["name"] for room in own["rooms"]], own["nodes"]) == (["chat/x", "plain/c", "plain/d"], 1)


async def test_room_is_described_here_and_where_nobody_has_joined_it(
    sites: Sequence[Site], autojump_clock: MockClock
) -> None:
    here, there = sites
    async with open_peer(here.server, "/chat/a?ann"), open_peer(here.server, "/chat/a?ann") as peer:
        await trio.sleep(2)
        await here.app.publish("chat/a", "hello")
        await peer.receive()
        near = (await here.api.get(room_path("chat/a"))).body
        far = (await there.api.get(room_path("chat/a"))).body
        assert near["position"]["offset"] == 1
        assert (near["here"]["members"], near["here"]["sent"], near["here"]["overflow"]) == (2, 2, "disconnect")
        assert {**near, "here": None} == far
        assert (far["members"], far["users"], far["nodes"], far["silent"]) == (2, 1, 2, 0)
    plain = (await here.api.get(room_path("plain/a"))).body
    assert (plain["members"], plain["users"], plain["position"], plain["here"]) == (0, None, None, None)


async def test_who_is_present_is_listed_by_pages_on_any_server(
    sites: Sequence[Site], autojump_clock: MockClock
) -> None:
    async with AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(open_peer(sites[0].server, f"/chat/a?u{number}"))
        await trio.sleep(2)
        for site in sites:
            first = (await site.api.get(room_path("chat/a", "/presence?limit=3"))).body
            assert first["members"][0] == {"user": "u0", "info": {"name": "U0"}}
            assert (len(first["members"]), first["count"], first["more"]) == (3, 5, True)
            rest = (await site.api.get(room_path("chat/a", "/presence?limit=3&after=u2"))).body
            assert ([present["user"] for present in rest["members"]], rest["more"]) == (["u3", "u4"], False)
    assert (await sites[1].api.get(room_path("plain/a", "/presence"))).error == (409, "unsupported")


async def test_history_is_read_by_pages_on_any_server(sites: Sequence[Site]) -> None:
    here, there = sites
    async with open_peer(here.server, "/chat/a?ann"):
        await wait_all_tasks_blocked()
        for number in range(5):
            await here.app.publish("chat/a", number if number else b"\x00")
        await wait_all_tasks_blocked()
        for site in sites:
            latest = (await site.api.get(room_path("chat/a", "/history?limit=2"))).body
            assert latest["messages"] == [{"offset": 4, "data": 3}, {"offset": 5, "data": 4}]
            assert (latest["position"]["offset"], latest["more"]) == (5, True)
            epoch = latest["position"]["epoch"]
            older = (await site.api.get(room_path("chat/a", f"/history?before={epoch}:4"))).body
            assert older["messages"][0] == {"offset": 1, "data": "AA==", "encoding": "base64"}
            assert ([message["offset"] for message in older["messages"]], older["more"]) == ([1, 2, 3], False)
            lost = await site.api.get(room_path("chat/a", "/history?before=other:4"))
            assert lost.error == (409, "position_lost")
    assert (await there.api.get(room_path("chat/b", "/history"))).body["messages"] == []
    assert (await there.api.get(room_path("plain/a", "/history"))).error == (409, "unsupported")


async def test_looking_leaves_nothing_behind(sites: Sequence[Site]) -> None:
    for path in ("", "/presence", "/history"):
        await sites[0].api.get(room_path("chat/a", path))
    assert not sites[0].server._hub.rooms
    assert (await sites[1].api.get("/api/v1/rooms")).body["rooms"] == []
    assert (await sites[1].api.get(room_path("chat/a", "/presence"))).body["count"] == 0
