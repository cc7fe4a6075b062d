"""Telemetry: a slow dashboard skips values and no device, and only who has the key reports."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.error import HTTPError

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.support.select import Select

from tests.docs.examples.page import Page
from tests.docs.examples.running import DEADLINE, running, stop
from trioroom import open_server
from trioroom.testing import open_v1_peer

KEY = "0123456789abcdef"


async def test_slow_dashboard_gets_the_latest_of_every_device() -> None:
    from telemetry.app import app, report

    devices, rounds = 1_000, 10
    with trio.fail_after(DEADLINE):
        async with open_server(app, port=0, api_key=KEY) as server, open_v1_peer(server, tcp=True) as dashboard:
            await dashboard.join("site/north")
            for number in range(rounds):
                values = dict.fromkeys(range(devices), float(number))
                await trio.to_thread.run_sync(report, f"http://127.0.0.1:{server.port}", KEY, "north", values)
            seen: Counter[int] = Counter()
            latest: dict[int, float] = {}
            while Counter(latest.values())[rounds - 1] < devices:
                envelope = await dashboard.receive()
                if envelope["type"] == "message":
                    device, value = envelope["data"]
                    seen[device] += 1
                    assert latest.get(device, -1) < value
                    latest[device] = value
            assert seen.total() < devices * rounds


async def test_dashboards_watch_the_site_they_asked_for_and_report_nothing() -> None:
    from telemetry.app import app, report

    async with open_server(app, port=0, api_key=KEY) as server, open_v1_peer(server) as dashboard:
        assert (await dashboard.join("site/harbour"))["state"] == {"devices": 400}
        for site, values in (("north", {1: 10.0}), ("harbour", {2: 20.5})):
            await trio.to_thread.run_sync(report, f"http://127.0.0.1:{server.port}", KEY, site, values)
        assert (await dashboard.receive())["data"] == [2, 20.5]
        refused = await dashboard.request("publish", room="site/harbour", data=[2, 99])
        assert (refused["code"], refused["message"]) == ("denied", "dashboards only watch; devices report over HTTP")
        refused = await dashboard.request("join", room="site/moon")
        assert (refused["code"], refused["message"]) == ("denied", "there is no site moon")


async def test_who_has_no_key_reports_nothing() -> None:
    from telemetry.app import app, report

    async with open_server(app, port=0, api_key=KEY) as server:
        with pytest.raises(HTTPError, match="401") as refused:
            await trio.to_thread.run_sync(report, f"http://127.0.0.1:{server.port}", "guess", "north", {1: 10.0})
        refused.value.close()


async def test_report_that_does_not_arrive_does_not_end_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from telemetry import app as telemetry

    monkeypatch.setattr(telemetry, "INTERVAL", 0.01)
    async with open_server(telemetry.app, port=0, api_key=KEY) as server:
        url = f"http://127.0.0.1:{server.port}"
    with trio.fail_after(DEADLINE):  # the server has gone
        async with trio.open_nursery() as nursery:
            nursery.start_soon(telemetry.simulate, url, KEY, "harbour")
            told = ""
            while told.count("harbour was not reported: ") < 2:
                await trio.sleep(0.01)
                told += capsys.readouterr().out
            nursery.cancel_scope.cancel()


@pytest.mark.browser
async def test_page_passes_over_what_is_no_value_of_a_device(chromium: Chrome) -> None:
    from telemetry.app import app, report

    with trio.fail_after(2 * DEADLINE):
        async with open_server(app, port=0, api_key=KEY) as server:
            url = f"http://127.0.0.1:{server.port}"
            page = Page(chromium)
            await page.open(f"{url}/")
            await page.wait_text("devices", "0/1000")
            values: dict[int, Any] = {1: "abc", 2: None, 5_000: 1.0, -1: 1.0, 3: 20.0}
            await trio.to_thread.run_sync(report, url, KEY, "north", values)
            await page.wait_text("devices", "1/1000")
            await page.wait_text("mean", "20.0 °C")
            await page.check()


@pytest.mark.browser
async def test_program_feeds_its_page(chromium: Chrome) -> None:
    program = "import trio; from telemetry.app import main; trio.run(main, 0)"
    with trio.fail_after(2 * DEADLINE), running("-c", program) as process:
        assert process.stdout is not None
        line = await trio.to_thread.run_sync(process.stdout.readline)
        page = Page(chromium)
        await page.open(line.removeprefix("dashboard: ").strip())
        await page.wait_text("devices", "1000/1000")
        await page.wait_text("mean", "°C")
        await page.do(lambda driver: Select(driver.find_element("id", "site")).select_by_visible_text("harbour"))
        await page.wait_text("devices", "400/400")
        await page.check()
        stop(process)
