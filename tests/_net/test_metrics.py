"""``/metrics``: every family in both formats, and counts that agree with what has happened."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import attrs
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import trioroom
from tests.conftest import Tracked, app_of, close_code
from trioroom._net.families import FAMILIES, Kind
from trioroom._net.metrics import Format, join
from trioroom._wire.frames import Opcode
from trioroom.testing import open_peer, open_test_server, open_v1_peer

pytestmark = pytest.mark.usefixtures("fresh_records")
KEY = "a key of sixteen".replace(" ", "-")
SETTINGS = trioroom.Settings(
    drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0, public_metrics=True, ping_interval=math.inf
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"


@attrs.frozen
class Scraped:
    """What ``/metrics`` has answered."""

    head: str
    body: str

    @property
    def samples(self) -> dict[tuple[str, ...], float]:
        """Numbers by name and the values of their labels."""
        families = parse_openmetrics(self.body) if "openmetrics" in self.head else parse_text(self.body)
        return {
            (sample.name.removeprefix("trioroom_"), *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


async def scrape(server: trioroom.Server, method: str = "GET", *headers: str) -> Scraped:
    """One request, which closes its connection."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        lines = "".join(f"{header}\r\n" for header in headers)
        await stream.send_all(f"{method} /metrics HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode())
        response = b"".join([data async for data in stream])
    head, _, body = response.decode().partition("\r\n\r\n")
    return Scraped(head, body)


async def counts(server: trioroom.Server) -> dict[tuple[str, ...], float]:
    return (await scrape(server)).samples


async def until(server: trioroom.Server, name: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    """What is told once a number has come to ``value``: how soon that is the kernel decides too."""
    while (found := await counts(server)).get(name) != value:
        await trio.sleep(0.01)
    return found


# -- what is told, and to whom ---------------------------------------------------------------------


async def test_every_family_is_told_with_its_type_and_labels() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server:
        families = {family.name: family for family in parse_text((await scrape(server)).body)}
    told = {family.name.removesuffix("_total"): family for family in FAMILIES if "backplane" not in family.name}
    assert families.keys() >= told.keys()
    for name, family in told.items():
        assert families[name].type == family.kind.value
        assert families[name].documentation == family.meaning
        for sample in families[name].samples:
            assert {*sample.labels} - {"le"} == {*family.labels}
        assert families[name].samples, name


def test_names_are_as_prometheus_wants_them() -> None:
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family.name
        assert family.name.startswith(("trioroom_", "process_"))
        assert family.meaning.endswith("."), family.name


async def test_openmetrics_is_told_to_who_accepts_it() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server:
        text, opened = await scrape(server), await scrape(server, "GET", f"Accept: {OPENMETRICS}")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in text.head
    assert "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8" in opened.head
    assert opened.body.endswith("# EOF\n")
    assert opened.samples.keys() == text.samples.keys()


@pytest.mark.parametrize("format", ["", f"Accept: {OPENMETRICS}"])
async def test_head_has_the_head_of_get(format: str) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server:
        headers = [format] if format else []
        get, head = await scrape(server, "GET", *headers), await scrape(server, "HEAD", *headers)
    assert head.body == ""
    assert [line for line in head.head.splitlines() if "Length" not in line] == [
        line for line in get.head.splitlines() if "Length" not in line  # numbers have grown meanwhile
    ]


@pytest.mark.parametrize(
    ("settings", "key", "shown", "status"),
    [
        (trioroom.Settings(), None, None, 404),
        (trioroom.Settings(), KEY, None, 401),
        (trioroom.Settings(), KEY, "another-of-sixteen", 401),
        (trioroom.Settings(), KEY, KEY, 200),
        (trioroom.Settings(public_metrics=True), None, None, 200),
        (trioroom.Settings(public_metrics=True), KEY, None, 200),
    ],
)
async def test_key_opens_it_unless_it_is_public(
    settings: trioroom.Settings, key: str | None, shown: str | None, status: int
) -> None:
    async with open_test_server(app_of(Tracked), settings, api_key=key) as server:
        headers = [f"Authorization: Bearer {shown}"] if shown else []
        assert (await scrape(server, "GET", *headers)).head.startswith(f"HTTP/1.1 {status} ")
        assert (await scrape(server, "POST", *headers)).head.startswith(f"HTTP/1.1 {405 if status == 200 else status} ")
