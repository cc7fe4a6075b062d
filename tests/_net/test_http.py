"""Plain HTTP beside the rooms: health, readiness, files that stay within their directory, and the browser client."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import trioroom
from trioroom._net.endpoints import Endpoints
from trioroom._net.http import HttpResponder
from trioroom._wire.http import Request
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby


class Response:
    """Taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines)


class Site:
    """A responder for the files in ``root``, with a secret beside that directory; its client is in ``client``."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "public"
        self.root.mkdir()
        (directory / "secret.txt").write_text("secret")
        (directory / "public-not").mkdir()
        (directory / "public-not" / "secret.txt").write_text("secret")
        (self.root / "index.html").write_text("<html>")
        (self.root / "sub").mkdir()
        (self.root / "sub" / "page.html").write_text("<p>")
        self.client = directory / "client"
        self.client.mkdir()
        (self.client / "trioroom.js").write_text("export {};")
        (self.client / "trioroom.d.ts").write_text("export {};")
        (self.client / "package.json").write_text("{}")
        self.ready = True
        mounts = [("/files/", self.root), ("/", self.root)]
        self._responder = HttpResponder(
            mounts, lambda: None if self.ready else "it rests", Endpoints(None, 1.0), self.client
        )

    async def get(self, path: str, method: str = "GET", **headers: str) -> Response:
        """``path`` as the head's parser has decoded it; headers are written with an underscore for each dash."""
        fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        request = Request(method, path, path, "", fields)
        return Response(await self._responder.respond(request, math.inf, self._read_body))

    async def _read_body(self) -> bytes:
        raise AssertionError("no file asks for a body")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path.resolve())


async def test_health_is_told_as_long_as_anything_answers(site: Site) -> None:
    site.ready = False
    response = await site.get("/healthz")
    assert (response.status, response.body) == (200, b"ok\n")


async def test_readiness_follows_the_backplane(site: Site) -> None:
    response = await site.get("/readyz")
    assert (response.status, response.body) == (200, b"ready\n")
    site.ready = False
    response = await site.get("/readyz")
    assert (response.status, response.body) == (503, b"not ready: it rests\n")
    site.ready = True
    assert (await site.get("/readyz")).status == 200


@pytest.mark.parametrize("path", ["/", "/index.html", "/files/", "/files/index.html", "/sub/../index.html"])
async def test_file_is_served(site: Site, path: str) -> None:
    response = await site.get(path)
    assert (response.status, response.body) == (200, b"<html>")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Length"] == "6"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_file_of_a_folder_below_is_served(site: Site) -> None:
    assert (await site.get("/sub/page.html")).body == b"<p>"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/nothing"])
async def test_head_is_get_without_the_body(site: Site, path: str) -> None:
    get, head = await site.get(path), await site.get(path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
    assert int(head.headers["Content-Length"]) == len(get.body) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
async def test_other_methods_are_refused_and_the_right_ones_named(site: Site, method: str) -> None:
    response = await site.get("/", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/sub",  # a directory
        "/sub/",
        "/index.html/more",
        "/files",  # the prefix ends with a slash
        "",
        "*",
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/files/../secret.txt",
        "/files/../public-not/secret.txt",
        "//secret.txt",
        "/..",
        "/.",
        "/..\\secret.txt",
        "/\0",
        "/index.html\0",
        "/index.html\0.txt",
        "/~root",
        "/" + "x" * 5_000,  # longer than any file's name
        "/" + "x/" * 2_500,
        "/" + "../" * 2_500 + "etc/passwd",
    ],
)
async def test_what_is_no_file_of_the_directory_is_not_found(site: Site, path: str) -> None:
    response = await site.get(path)
    assert (response.status, response.body) == (404, b"nothing here; rooms are reached by WebSocket\n")


async def test_absolute_path_is_no_way_out(site: Site) -> None:
    assert (await site.get(f"/{site.root.parent / 'secret.txt'}")).status == 404
    assert (await site.get(f"/files/{site.root / 'index.html'}")).status in (200, 404)  # its own file is no secret


