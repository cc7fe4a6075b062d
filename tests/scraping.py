"""What ``/metrics`` tells, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import trio
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import trioroom
from trioroom._net.metrics import Format, expose

Numbers = dict[tuple[str, ...], float]
"""By name, less ``trioroom_``, and the values of the labels in the order of their names."""


@attrs.frozen
class Scraped:
    """One answer."""

    head: str
    body: str

    @property
    def families(self) -> list[Metric]:
        """As a parser of Prometheus' own reads them."""
        parse: Callable[[str], Iterable[Metric]] = parse_openmetrics if "openmetrics" in self.head else parse_text
        return list(parse(self.body))

    @property
    def numbers(self) -> Numbers:
        return {
            (
                sample.name.removeprefix("trioroom_"),
                *(value for _, value in sorted(sample.labels.items())),
            ): sample.value
            for family in self.families
            for sample in family.samples
        }


def _in_order(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels)]


async def scrape(port: int, method: str = "GET", *headers: str, path: str = "/metrics") -> Scraped:
    """One request, which closes its connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        lines = "".join(f"{header}\r\n" for header in headers)
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode())
        response = b"".join([data async for data in stream])
    head, _, body = response.decode().partition("\r\n\r\n")
    return Scraped(head, body)


async def counts(port: int) -> Numbers:
    """What is told now."""
    return (await scrape(port)).numbers


async def told(server: trioroom.Server) -> Numbers:
    """The same without a request, for a clock that is none, and for a server that has ended."""
    return Scraped("", expose(await server._overview.moment(), None, Format.TEXT).decode()).numbers


async def until(port: int, name: tuple[str, ...], value: float) -> Numbers:
    """What is told once a number has come to ``value``: how soon that is the kernel decides too."""
    while (found := await counts(port)).get(name) != value:
        pass
    return found
