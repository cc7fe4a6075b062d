"""The page on two servers that a broker links, which goes away and comes back."""

from __future__ import annotations

import pytest
import trio
from selenium.webdriver import Chrome

from tests.demo.brokers import Broker, two_demos
from tests.demo.page import Page, in_browser

pytestmark = pytest.mark.browser
MISSING = "Some messages may be missing here."


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis", marks=pytest.mark.redis),  # which forgets
        pytest.param("nats", marks=pytest.mark.nats),  # which does not
        pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.thorough]),
    ],
    indirect=True,
)
async def test_pages_on_two_servers_are_one_chat_also_after_the_broker_was_away(
    chromium: Chrome, broker: Broker
) -> None:
    pages: list[Page] = []
    said = [("Ada", "hello over there"), ("Grace", "hello back")]

    def begin(*ports: int) -> None:
        pages.append(Page(chromium, ports[0], "lobby", "Ada"))
        chromium.switch_to.new_window("window")
        pages.append(Page(chromium, ports[1], "lobby", "Grace"))
        for page in pages:
            page.wait_count("2")
        converse(*said)

    def converse(*messages: tuple[str, str]) -> None:
        for message in messages:
            pages[("Ada", "Grace").index(message[0])].say(message[1])
            for page in pages:
                page.wait_for(lambda page=page, message=message: page.said[-1:] == [message])  # type: ignore[misc]

    def speak_in_vain() -> None:
        pages[0].say("is anybody there?")
        pages[0].wait_for(lambda: "Most likely not sent" in pages[0].notes)
        assert pages[0].draft == "is anybody there?"

    def go_on() -> None:
        if not broker.keeps:
            for page in pages:
                page.wait_for(lambda page=page: MISSING in page.notes)  # type: ignore[misc]
        said.extend([("Ada", "is anybody there?"), ("Grace", "again")])
        converse(*said[2:])
        for page in pages:
            page.wait_count("2")
            assert page.said == said
            assert page.state == "connected"
            assert (MISSING in page.notes) is not broker.keeps

    with trio.fail_after(120):
        async with two_demos(broker) as ports:
            await in_browser(begin, *ports)
            broker.server.kill()
            await in_browser(speak_in_vain)
            await trio.sleep(1)  # its server waits as long as the page, and a little more: then it is given up
            await broker.server.restart()
            await in_browser(go_on)
