"""The HTTP API: what each operation does, and what it says to those who ask wrongly."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests._net.api_client import BEARER, KEY, ApiClient, room_path
from tests.conftest import close_code, closed_with
from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import cancel_at_step, open_peer, open_v1_peer

POSITION = {"epoch": "e", "offset": 1}
SETTINGS = trioroom.Settings(close_timeout=1.0, leave_timeout=1.0, drain_timeout=2.0)


class Chat(trioroom.Room):
    history = trioroom.History(100)
    presence = True

    async def authorize(self, member: trioroom.Member) -> None:
        member.user = member.token or member.request.query or "nobody"
        member.info = {"name": member.user.title()}


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    app.route("chat/{name}/publish", Chat)
    app.route("plain/{name}", trioroom.Room)
    return app


@attrs.frozen
class Site:
    app: trioroom.App
    server: trioroom.Server
    api: ApiClient


@asynccontextmanager
async def open_site(backplane: Backplane | None = None, **changes: float) -> AsyncIterator[Site]:
    app = make_app()
    chosen = attrs.evolve(SETTINGS, **changes)  # type: ignore[arg-type]  # mypy: a float is no int
    async with trioroom.open_server(app, port=0, settings=chosen, backplane=backplane, api_key=KEY) as server:
        yield Site(app, server, ApiClient(server))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """One server, alone."""
    async with open_site() as opened:
        yield opened


@pytest.fixture
async def sites() -> AsyncIterator[Sequence[Site]]:
    """Two that are linked."""
    backplane = MemoryBackplane()
    async with open_site(backplane) as here, open_site(backplane) as there:
        yield here, there


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
        ("chat/a", "/api/v1/%72ooms/chat%2fa/publish"),
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


class Refusing(MemoryBackplane):
    """A broker that does not take everything, as one does that is full or whose ACL is short."""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if room == "plain/b":
            await trio.lowlevel.checkpoint()
            raise trioroom.BackplaneError("the broker refused a publication")
        await super().publish(room, payload, publication_id)


async def test_what_the_broker_refuses_is_told_and_the_others_go_out() -> None:
    async with open_site(Refusing()) as site, open_peer(site.server, "/plain/c") as peer:
        publications = [{"room": f"plain/{name}", "data": name} for name in "abc"]
        results = (await site.api.post("/api/v1/publish", {"publications": publications})).body["results"]
        assert [result.get("error", {}).get("code") for result in results] == [None, "refused", None]
        assert await peer.receive() == "c"
        alone = await site.api.post(room_path("plain/b", "/publish"), {"data": 1})
        assert alone.error == (422, "refused")


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


async def test_info_is_of_the_server_that_answers(sites: Sequence[Site], autojump_clock: MockClock) -> None:
    async with open_peer(sites[0].server, "/plain/a"):
        await trio.sleep(10)
        info, other = [(await site.api.get("/api/v1/info")).body for site in sites]
    assert (info["connections"], info["rooms"], info["others"], info["ready"]) == (1, 1, 1, True)
    assert info["uptime"] == pytest.approx(10, abs=1)
    assert info["node"] != other["node"]


async def test_head_is_answered_without_a_body(site: Site) -> None:
    answer = await site.api.send("HEAD", "/api/v1/info")
    assert (answer.status, answer.body) == (200, None)


# -- putting out -------------------------------------------------------------------------------------


async def test_user_is_disconnected_everywhere(sites: Sequence[Site]) -> None:
    here, there = sites
    async with open_peer(here.server, "/chat/a?ann") as one, open_peer(there.server, "/chat/b?ann") as other:
        await wait_all_tasks_blocked()
        answer = await here.api.post("/api/v1/disconnect", {"user": "ann", "reason": "enough"})
        assert answer.body == {"connections": 2, "nodes": 2, "silent": 0}
        assert [await closed_with(peer) for peer in (one, other)] == [(4005, "enough")] * 2


async def test_connection_is_disconnected_with_a_code_of_ones_own(site: Site) -> None:
    async with open_v1_peer(site.server) as v1:
        await v1.join("plain/a")
        answer = await site.api.post("/api/v1/disconnect", {"connection": v1.id, "code": 4101})
        assert answer.body["connections"] == 1
        assert await close_code(v1.peer) == 4101


async def test_user_is_put_out_of_a_room(sites: Sequence[Site]) -> None:
    here, there = sites
    async with open_v1_peer(there.server) as v1:
        await v1.request("auth", token="ann")
        await v1.join("chat/a")
        answer = await here.api.post(room_path("chat/a", "/kick"), {"user": "ann", "reason": "be kind"})
        assert answer.body == {"connections": 1, "nodes": 2, "silent": 0}
        while (envelope := await v1.receive())["type"] != "kicked":
            pass
        assert envelope["reason"] == "be kind"
        assert (await v1.request("ping"))["type"] == "ok"


# -- who asks wrongly ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "message"),
    [
        ("rooms/plain%2Fa/publish", b"", 400, "bad_json", "the body is no JSON"),
        ("rooms/plain%2Fa/publish", b"{", 400, "bad_json", "the body is no JSON"),
        ("rooms/plain%2Fa/publish", b'{"data":"\xff"}', 422, "invalid", "data cannot be decoded"),
        ("rooms/plain%2Fa/publish", b"[" * 100_000, 400, "bad_request", "got `array`"),
        ("rooms/plain%2Fa/publish", b"[]", 400, "bad_request", "body: Expected `object`, got `array`"),
        ("rooms/plain%2Fa/publish", b'{"key":%s' % (b"[" * 100_000), 400, "bad_request", "at `$.key`"),
        ("rooms/plain%2Fa/publish", b'{"data":%s' % (b"[" * 100_000), 400, "bad_json", "the body is no JSON"),
        ("rooms/plain%2Fa/publish", b"{}", 400, "bad_request", "body: Object missing required field `data`"),
        ("rooms/plain%2Fa/publish", b'{"data":1,"kye":2}', 400, "bad_request", "unknown field `kye`"),
        ("rooms/plain%2Fa/publish", b'{"data":1,"key":2}', 400, "bad_request", "got `int` - at `$.key`"),
        ("rooms/plain%2Fa/publish", b'{"data":1,"encoding":"base64"}', 422, "invalid", "a string"),
        ("rooms/plain%2Fa/publish", b'{"data":"?","encoding":"base64"}', 422, "invalid", "not base64"),
        ("rooms/plain%2Fa/publish", b'{"data":1,"publication_id":""}', 422, "invalid", "publication_id has 0"),
        ("rooms/plain%2Fa/publish", b'{"data":18446744073709551616}', 422, "invalid", ""),
        ("rooms/plain%2Fa/publish", b'{"data":%s1%s}' % (b"[" * 70, b"]" * 70), 422, "invalid", "nests deeper"),
        ("rooms/nowhere/publish", b'{"data":1}', 404, "unknown_room", "no room is called 'nowhere'"),
        ("rooms/plain%2F%00/publish", b'{"data":1}', 404, "unknown_room", "does not print"),
        ("rooms/%00orders/publish", b'{"data":1}', 404, "unknown_room", "does not print"),
        ("rooms//publish", b'{"data":1}', 404, "unknown_room", ""),
        ("publish", b'{"publications":[{"data":1}]}', 400, "bad_request", "at `$.publications[0]`"),
        ("disconnect", b"{}", 422, "invalid", "needs a user or the id"),
        ("disconnect", b'{"user":"ann","code":1005}', 422, "invalid", "cannot go over the wire"),
        ("disconnect", b'{"user":""}', 422, "invalid", "user of 0 characters"),
        ("disconnect", b'{"user":"a","reason":"%s"}' % (b"x" * 1_001), 400, "bad_request", "$.reason"),
        ("rooms/nowhere/kick", b'{"user":"ann"}', 404, "unknown_room", "nowhere"),
    ],
)
async def test_wrong_body_is_refused_with_what_is_wrong(
    path: str, body: bytes, status: int, code: str, message: str, site: Site
) -> None:
    answer = await site.api.send("POST", f"/api/v1/{path}", body)
    assert answer.error == (status, code)
    assert message in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("rooms?limit=0", "Expected `int` >= 1 - at `$.limit`"),
        ("rooms?limit=1001", "<= 1000"),
        ("rooms?limit=x", "at `$.limit`"),
        ("rooms?lmit=1", "unknown field `lmit`"),
        ("rooms?limit=1&limit=2", "limit is there twice"),
        ("rooms/chat%2Fa/history?before=4", "at `$.before`"),
        ("rooms/chat%2Fa/history?before=e:9999999999999999", "at `$.before`"),
        ("info?x=1", "unknown field `x`"),
    ],
)
async def test_wrong_query_is_refused_with_what_is_wrong(path: str, message: str, site: Site) -> None:
    answer = await site.api.get(f"/api/v1/{path}")
    assert answer.error == (400, "bad_request")
    assert message in answer.body["error"]["message"]


async def test_what_is_not_there_is_told_in_json(site: Site) -> None:
    for path in ("", "nothing", "rooms/", "rooms%2Fa", "info/", "publish/x"):
        answer = await site.api.get(f"/api/v1/{path}")
        assert answer.error in ((404, "not_found"), (404, "unknown_room")), path
    assert (await site.api.get("/api/v1/publish")).error == (405, "method_not_allowed")
    assert (await site.api.send("DELETE", "/api/v1/info")).error == (405, "method_not_allowed")
    posted = await site.api.post("/api/v1/info", {})
    assert (posted.error, posted.headers["allow"]) == ((405, "method_not_allowed"), "GET, HEAD")


async def test_key_is_needed_for_all_of_it(site: Site) -> None:
    for key in (None, "Bearer wrong", KEY, "Basic " + base64.b64encode(b"x:wrong").decode()):
        api = ApiClient(site.server, key)
        for path in ("info", "openapi.json", "rooms", "nothing"):
            assert (await api.get(f"/api/v1/{path}")).error == (401, "unauthorized")
        assert (await api.post("/api/v1/disconnect", {"user": "ann"})).error == (401, "unauthorized")


async def test_without_a_key_there_is_no_api(autojump_clock: MockClock) -> None:
    async with trioroom.open_server(make_app(), port=0) as server, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(f"GET /api/v1/info HTTP/1.1\r\nHost: a\r\nAuthorization: {BEARER}\r\n\r\n".encode())
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 404 ")
        await ours.aclose()


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_a_foreign_page_can_have_a_browser_send_is_refused(content_type: str, site: Site) -> None:
    """With the key as the password that the browser remembers; JSON would make it ask first (CORS), in vain."""
    for key in (BEARER, "Basic " + base64.b64encode(f"x:{KEY}".encode()).decode()):
        api = ApiClient(site.server, key)
        answer = await api.send("POST", "/api/v1/disconnect", b'{"user":"ann"}', content_type=content_type)
        assert answer.error == ((415, "unsupported_media_type") if key == BEARER else (401, "unauthorized"))
    asked_first = await site.api.send("OPTIONS", "/api/v1/disconnect", None, "Origin: https://evil.example")
    assert asked_first.status == 405
    assert "access-control-allow-origin" not in asked_first.headers


async def test_type_of_json_may_have_parameters(site: Site) -> None:
    answer = await site.api.send(
        "POST", "/api/v1/disconnect", b'{"user":"a"}', content_type="Application/JSON; charset=utf-8"
    )
    assert answer.status == 200


async def test_large_body_is_refused_before_it_comes(autojump_clock: MockClock) -> None:
    async with open_site(max_request_bytes=100) as site:
        head = f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: {BEARER}\r\n"
        announced = f"{head}Content-Type: application/json\r\nContent-Length: 101\r\n\r\n"
        assert (await site.api.exchange(announced.encode())).error == (413, "too_large")


async def test_body_that_does_not_come_is_given_up(site: Site, autojump_clock: MockClock) -> None:
    head = f"POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: {BEARER}\r\n"
    announced = f"{head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
    assert (await site.api.exchange(announced.encode())).error == (408, "timeout")


async def test_request_can_be_cancelled_at_any_moment(autojump_clock: MockClock) -> None:
    """A server that stops while it answers: nothing of it is left, and the next one serves."""
    backplane = MemoryBackplane()
    requests = (
        ("POST", "/api/v1/publish", b'{"publications":[{"room":"chat/a","data":1},{"room":"plain/a","data":2}]}'),
        ("POST", "/api/v1/disconnect", b'{"user":"ann"}'),
        ("GET", room_path("chat/a", "/presence"), None),
        ("GET", room_path("chat/a"), None),
    )
    async with open_site(backplane) as there:
        for method, path, body in requests:
            for step in range(200):
                with cancel_at_step(step) as scope:
                    async with open_site(backplane) as here:
                        await here.api.send(method, path, body)
                if not scope.cancelled_caught:
                    break
            assert step > 3
            assert (await there.api.get("/api/v1/info")).body["others"] == 0
            assert (await there.api.send(method, path, body)).status == 200
        assert not backplane._rooms._rooms.keys() - {"\0questions", f"\0answers {there.app._operator.control.node}"}  # type: ignore[union-attr]


# -- any JSON ------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        **{"data": ANY_JSON, "encoding": st.sampled_from(["base64", None, "utf-8"]), "key": st.text() | st.none()},
        **{"publication_id": st.text(max_size=130), "user": st.text(max_size=130), "connection": st.text()},
        **{"reason": st.text(), "code": st.integers(), "publications": st.lists(ANY_JSON)},
        "room": st.sampled_from(["plain/a", "chat/a", "nowhere", "\0orders", "plain/\ud800"]),
    },
)


@given(
    path=st.sampled_from(["rooms/plain%2Fa/publish", "rooms/chat%2Fa/kick", "publish", "disconnect"]),
    body=ANY_JSON | LIKELY | st.lists(LIKELY, max_size=3).map(lambda each: {"publications": each}),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_json_is_served_or_refused(path: str, body: object) -> None:
    import json

    async def main() -> None:
        async with open_site() as site:
            answer = await site.api.send("POST", f"/api/v1/{path}", json.dumps(body).encode())
            assert answer.status in (200, 400, 422)

    trio.run(main)
