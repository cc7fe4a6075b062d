"""The programs in JavaScript of the documentation run, and do what the page beside them says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.web.conftest import WEB
from trioroom import App, open_server
from trioroom.testing import open_v1_peer

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"


@pytest.fixture
def news(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> App:
    """The rooms of the page, and the page in HTML at ``/``."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from news import News

    shutil.copy(EXAMPLES / "news.html", tmp_path / "index.html")
    app = App()
    app.route("news/{name}", News)
    app.static("/", tmp_path)
    return app


async def test_reader_in_node_prints_the_news(node: str, news: App, tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "trioroom").symlink_to(WEB, target_is_directory=True)
    shutil.copy(EXAMPLES / "news_reader.mjs", tmp_path)
    with trio.fail_after(30):
        async with open_server(news, port=0) as server, open_v1_peer(server) as peer, trio.open_nursery() as nursery:
            await peer.join("news/world")
            url = f"ws://127.0.0.1:{server.port}/"
            command = [node, "--experimental-websocket", "--no-warnings", "news_reader.mjs", url]
            said: list[bytes] = []

            async def run() -> None:
                done = await trio.run_process(command, cwd=tmp_path, capture_stdout=True, stderr=subprocess.STDOUT)
                said.append(done.stdout)

            nursery.start_soon(run)
            assert (await peer.receive())["data"] == "a reader has come"
            for text in ("rain", "good night"):
                await news.publish("news/world", text)
        assert said == [b"rain\ngood night\n"]


@pytest.mark.browser
async def test_page_shows_the_news_and_publishes(chromium: Chrome, news: App) -> None:
    def shows(*texts: str) -> None:
        def lines() -> list[str]:
            return [line.text for line in chromium.find_elements(By.CSS_SELECTOR, "#news li")]

        WebDriverWait(chromium, 60, poll_frequency=0.1).until(lambda _: lines() == list(texts))

    def begin(port: int) -> None:
        chromium.get(f"http://127.0.0.1:{port}/")
        chromium.find_element(By.ID, "text").send_keys("sunshine" + Keys.ENTER)
        shows("we said: sunshine")
        assert chromium.find_element(By.ID, "state").text == "open"

    with trio.fail_after(60):
        async with open_server(news, port=0) as server, open_v1_peer(server) as peer:
            await peer.join("news/world")
            await trio.to_thread.run_sync(begin, server.port)
            assert (await peer.receive())["data"] == "sunshine"
            await news.publish("news/world", "rain")
            await trio.to_thread.run_sync(shows, "we said: sunshine", "rain")
