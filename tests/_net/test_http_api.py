"""The HTTP API: whom it answers, what it says to those who ask wrongly, and whom it puts out."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests._net.api_client import BEARER, KEY, ApiClient, room_path
from tests._net.api_sites import Site, make_app, open_site
from tests.conftest import close_code, closed_with
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import cancel_at_step, open_peer, open_v1_peer


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


@pytest.mark.untraced
@given(
    path=st.sampled_from(["rooms/plain%2Fa/publish", "rooms/chat%2Fa/kick", "publish", "disconnect"]),
    body=ANY_JSON | LIKELY | st.lists(LIKELY, max_size=3).map(lambda each: {"publications": each}),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings().max_examples * 2)
def test_any_json_is_served_or_refused(path: str, body: object) -> None:
    import json

    async def main() -> None:
        async with open_site() as site:
            answer = await site.api.send("POST", f"/api/v1/{path}", json.dumps(body).encode())
            assert answer.status in (200, 400, 422)

    trio.run(main)
