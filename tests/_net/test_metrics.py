"""``/metrics``: every family, in both formats, to whom it may concern; several expositions as one."""

from __future__ import annotations

import math
import re

import pytest

import trioroom
from tests.conftest import Tracked, app_of
from tests.scraping import Scraped, scrape
from trioroom._net.families import FAMILIES, Kind
from trioroom._net.metrics import Format, join
from trioroom.testing import open_test_server

pytestmark = pytest.mark.usefixtures("fresh_records")
KEY = "a-key-of-sixteen"
SETTINGS = trioroom.Settings(
    drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0, public_metrics=True, ping_interval=math.inf
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"


async def test_every_family_is_told_with_its_type_and_labels() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        families = {family.name: family for family in (await scrape(server.port)).families}
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
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        text, opened = await scrape(server.port), await scrape(server.port, "GET", f"Accept: {OPENMETRICS}")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in text.head
    assert "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8" in opened.head
    assert opened.body.endswith("# EOF\n")
    assert opened.numbers.keys() >= text.numbers.keys()


@pytest.mark.parametrize("format", ["", f"Accept: {OPENMETRICS}"])
async def test_head_has_the_head_of_get(format: str) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        headers = [format] if format else []
        get, head = await scrape(server.port, "GET", *headers), await scrape(server.port, "HEAD", *headers)
    assert head.body == ""
    length = re.compile(r"Content-Length: \d+")  # numbers have grown meanwhile
    assert length.sub("", head.head) == length.sub("", get.head)


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
    async with open_test_server(app_of(Tracked), settings, api_key=key, tcp=True) as server:
        headers = [f"Authorization: Bearer {shown}"] if shown else []
        assert (await scrape(server.port, "GET", *headers)).head.startswith(f"HTTP/1.1 {status} ")


# -- several servers -------------------------------------------------------------------------------

ONE = b'# HELP a A.\n# TYPE a gauge\na{worker="1"} 1.0\n# HELP b B.\n# TYPE b gauge\nb{worker="1"} 2.0\n'


def test_what_several_say_of_a_family_stands_together() -> None:
    other = ONE.replace(b'"1"', b'"2"')
    assert join([ONE, other], Format.TEXT) == (
        b"# HELP a A.\n# TYPE a gauge\n"
        b'a{worker="1"} 1.0\na{worker="2"} 1.0\n'
        b"# HELP b B.\n# TYPE b gauge\n"
        b'b{worker="1"} 2.0\nb{worker="2"} 2.0\n'
    )


def test_family_that_one_alone_has_is_kept() -> None:
    newer = ONE.replace(b" a", b" c").replace(b"\na{", b"\nc{").replace(b'"1"', b'"2"')
    joined = join([ONE, newer], Format.TEXT).decode()
    assert [family.name for family in Scraped("", joined).families] == ["a", "b", "c"]


def test_end_of_openmetrics_is_said_once() -> None:
    joined = join([ONE + b"# EOF\n", ONE.replace(b'"1"', b'"2"') + b"# EOF\n"], Format.OPENMETRICS)
    assert joined.count(b"# EOF") == 1
    assert joined.endswith(b"# EOF\n")
