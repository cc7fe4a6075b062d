"""``--workers N``: a parent that serves nobody keeps N processes that do, on one port or each on its own.

Workers of one port bind it with SO_REUSEPORT, and the kernel spreads connections over them. The parent only binds it,
so that the port is picked once and stays ours while workers come and go. Workers are sessions of their own:
Ctrl-C in a terminal reaches the parent, which tells them to drain with SIGTERM. Settings hold for each of them:
what they bound (``max_connections``) may be there N times. SIGHUP replaces them one by one (`rolling`).

They are forks of a process between us and them (`forkserver`), or new interpreters where that cannot be (`forksafety`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial

import click
import trio

from trioroom._net.listener import bind_sockets
from trioroom.backplane.embedded import open_embedded
from trioroom.cli.dumps import DUMP_SIGNAL, open_dumps
from trioroom.cli.logs import say
from trioroom.cli.notify import READY, STOPPING, notify, reloading
from trioroom.cli.rolling import Workers
from trioroom.cli.run import ServeOptions, announce, errors_of_backplane, errors_of_listening
from trioroom.cli.siblings import open_roster
from trioroom.cli.signals import Stop, open_stop
from trioroom.cli.starting import Commands, open_starter

Addresses = list[tuple[str, int]]

_LAST_PORT = 65_535


async def serve_with_workers(options: ServeOptions, arguments: Sequence[str], against_forks: str | None) -> None:
    """Keep ``options.workers`` processes serving until a signal, and wait for their end.

    Args:
        arguments: those of this process, less its name; the workers get them too.
        against_forks: why they have to be new interpreters, whatever the application is like.
    Raises:
        click.ClickException: it cannot be, as said in one line; maybe in exception groups.
        click.exceptions.Exit: a worker cannot start, and has said why; with its exit code.
    """
    check_linked(options)
    check_ports(options)
    async with open_stop() as stop, _reserve_ports(options) as addresses, _open_broker(options.backplane) as url:
        broker = url if url != options.backplane else None
        commands = Commands(arguments, options.host, options.backplane, broker)
        with stop.at_once, open_roster() as roster:
            async with trio.open_nursery() as nursery:
                ports = [of_worker[0][1] for of_worker in addresses]
                load = partial(open_starter, commands, against_forks)
                workers = Workers(ports, load, nursery, roster)
                async with open_dumps(partial(workers.send_signal, DUMP_SIGNAL)):
                    await _serve_until_stop(workers, stop, partial(_announce, options, addresses))


def check_linked(options: ServeOptions) -> None:
    """Raise click.UsageError if there are workers and nothing that makes one server of them."""
    if options.workers > 1 and options.backplane == "memory":
        raise click.UsageError(
            f"--workers {options.workers} needs a backplane that links them; add --backplane embedded, or the URL of a "
            "broker, such as redis://HOST"
        )


def check_ports(options: ServeOptions) -> None:
    """Raise click.UsageError if there are not as many ports as workers want."""
    if options.port_per_worker and options.port + options.workers - 1 > _LAST_PORT:
        raise click.UsageError(
            f"--port {options.port} leaves no port for {options.workers} workers; choose a lower one"
        )


async def _serve_until_stop(workers: Workers, stop: Stop, announce_all: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_retire_at_stop, workers, stop)
        await workers.start_first()
        stop.serving = True
        await workers.start_others()
        if not stop.begun.is_set():
            announce_all()
            notify(READY)
        nursery.start_soon(_replace_at_hangups, workers, stop)
        await stop.begun.wait()
        workers.retire()
        notify(STOPPING)
        say(f"stopping {workers.count} workers (Ctrl-C again stops at once)")
        nursery.cancel_scope.cancel()


async def _retire_at_stop(workers: Workers, stop: Stop) -> None:
    """For when that is before they all serve."""
    await stop.begun.wait()
    workers.retire()


async def _replace_at_hangups(workers: Workers, stop: Stop) -> None:
    while True:
        await stop.wait_hangup()
        notify(reloading())
        await workers.replace()
        if not stop.begun.is_set():
            notify(READY)


def _announce(options: ServeOptions, addresses: Sequence[Addresses]) -> None:
    if not options.port_per_worker:
        return announce(addresses[0], options.scheme, f"{options.workers} workers; ")
    for number, of_worker in enumerate(addresses, start=1):
        announce(of_worker, options.scheme, f"worker {number} of {options.workers}; ")


@asynccontextmanager
async def _reserve_ports(options: ServeOptions) -> AsyncIterator[list[Addresses]]:
    """Addresses of each worker that are ours while the context is open, for sockets that share them."""
    with ExitStack() as bound:
        if not options.port_per_worker:
            yield [await _reserve_port(options, options.port, bound)] * options.workers
            return
        ports = [options.port + number if options.port else 0 for number in range(options.workers)]
        yield [await _reserve_port(options, port, bound) for port in ports]


async def _reserve_port(options: ServeOptions, port: int, bound: ExitStack) -> Addresses:
    with errors_of_listening(options.host, port):
        if port:  # a server that shares its port, such as another trioroom, is noticed only this way
            for sock in await bind_sockets(options.host, port):
                sock.close()
        sockets = await bind_sockets(options.host, port, reuse_port=True)
    for sock in sockets:
        bound.enter_context(sock)
    return [sock.getsockname()[:2] for sock in sockets]


@asynccontextmanager
async def _open_broker(url: str) -> AsyncIterator[str]:
    """The URL that workers get: Valkey runs here, as it is one for all and outlives each of them."""
    async with AsyncExitStack() as stack:
        if url == "embedded":
            with errors_of_backplane():
                url = await stack.enter_async_context(open_embedded())
        yield url
