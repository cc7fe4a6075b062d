"""``trioroom bench``: the command line of `trioroom.bench`."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from trioroom.bench.limits import OwnServer, cautions, connections_of_process, obstacles, processes_for
from trioroom.bench.machine import Machine, look_at_machine
from trioroom.bench.options import DEFAULT_MEMBERS, BenchOptions, Protocol, Scenario
from trioroom.bench.server import ServerFailed, Started, open_own_server, url_on
from trioroom.bench.target import Target, parse_target
from trioroom.cli.assignments import parse_settings
from trioroom.cli.open_files import raise_limit_of_open_files

if TYPE_CHECKING:
    from trioroom.bench.result import Result

_COUNT = click.IntRange(1)
_POSITIVE = click.FloatRange(0, min_open=True)
_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.argument("scenario", type=click.Choice([scenario.value for scenario in Scenario]))
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--members", type=_COUNT, help="Connections in all; the default is the scenario's.", show_default=False)
@click.option("--processes", type=_COUNT, help="Generators; by default as few as can have the connections.")
@click.option("--connections", type=_COUNT, help="At most so many for each generator.")
@click.option("--payload", default=128, type=_COUNT, help="Bytes of a message.")
@click.option(
    "--messages", type=_COUNT, help="End after so many, or --duration; idle: say so many; recovery: miss them."
)
@click.option("--in-flight", default=1, type=_COUNT, help="Messages under way, of a room or an echoing member.")
@click.option("--duration", default=5.0, type=_POSITIVE, help="Seconds of load.")
@click.option("--rate", default=100.0, type=_POSITIVE, help="churn: members replaced a second.")
@click.option("--room-size", default=5, type=click.IntRange(2), help="rooms: members of each.")
@click.option("--protocol", type=click.Choice([p.value for p in Protocol]), help="[default: plain; recovery: v1]")
@click.option("--token", help="For rooms that ask who joins.")
@click.option("--workers", default=1, type=_COUNT, help="Without URL: processes of the server, each with a port.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Without URL: a setting of the server.")
@click.option("--json", "json_file", type=_FILE, help="Write all figures there.")
@click.option("--html", "html_file", type=_FILE, help="Write a report with plots there.")
def bench(
    scenario: str,
    urls: tuple[str, ...],
    workers: int,
    settings: tuple[str, ...],
    json_file: Path | None,
    html_file: Path | None,
    **chosen: Any,
) -> None:
    """Put load on a server and say what it bore.

    URL is ws://HOST:PORT/ROOM; {n} in it is the number of a room. Of several, for servers that are linked, each gets
    its part of the members. Without one, a server is started and measured.

    \b
    connect   open connections as fast as they are taken
    idle      members who only answer heartbeats: memory, lost connections; with --messages some at the end
    fanout    one publishes, all of a room get it
    echo      each member sends, and again when its answer comes
    rooms     many small rooms, each at its own pace
    churn     members leave and others join, at a rate
    recovery  all are cut off, miss messages, come back for them (v1)
    """  # \b is click's
    _check_extras(html_file)
    raise_limit_of_open_files()
    machine = look_at_machine()
    options = _options(Scenario(scenario), machine, **chosen)
    own = None if urls else OwnServer(workers)
    _check_own(own, workers, settings)
    server: Started | None = None
    with ExitStack() as stack:
        stack.enter_context(_errors())
        stack.enter_context(_terminated_as_interrupted())
        if own is not None:
            _check_limits(options, _target(["ws://127.0.0.1:1/"], options), machine, own)
            server = stack.enter_context(open_own_server(workers, settings))
            urls = tuple(url_on(port, options.scenario) for port in server.ports)
        target = _target(urls, options)
        _check_rooms(options, target)
        _check_limits(options, target, machine, own)
        for caution in cautions(options, machine, own):
            click.echo(caution, err=True)
        result = _run(options, target, machine, server)
    _report(result, json_file, html_file)


def _options(scenario: Scenario, machine: Machine, **chosen: Any) -> BenchOptions:
    connections = chosen.pop("connections") or connections_of_process(machine)
    members = chosen.pop("members") or DEFAULT_MEMBERS[scenario]
    default = Protocol.V1 if scenario is Scenario.RECOVERY else Protocol.PLAIN
    protocol = Protocol(chosen.pop("protocol") or default.value)
    processes = chosen.pop("processes") or processes_for(members, connections)
    if processes * connections < members:
        raise click.UsageError(
            f"{processes} --processes of {connections} --connections are fewer than {members} --members"
        )
    try:
        return BenchOptions(scenario=scenario, members=members, processes=processes, protocol=protocol, **chosen)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _target(urls: Sequence[str], options: BenchOptions) -> Target:
    try:
        return parse_target(urls, options.protocol, options.token)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _check_own(own: OwnServer | None, workers: int, settings: Sequence[str]) -> None:
    if own is None and (workers > 1 or settings):
        raise click.UsageError("--workers and --set are for the server that is started without URL; give yours its own")
    try:
        parse_settings(settings)
    except (TypeError, ValueError) as exc:
        raise click.BadParameter(str(exc), param_hint="--set") from exc


def _check_extras(html_file: Path | None) -> None:
    wanted = ["rich", "matplotlib"] if html_file is not None else ["rich"]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"trioroom bench needs {' and '.join(missing)}, which this installation lacks; "
            "pip install 'trioroom[bench]' brings what it needs"
        )


def _check_rooms(options: BenchOptions, target: Target) -> None:
    if options.scenario is Scenario.ROOMS and not target.has_numbers:
        raise click.UsageError("rooms wants many of them: write {n} into the URL where a room's number goes")


def _check_limits(options: BenchOptions, target: Target, machine: Machine, own: OwnServer | None) -> None:
    """Before anything is started that would meet them."""
    met = list(obstacles(options, target, machine, own))
    if met:
        raise click.ClickException("this machine cannot do that:\n" + "\n".join(f"- {obstacle}" for obstacle in met))


def _run(options: BenchOptions, target: Target, machine: Machine, server: Started | None) -> Result:
    from trioroom.bench.conductor import run_bench  # 2 MB that a worker of `trioroom serve` has no need of
    from trioroom.bench.progress import open_bars  # of the extra; see `_check_extras`

    with open_bars(options) as bars:
        return run_bench(options, target, bars, machine.description, server.pid if server is not None else None)


def _report(result: Result, json_file: Path | None, html_file: Path | None) -> None:
    from trioroom.bench.progress import print_result

    print_result(result)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result.as_json()), indent=1))
    if html_file is not None:
        from trioroom.bench.html import render  # matplotlib takes a second to import

        html_file.write_text(render(result), "utf-8")
    if not result.succeeded:
        raise click.exceptions.Exit(1)


@contextmanager
def _errors() -> Iterator[None]:
    """What may go wrong with processes, as errors of the command."""
    from trioroom.bench.conductor import GeneratorDied  # as in `_run`

    try:
        yield
    except ServerFailed as exc:
        raise click.ClickException(f"the server {exc}") from exc
    except GeneratorDied as exc:
        raise click.ClickException(str(exc)) from exc


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: with a table of what there is, and with the server."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
