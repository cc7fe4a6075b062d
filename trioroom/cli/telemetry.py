"""``--opentelemetry``: the tracer provider that the process has, or else one by the ``OTEL_*`` variables.

Whoever has set a provider, by `opentelemetry.trace.set_tracer_provider` in the application's module or by starting us
with ``opentelemetry-instrument``, has their way. Otherwise we make one of the SDK, and only in the process that
serves: its threads would keep workers from being forks.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_EXPORTERS = "opentelemetry_traces_exporter"
"""The group of entry points where packages with exporters announce them."""
_VARIABLE = "OTEL_TRACES_EXPORTER"
_VARIANTS = ("", "_proto_http", "_proto_grpc")  # of otlp there is one package for each, and one for both


def configured_provider() -> TracerProvider:
    """The one of this process.

    Raises:
        click.ClickException: OpenTelemetry, or an exporter that is asked for, is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError as exc:
        raise _missing("OpenTelemetry", "'trioroom[otel]' opentelemetry-sdk opentelemetry-exporter-otlp") from exc
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody has set one
        trace.set_tracer_provider(_provider_of_sdk())
    return trace.get_tracer_provider()


def _provider_of_sdk() -> TracerProvider:
    """Name, sampler and batches are the SDK's to read from the environment."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise _missing("the SDK of OpenTelemetry", "opentelemetry-sdk opentelemetry-exporter-otlp") from exc
    exporters = [_find_exporter(name) for name in exporter_names()]
    provider = TracerProvider()
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter.load()()))
    return provider


def exporter_names() -> list[str]:
    """What the variable asks for; without it ``otlp``, as OpenTelemetry's specification says."""
    names = [name.strip() for name in os.environ.get(_VARIABLE, "").split(",")]
    return [name for name in names if name and name != "none"] if any(names) else ["otlp"]


def _find_exporter(name: str) -> EntryPoint:
    for variant in _VARIANTS:
        for found in entry_points(group=_EXPORTERS, name=name + variant):
            return found
    raise _missing(f"the exporter {name!r}", f"opentelemetry-exporter-{name}, or set {_VARIABLE}")


def _missing(what: str, packages: str) -> click.ClickException:
    return click.ClickException(f"--opentelemetry needs {what}, which this installation lacks; pip install {packages}")