async def test_link_is_followed_within_the_directory_only(site: Site) -> None:
    (site.root / "inside").symlink_to(site.root / "index.html")
    (site.root / "outside").symlink_to(site.root.parent / "secret.txt")
    (site.root / "up").symlink_to(site.root.parent)
    (site.root / "neighbour").symlink_to(site.root.parent / "public-not")
    (site.root / "dangling").symlink_to(site.root / "gone")
    assert (await site.get("/inside")).body == b"<html>"
    for path in ("/outside", "/up/secret.txt", "/neighbour/secret.txt", "/dangling"):
        assert (await site.get(path)).status == 404


async def test_link_to_itself_is_not_found(site: Site) -> None:
    (site.root / "loop").symlink_to(site.root / "loop")
    assert (await site.get("/loop")).status == 404
    assert (await site.get("/loop/more")).status == 404


async def test_what_is_no_regular_file_is_not_found(site: Site) -> None:
    os.mkfifo(site.root / "pipe")  # reading it would wait for ever
    assert (await site.get("/pipe")).status == 404


async def test_file_that_cannot_be_read_is_not_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything, and tests may run as root
    assert (await site.get("/index.html")).status == 404


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("notes.txt", "text/plain; charset=utf-8"),
        ("picture.png", "image/png"),
        ("picture.svg", "image/svg+xml"),
        ("data.json", "application/json"),
        ("noextension", "application/octet-stream"),
        ("strange.zzzz", "application/octet-stream"),
        ("page.html.gz", "application/octet-stream"),  # compressed bytes: not HTML for whoever unpacks nothing
        ("größe.txt", "text/plain; charset=utf-8"),
    ],
)
async def test_content_type_comes_from_the_name(site: Site, name: str, content_type: str) -> None:
    (site.root / name).write_bytes(b"x")
    response = await site.get(f"/{name}")
    assert (response.status, response.headers["Content-Type"]) == (200, content_type)


async def test_script_is_served_as_one(site: Site) -> None:
    (site.root / "app.js").write_bytes(b"x")
    response = await site.get("/app.js")
    assert "javascript" in response.headers["Content-Type"]  # text/ or application/, by Python's version


async def test_reading_a_file_leaves_the_loop_to_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    applications = trio.to_thread.current_default_thread_limiter()

    def read_slowly(self: Path) -> bytes:
        trio.from_thread.run(trio.lowlevel.checkpoint)  # fails unless called from a worker thread
        return str(applications.borrowed_tokens).encode()

    monkeypatch.setattr(Path, "read_bytes", read_slowly)
    assert (await site.get("/index.html")).body == b"0"


# -- what a cache asks, and our client ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/index.html", "/trioroom.js"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ["{}", "W/{}", '"old", {}', '"a,b",W/{}', "*"])
async def test_client_that_has_a_file_gets_no_second_copy(site: Site, path: str, method: str, known: str) -> None:
    first = await site.get(path)
    tag = first.headers["ETag"]
    again = await site.get(path, method, if_none_match=known.format(tag))
    assert (again.status, again.body) == (304, b"")
    assert (again.headers["ETag"], again.headers["Cache-Control"]) == (tag, "no-cache")
    assert "Content-Length" not in again.headers  # of the answer to the GET it would be, not of nothing
    allowed = "Access-Control-Allow-Origin"
    assert again.headers.get(allowed) == first.headers.get(allowed)


@pytest.mark.parametrize("known", ['"old"', "", "old", '"*"'])
async def test_file_that_has_changed_is_sent_whole(site: Site, known: str) -> None:
    tag = (await site.get("/index.html")).headers["ETag"]
    (site.root / "index.html").write_text("<html>!")
    for validator in (tag, known):
        response = await site.get("/index.html", if_none_match=validator)
        assert (response.status, response.body) == (200, b"<html>!")
    assert response.headers["ETag"] not in (tag, known)


