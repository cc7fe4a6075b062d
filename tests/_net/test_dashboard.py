"""The dashboard's answers: who gets them, and what they do not let a browser do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import trioroom
from tests._core.snapshots import make_snapshot
from trioroom._core.api_key import ApiKey
from trioroom._core.node_reports import SILENT_FOR
from trioroom._core.snapshot import Report, Snapshot
from trioroom._net.dashboard import PAGE, Dashboard
from trioroom._net.endpoints import Endpoints
from trioroom._wire.http import Request

KEY = "correct-horse-battery"
FILES = ["", *sorted(path.name for path in PAGE.iterdir())]


@asynccontextmanager
async def open_site(api_key: str | None = KEY) -> AsyncIterator[trioroom.Server]:
    app = trioroom.App()
    app.route("chat/{name}", trioroom.Room)
    async with trioroom.open_server(app, port=0, api_key=api_key) as server:
        yield server


async def get(server: trioroom.Server, path: str, key: str | None = KEY, method: str = "GET") -> tuple[int, str, bytes]:
    """Status, head and body."""
    ours, theirs = memory_stream_pair()
    shown = "" if key is None else f"Authorization: Bearer {key}\r\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{shown}\r\n".encode())
        answer = b""
        while not _is_whole(answer):
            answer += await ours.receive_some()
        await ours.aclose()  # else the server waits a second for that
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)\r\n", head)
    return length is not None and len(body) >= int(length[1])


@pytest.mark.parametrize("path", ["/_/", "/_", "/_/nodes.json", "/_/page.js", "/_/nothing"])
async def test_is_not_there_without_a_key_and_closed_to_who_has_none(path: str) -> None:
    async with open_site(api_key=None) as server:
        assert (await get(server, path))[0] == 404
    async with open_site() as server:
        for key in (None, "wrong"):
            status, _, body = await get(server, path, key)
            assert status == 401
            assert body.endswith(b"; send Authorization: Bearer KEY\n")


@pytest.mark.parametrize("name", [*FILES, "nodes.json"])
async def test_whatever_it_answers_runs_nothing_foreign_and_is_kept_by_nobody(name: str) -> None:
    async with open_site() as server:
        status, head, body = await get(server, f"/_/{name}")
    assert status == 200
    assert body
    assert "\r\nContent-Security-Policy: default-src 'self'; " in head
    assert "frame-ancestors 'none'" in head
    assert "unsafe" not in head
    for line in ("Referrer-Policy: no-referrer", "Cross-Origin-Resource-Policy: same-origin", "Cache-Control: no-store",
                 "X-Content-Type-Options: nosniff"):  # fmt: skip
        assert line in head.split("\r\n")
    assert "Access-Control" not in head


async def test_files_have_their_types() -> None:
    async with open_site() as server:
        heads = {name: (await get(server, f"/_/{name}"))[1] for name in ("", "page.js", "dashboard.css", "favicon.svg")}
    types = [re.search("Content-Type: ([^;\r]+)", head)[1] for head in heads.values()]  # type: ignore[index]
    assert types == ["text/html", "text/javascript", "text/css", "image/svg+xml"]


async def test_address_without_its_slash_leads_there_under_any_prefix() -> None:
    async with open_site() as server:
        status, head, _ = await get(server, "/_")
    assert status == 308
    assert "\r\nLocation: _/" in head


@pytest.mark.parametrize("path", ["/_/nothing", "/_/../app.py", "/_/%2e%2e/app.py", "/_/page.js/", "/_/."])
async def test_what_is_no_file_of_it_is_not_found(path: str) -> None:
    async with open_site() as server:
        assert (await get(server, path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_it_changes_nothing(method: str) -> None:
    async with open_site() as server:
        assert (await get(server, "/_/nodes.json", method=method))[0] == 405


async def test_page_has_no_script_and_no_style_in_it() -> None:
    page = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)|//", page)


def test_modules_set_no_markup() -> None:
    for path in PAGE.glob("*.js"):
        text = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)


async def test_figures_are_those_of_the_server() -> None:
    async with open_site() as server:
        _, head, body = await get(server, "/_/nodes.json")
    assert "Content-Type: application/json" in head
    [node] = msgspec.json.decode(body, type=Report).nodes
    assert not node.silent
    assert node.snapshot.version == trioroom.__version__
    assert node.snapshot.connections == 0


class Nodes:
    """What they answer, each time they are asked, and how long that takes."""

    def __init__(self, *answers: list[Snapshot], takes: float = 0) -> None:
        self.left = [*answers]
        self.takes = takes
        self.endpoints = Endpoints(ApiKey(KEY), 5.0)
        Dashboard(self.gather).add_to(self.endpoints)

    async def gather(self) -> list[Snapshot]:
        await trio.sleep(self.takes)
        return self.left.pop(0)

    async def look(self) -> Report:
        """What one who watches is told now."""
        endpoint = self.endpoints.find("/_/nodes.json")
        assert endpoint is not None
        headers = (("authorization", f"Bearer {KEY}"),)
        answer = await self.endpoints.respond(
            endpoint, Request("GET", "/_/nodes.json", "/_/nodes.json", "", headers), _read_nothing
        )
        return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=Report)


async def _read_nothing() -> bytes:
    raise AssertionError("nobody sends a body")


async def test_node_that_falls_silent_is_shown_as_such_and_then_gone(autojump_clock: MockClock) -> None:
    nodes = Nodes([make_snapshot("a"), make_snapshot("b")], [make_snapshot("a")], [])
    told = []
    for pause in (2.0, SILENT_FOR, 0.0):
        told.append([(node.snapshot.node, node.silent) for node in (await nodes.look()).nodes])
        await trio.sleep(pause)
    assert told == [[("a", False), ("b", False)], [("a", False), ("b", True)], []]


async def test_nodes_are_asked_once_for_all_who_watch(autojump_clock: MockClock) -> None:
    nodes = Nodes([make_snapshot("a")], [make_snapshot("b")], takes=0.3)
    told = []

    async def watch() -> None:
        told.append([node.snapshot.node for node in (await nodes.look()).nodes if not node.silent])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(watch)
        await trio.sleep(0.7)  # after the answer
        nursery.start_soon(watch)
    assert told == [["a"]] * 11
    assert len(nodes.left) == 1
    await trio.sleep(0.5)
    await watch()
    assert told[-1] == ["b"]


async def test_one_who_gives_up_while_the_nodes_are_asked_holds_up_nobody(autojump_clock: MockClock) -> None:
    nodes = Nodes([make_snapshot("a")], takes=0.3)
    with trio.move_on_after(0.1):
        await nodes.look()
    assert [node.snapshot.node for node in (await nodes.look()).nodes] == ["a"]
