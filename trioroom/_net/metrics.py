"""``/metrics``: what a server counts, as Prometheus reads it; of several workers, one tells it for all.

Counting is done elsewhere, in plain numbers. Here they are read and put into words when somebody asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from trioroom._core.histogram import Histogram
from trioroom._net.families import FAMILIES, WORKER, WORKER_UP, Family, Kind
from trioroom._net.moment import Moment, Samples
from trioroom._wire.http import encode_response, split_list

if TYPE_CHECKING:
    from trioroom._net.endpoints import ReadBody
    from trioroom._net.siblings import Siblings
    from trioroom._wire.http import Request

_OPENMETRICS_END = b"# EOF\n"
_HELP, _TYPE = b"# HELP ", b"# TYPE "


class Format(Enum):
    """The value is the media type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @property
    def path(self) -> str:
        """By which siblings ask for it."""
        return f"metrics/{self.name.lower()}"


class Metrics:
    """The endpoint of one server.

    Args:
        read: gives all numbers.
        siblings: the other workers of our port; None where there are none.
    """

    def __init__(self, read: Callable[[], Awaitable[Moment]], siblings: Siblings | None) -> None:
        self._read = read
        self._siblings = siblings
        if siblings is not None:
            for format in Format:
                siblings.serve(format.path, partial(self._tell_own, format))

    async def answer(self, request: Request, read_body: ReadBody) -> bytes:
        """The response to a scrape."""
        format = _format_of(request)
        body = await (self._tell_own(format) if self._siblings is None else self._tell_all(format, self._siblings))
        return encode_response(200, body, content_type=format.value)

    async def _tell_own(self, format: Format) -> bytes:
        worker = None if self._siblings is None else self._siblings.number
        return expose(await self._read(), worker, format)

    async def _tell_all(self, format: Format, siblings: Siblings) -> bytes:
        others = await siblings.ask(format.path)
        told = [await self._tell_own(format), *(each for each in others.values() if each is not None)]
        up = {siblings.number: True, **{number: each is not None for number, each in others.items()}}
        samples = (((str(number),), float(is_up)) for number, is_up in sorted(up.items()))
        return join([*told, _write([_to_metric(WORKER_UP, samples, {})], format)], format)


def _format_of(request: Request) -> Format:
    accepted = (media.partition(";")[0].strip() for media in split_list(request.values("accept")))
    return Format.OPENMETRICS if Format.OPENMETRICS.value.partition(";")[0] in accepted else Format.TEXT


def join(expositions: Iterable[bytes], format: Format) -> bytes:
    """One exposition of all: what each says of a family has to stand together, under one head."""
    heads: dict[bytes, bytes] = {}
    samples: dict[bytes, list[bytes]] = {}
    for exposition in expositions:
        for block in exposition.removesuffix(_OPENMETRICS_END).split(_HELP)[1:]:
            described, _, rest = block.partition(_TYPE)
            kind, _, lines = rest.partition(b"\n")
            name = described.partition(b" ")[0]
            heads.setdefault(name, _HELP + described + _TYPE + kind + b"\n")
            samples.setdefault(name, []).append(lines)
    joined = b"".join(head + b"".join(samples[name]) for name, head in heads.items())
    return joined + _OPENMETRICS_END if format is Format.OPENMETRICS else joined


# -- from our numbers to Prometheus' words ---------------------------------------------------------


def expose(moment: Moment, worker: int | None, format: Format) -> bytes:
    """All families of one server, with its number as a label if it has one."""
    more_labels = {} if worker is None else {WORKER: str(worker)}
    return _write((_to_metric(family, family.read(moment), more_labels) for family in FAMILIES), format)


def _to_metric(family: Family, samples: Samples, more_labels: Mapping[str, str]) -> Metric:
    names, more = [*family.labels, *more_labels], list(more_labels.values())
    if family.kind is Kind.HISTOGRAM:
        histograms = HistogramMetricFamily(family.name, family.meaning, labels=names)
        for labels, histogram in samples:
            assert isinstance(histogram, Histogram)
            bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
            counts = list(zip(bounds, histogram.cumulative(), strict=True))
            histograms.add_metric([*labels, *more], counts, histogram.sum)
        return histograms
    of_kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    numbers = of_kind(family.name, family.meaning, labels=names)
    for labels, number in samples:
        assert not isinstance(number, Histogram)
        numbers.add_metric([*labels, *more], number)
    return numbers


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _write(metrics: Iterable[Metric], format: Format) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    write: Callable[[CollectorRegistry], bytes] = (
        openmetrics.generate_latest if format is Format.OPENMETRICS else generate_latest
    )
    return write(registry)