async def test_what_is_not_there_is_not_found_whatever_a_cache_holds(site: Site) -> None:
    assert (await site.get("/nothing", if_none_match="*")).status == 404


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/trioroom.js", "text/javascript; charset=utf-8"), ("/trioroom.d.ts", "text/plain; charset=utf-8")],
)
async def test_browser_client_is_served_to_pages_of_any_origin(site: Site, path: str, content_type: str) -> None:
    get, head = await site.get(path), await site.get(path, "HEAD")
    assert (get.status, get.body) == (200, b"export {};")
    assert (get.headers["Content-Type"], get.headers["Cache-Control"]) == (content_type, "no-cache")
    assert get.headers["Access-Control-Allow-Origin"] == "*"
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert "Access-Control-Allow-Origin" not in (await site.get("/index.html")).headers  # an application's own affair


async def test_only_two_files_are_the_client(site: Site) -> None:
    for path in ("/package.json", "/trioroom.js/", "//trioroom.js", "/trioroom.JS", "/files/trioroom.js"):
        assert (await site.get(path)).status == 404


async def test_file_of_the_application_stands_before_the_client(site: Site) -> None:
    (site.root / "trioroom.js").write_text("mine")
    response = await site.get("/trioroom.js")
    assert response.body == b"mine"
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_package_without_the_client_still_serves(site: Site) -> None:
    (site.client / "trioroom.js").unlink()
    assert (await site.get("/trioroom.js")).status == 404


# -- on the wire -----------------------------------------------------------------------------------


async def fetch(server: trioroom.Server, request: bytes) -> Response:
    """One request on a connection of its own, until the server ends it."""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(request)
            received = b"".join([data async for data in stream])
    return Response(received)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/index.html?v=1", 200),
        ("http://test/index.html", 200),
        ("/%69ndex.html", 200),
        ("/nothing", 404),
        ("/%2e%2e/secret.txt", 404),
        ("/..%2fsecret.txt", 404),
        ("/%2e%2e%2fsecret.txt", 404),
        ("/..%5csecret.txt", 404),
        ("/%252e%252e/secret.txt", 404),
        ("/index.html%00", 404),
        ("/index.html%0a", 404),
        ("/%ff", 400),
        ("/" + "x" * 8_000, 404),
        ("/" + "x" * 9_000, 414),
        ("/echo/a", 426),
    ],
)
async def test_get_over_a_socket(site: Site, lobby: Lobby, target: str, status: int) -> None:
    lobby.app.static("/", site.root)
    async with open_test_server(lobby.app, tcp=True) as server:
        response = await fetch(server, f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    assert response.status == status
    assert b"secret" not in response.body
    assert response.headers["Connection"].startswith("close")


async def test_room_of_any_name_does_not_hide_what_the_server_says_itself() -> None:
    app = trioroom.App()
    app.route("{name}", trioroom.Room)
    async with open_test_server(app, tcp=True) as server:
        assert (await fetch(server, b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")).body == b"ok\n"
        assert (await fetch(server, b"GET /trioroom.js HTTP/1.1\r\nHost: test\r\n\r\n")).status in (200, 404)
        assert (await fetch(server, b"GET /lobby HTTP/1.1\r\nHost: test\r\n\r\n")).status == 426
        async with open_peer(server, "/healthz"):
            pass  # a handshake gets into a room of that name all the same


async def test_bad_file_of_one_request_harms_no_other(site: Site, lobby: Lobby) -> None:
    (site.root / "loop").symlink_to(site.root / "loop")
    lobby.app.static("/", site.root)
    async with open_test_server(lobby.app, tcp=True) as server:
        assert (await fetch(server, b"GET /loop HTTP/1.1\r\nHost: test\r\n\r\n")).status == 404
        assert (await fetch(server, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")).status == 200


async def test_large_file_arrives_whole(site: Site, lobby: Lobby) -> None:
    content = bytes(range(256)) * 20_000  # 5 MB: more than the kernel takes at once
    (site.root / "large.bin").write_bytes(content)
    lobby.app.static("/", site.root)
    async with open_test_server(lobby.app, tcp=True) as server:
        response = await fetch(server, b"GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n")
    assert response.body == content
