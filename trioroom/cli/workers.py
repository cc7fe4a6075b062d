"""``--workers N``: a parent that serves nobody keeps N processes that do, on one port or each on its own.

Workers of one port bind it with SO_REUSEPORT, and the kernel spreads connections over them. The parent only binds it,
so that the port is picked once and stays ours while workers come and go. Workers are sessions of their own:
Ctrl-C in a terminal reaches the parent, which tells them to drain with SIGTERM. Settings hold for each of them:
what they bound (``max_connections``) may be there N times.

They are forks of a process between us and them (`forkserver`), or new interpreters where that cannot be (`forksafety`).
"""

from __future__ import annotations

import logging
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial

import attrs
import click
import trio

from trioroom._core.backoff import Backoff
from trioroom._core.exitcodes import describe_exit
from trioroom._net.listener import bind_sockets
from trioroom.backplane.embedded import open_embedded
from trioroom.cli.dumps import DUMP_SIGNAL, open_dumps
from trioroom.cli.forkserver import WorkerNotStarted, open_fork_server
from trioroom.cli.lifeline import Lifeline, open_lifeline
from trioroom.cli.logs import say
from trioroom.cli.processes import Process, end_process
from trioroom.cli.run import ServeOptions, Stop, announce, errors_of_backplane, errors_of_listening, open_stop

log = logging.getLogger("trioroom.workers")

Addresses = list[tuple[str, int]]
StartWorker = Callable[[socket.socket], Awaitable[Process]]
"""Starts one, with this for its standard input."""

_LAST_PORT = 65_535
_CONFIGURATION_ERRORS = (1, 2)  # exit codes of click's errors and of Python's uncaught ones


async def serve_with_workers(options: ServeOptions, arguments: Sequence[str], against_forks: str | None) -> None:
    """Keep ``options.workers`` processes serving until a signal, and wait for their end.

    Args:
        arguments: those of this process, less its name; the workers get them too.
        against_forks: why they have to be new interpreters, see `reason_against_forks`.
    Raises:
        click.ClickException: it cannot be, as said in one line; maybe in exception groups.
        click.exceptions.Exit: a worker cannot start, and has said why; with its exit code.
    """
    check_linked(options)
    check_ports(options)
    async with (
        open_stop() as stop,
        open_dumps(partial(_pass_on_dump, stop)),
        _reserve_ports(options) as addresses,
        _open_broker(options.backplane) as url,
    ):
        backplane = url if url != options.backplane else None
        ports = [of_worker[0][1] for of_worker in addresses]
        async with _open_starts(arguments, ports, backplane, against_forks) as starts:
            with stop.at_once:
                await _keep_workers(starts, stop, partial(_announce, options, addresses))


def check_linked(options: ServeOptions) -> None:
    """Raise click.UsageError if there are workers and nothing that makes one server of them."""
    if options.workers > 1 and options.backplane == "memory":
        raise click.UsageError(
            f"--workers {options.workers} needs a backplane that links them; add --backplane embedded, or redis://..."
        )


def check_ports(options: ServeOptions) -> None:
    """Raise click.UsageError if there are not as many ports as workers want."""
    if options.port_per_worker and options.port + options.workers - 1 > _LAST_PORT:
        raise click.UsageError(
            f"--port {options.port} leaves no port for {options.workers} workers; choose a lower one"
        )


