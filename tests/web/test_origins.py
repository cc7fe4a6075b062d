"""A page of another origin in a real browser: it stays out unless somebody has said that it may come in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from selenium.webdriver import Chrome

import trioroom

OPEN = """
const [url, subprotocols, done] = arguments;
const socket = new WebSocket(url, subprotocols);
socket.onopen = () => { socket.close(1000); done("open"); };
socket.onerror = () => done("refused");
"""
"""What comes of opening a WebSocket from the page that is shown."""


async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
    """By a cookie, which the browser sends wherever the page comes from: cookies do not look at ports."""
    if credentials.request.header("cookie") != "session=anns":
        raise trioroom.AuthenticationRefused("log in first")
    return trioroom.Identity("ann")


def make_app(pages: Path) -> trioroom.App:
    app = trioroom.App(authenticate=authenticate)
    app.route("room/{name}", trioroom.Room)
    app.static("/", pages)
    return app


@pytest.mark.browser
@pytest.mark.parametrize("subprotocols", [[], ["trioroom.v1.json"]])
async def test_page_of_another_origin_is_kept_out_though_it_has_the_cookies(
    chromium: Chrome, subprotocols: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>A page</title>")

    def what_comes_of(page: int, url: str) -> Any:
        chromium.get(f"http://127.0.0.1:{page}/")
        return chromium.execute_async_script(OPEN, url, list(subprotocols))

    async def opened(page: trioroom.Server, server: trioroom.Server) -> Any:
        return await trio.to_thread.run_sync(what_comes_of, page.port, f"ws://127.0.0.1:{server.port}/room/a")

    with trio.fail_after(60):
        async with trioroom.open_server(make_app(tmp_path), port=0) as elsewhere:
            allowed = (f"http://127.0.0.1:{elsewhere.port}",)
            async with (
                trioroom.open_server(make_app(tmp_path), port=0) as server,
                trioroom.open_server(
                    make_app(tmp_path), port=0, settings=trioroom.Settings(allowed_origins=allowed)
                ) as open_to_it,
            ):
                await trio.to_thread.run_sync(chromium.get, f"http://127.0.0.1:{server.port}/")
                chromium.add_cookie({"name": "session", "value": "anns"})
                assert await opened(server, server) == "open"
                assert await opened(elsewhere, server) == "refused"
                assert await opened(elsewhere, open_to_it) == "open"
                assert await opened(server, open_to_it) == "refused"
                chromium.delete_all_cookies()
                assert await opened(server, server) == ("open" if subprotocols else "refused")
