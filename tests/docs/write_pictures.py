"""Writes the pictures of the demo in docs/images, in light and dark: ``python -m tests.docs.write_pictures``."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio
from selenium.webdriver import Chrome

from tests.browser import open_chromium
from tests.demo.page import Page, in_browser
from trioroom import connect, open_server
from trioroom.client import ClientRoom
from trioroom.demo.app import app

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
ROOM = "lobby"
WIDTH, HEIGHT = 960, 600
SCALE = 1.5  # pixels of the picture for one of the page: sharp on fine screens, and yet under 150 kB
VIEWER = "Ada"
OTHERS = ("Grace", "Linus", "Barbara", "Edsger")
TALK = (
    ("Grace", "The new version is out, while you were talking. Did anybody notice?"),
    ("Linus", "No. I even closed my laptop in the middle of it, and went on where I was."),
    ("Ada", "Nothing is missing here, either."),
    ("Edsger", "Which of the four servers am I on?"),
    ("Ada", "You would have to ask them. From here they are one."),
)


async def main() -> None:
    """Serve the demo, talk, and take the picture in light and dark."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile, open_chromium(Path(profile)) as driver:
        async with open_server(app, host="127.0.0.1", port=0) as server, AsyncExitStack() as stack:
            rooms = {name: await enter(stack, server.port, name) for name in OTHERS}
            page = await trio.to_thread.run_sync(open_page, driver, server.port)
            for name, text in TALK:
                if name == VIEWER:
                    await in_browser(page.say, text)
                else:
                    await rooms[name].publish({"name": name, "text": text})
                await in_browser(wait_said, page, text)
            await in_browser(take, driver)


async def enter(stack: AsyncExitStack, port: int, name: str) -> ClientRoom:
    """Somebody who is in the room until ``stack`` closes."""
    token = msgspec.json.encode({"user": name, "name": name}).decode()
    client = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/", token=token))
    return await stack.enter_async_context(client.join(f"chat/{ROOM}"))


def open_page(driver: Chrome, port: int) -> Page:
    """The page of who looks on, with the list of those who are here."""
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page = Page(driver, port, ROOM, VIEWER)
    page.wait_count(str(len(OTHERS) + 1))
    driver.find_element("css selector", "#members summary").click()
    return page


def wait_said(page: Page, text: str) -> None:
    page.wait_for(lambda: any(said == text for _, said in page.said))


def take(driver: Chrome) -> None:
    """Both pictures of what is there now, without the cursor's blinking line, in a frame."""
    driver.execute_script("document.activeElement.blur()")
    frame = "position: fixed; inset: 0; z-index: 2; border: 1px solid var(--line)"
    driver.execute_script(
        "document.body.append(document.createElement('i')); document.body.lastChild.style = arguments[0]", frame
    )
    for scheme, name in (("light", "demo.png"), ("dark", "demo-dark.png")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (IMAGES / name).write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    trio.run(main)