async def _keep_workers(starts: Sequence[StartWorker], stop: Stop, announce_all: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        keep = partial(nursery.start, _keep_worker)
        # The first one alone, as what is wrong with the configuration is wrong for each and said once.
        await keep(starts[0], stop, 1)
        stop.serving = True
        async with trio.open_nursery() as starting:
            for number, start in enumerate(starts[1:], start=2):
                starting.start_soon(keep, start, stop, number)
        if not stop.begun.is_set():
            announce_all()
        await stop.begun.wait()
        say(f"stopping {len(starts)} workers (Ctrl-C again stops at once)")


@asynccontextmanager
async def _open_starts(
    arguments: Sequence[str], ports: Sequence[int], backplane: str | None, against_forks: str | None
) -> AsyncIterator[list[StartWorker]]:
    """What starts each worker, while the context is open."""
    if against_forks is not None:
        log.warning("workers do not share memory, as %s", against_forks)
        yield [partial(start_interpreter, worker_command(arguments, port, backplane)) for port in ports]
        return
    async with open_fork_server(fork_server_command(arguments, backplane)) as fork_server:
        yield [partial(fork_server.fork, port) for port in ports]


async def start_interpreter(command: Sequence[str], lifeline: socket.socket) -> trio.Process:
    """A worker that loads everything by itself."""
    return await trio.lowlevel.open_process(command, stdin=lifeline, start_new_session=True)


def worker_command(arguments: Sequence[str], port: int, backplane: str | None) -> list[str]:
    """The command of a worker that is a new interpreter."""
    return _command(arguments, ["--port", str(port)], backplane)


def fork_server_command(arguments: Sequence[str], backplane: str | None) -> list[str]:
    """The command of the fork server, whose workers are told their ports when they are needed."""
    return _command(arguments, ["--fork-server"], backplane)


def _command(arguments: Sequence[str], more: Sequence[str], backplane: str | None) -> list[str]:
    """Ours, with options at the end that override those before.

    The backplane is among them only if it is another: a URL from the environment may hold a password, which is not
    to be seen in the list of processes.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    overriding = ["--worker", "--workers", "1", *more]
    overriding += ["--backplane", backplane] if backplane is not None else []
    return [sys.executable, "-m", "trioroom", *arguments[:end], *overriding, *arguments[end:]]


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


async def _keep_worker(start: StartWorker, stop: Stop, number: int, *, task_status: trio.TaskStatus[None]) -> None:
    """Have one worker running until ``stop`` begins and it has ended; started when it first serves, or never will."""
    backoff = Backoff()
    served = False

    def serves(pid: int) -> None:
        nonlocal served
        level = logging.INFO if served else logging.DEBUG
        log.log(level, "worker %d serves (pid %d)", number, pid, extra={"worker": number, "pid": pid})
        if not served:
            task_status.started()
        served = True

    while True:
        began = trio.current_time()
        end = await _run_worker(start, stop, number, serves)
        if stop.begun.is_set():
            if end.code:
                log.warning("%s when told to stop", end.happened, extra=end.fields)
            break
        if end.code in _CONFIGURATION_ERRORS and not served:
            raise click.exceptions.Exit(end.code)
        delay = backoff.after(trio.current_time() - began, random.random())
        log.error("%s; the next one starts in %.1f s", end.happened, delay, extra=end.fields)
        with trio.move_on_after(delay):
            await stop.begun.wait()
            break
    if not served:
        task_status.started()


@attrs.frozen
class _End:
    """Of one worker, or of the attempt to start it."""

    happened: str
    code: int | None
    worker: int
    pid: int | None

    @property
    def fields(self) -> dict[str, object]:
        """For a record on it."""
        return {"worker": self.worker, "pid": self.pid, "exit_code": self.code}


async def _run_worker(start: StartWorker, stop: Stop, number: int, serves: Callable[[int], None]) -> _End:
    """One worker from its start to its end, told to drain when ``stop`` begins.

    Cancelled, it is told to stop at once, and killed in time.
    """
    lifeline, theirs = open_lifeline()
    async with lifeline.stream:
        try:
            with theirs:
                process = await start(theirs)
        except WorkerNotStarted as exc:
            return _End(f"worker {number} does not start: {exc}", exc.code, number, None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_hear_serving, lifeline, process, stop, serves)
                nursery.start_soon(_pass_on, stop, process)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            stop.workers.discard(process)
            await end_process(process, lifeline.stream.socket.close)
    cause = "a cause that the fork server took with it" if code is None else describe_exit(code)
    return _End(f"worker {number} (pid {process.pid}) ended by {cause}", code, number, process.pid)


async def _hear_serving(lifeline: Lifeline, process: Process, stop: Stop, serves: Callable[[int], None]) -> None:
    if await lifeline.wait_serving():
        stop.workers.add(process)
        serves(process.pid)


def _pass_on_dump(stop: Stop) -> None:
    for process in stop.workers:
        process.send_signal(DUMP_SIGNAL)


async def _pass_on(stop: Stop, process: Process) -> None:
    await stop.begun.wait()
    process.terminate()
