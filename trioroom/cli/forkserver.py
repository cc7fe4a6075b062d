"""The fork server: a process that has loaded the application, and whose forks the workers are.

They share with it what it has loaded, as long as none of them writes to it; a new interpreter for each would load all
of it again (docs/decisions/0012). It runs no Trio and has no threads: a fork would have the locks of threads that it
lacks. `forksafety` looks whether the application minds.

Its standard input is the link: the parent asks on it for one worker after another, and sends along two sockets, the
worker's lifeline and one for reports on it. The reports are its pid, with a pidfd, and in the end its return code. As
each worker has its own, none has to be told from another's. The end of the link is the end of the fork server; the
kernel brings it about whichever way the parent goes.

A fork server that dies takes no worker with it: their parent sees by the pidfds when they end, and only lacks the
codes.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import click
import trio

from trioroom._core.exitcodes import describe_exit
from trioroom.cli.forksafety import reason_against_forks
from trioroom.cli.lifeline import outlive_parent
from trioroom.cli.processes import end_process

log = logging.getLogger("trioroom.workers")

_STDIN = 0
_MAX_NUMBER = 32  # bytes: all that is said here are numbers,
_MAX_REASON = 1_024  # but for why there are no forks
_REPORT_TIMEOUT = 2.0  # seconds from a worker's end to its return code, more than a fork server that is well needs
_KILL_AFTER = 5.0  # seconds that workers without a parent may take to end
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM)

# -- the parent's side -----------------------------------------------------------------------------


class WorkerNotStarted(Exception):
    """There is no worker; says why."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code
        """What the fork server has ended with, if that is the reason."""


class NoForks(Exception):
    """The fork server has loaded the application and must not fork; says why, as the end of a sentence."""


class ForkedWorker:
    """A `trioroom.cli.processes.Process` that is a child of the fork server; `wait` for it, as it holds descriptors."""

    def __init__(self, pid: int, descriptor: int, reports: socket.socket) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._reports = reports
        self._ended = False
        self._code: int | None = None

    async def wait(self) -> int | None:
        """Its return code once it has ended; None if the fork server has not told it."""
        if self._ended:
            return self._code
        await trio.lowlevel.wait_readable(self._descriptor)
        with trio.move_on_after(_REPORT_TIMEOUT):
            await trio.lowlevel.wait_readable(self._reports)
            if told := self._reports.recv(_MAX_NUMBER):
                self._code = int(told)
        self._ended = True
        os.close(self._descriptor)
        self._reports.close()
        return self._code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, sig: signal.Signals) -> None:
        """Send it; nothing to one that has ended."""
        if not self._ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, sig)


@attrs.define
class _Running:
    """One fork server, from its start to its end."""

    process: trio.Process
    link: socket.socket
    loaded: bool = False


class ForkServer:
    """Runs when it is needed: one that died is started again for the next worker; made by `open_fork_server`."""

    def __init__(
        self,
        command: Sequence[str],
        directory: str | None,
        environment: Mapping[str, str] | None,
        nursery: trio.Nursery,
    ) -> None:
        self._command = command
        self._directory = directory
        self._environment = environment
        self._nursery = nursery
        self._busy = trio.Lock()  # it is started once, and asked for one worker after the other
        self._running: _Running | None = None

    async def fork(self, port: int, lifeline: socket.socket) -> ForkedWorker:
        """A worker for ``port``, which gets ``lifeline`` as its standard input.

        Raises:
            NoForks: the application does not allow for it.
            WorkerNotStarted: the fork server has ended, or the system has no room for another process.

        Cancelled, it may leave a worker to the fork server, which waits for it; the end of its lifeline stops it.
        """
        async with self._busy:
            running = self._running
            if running is None or running.process.poll() is not None:
                running = self._running = await self._nursery.start(self._run)
            reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs, suppress(OSError):  # if it has ended, no report comes either
                    # This blocks no longer than it takes: the link is empty but for what was cancelled.
                    socket.send_fds(running.link, [b"%d" % port], [lifeline.fileno(), theirs.fileno()])
                await trio.lowlevel.wait_readable(reports)
                return await _meet(running, reports)
            except BaseException:
                reports.close()
                raise

    async def _run(self, *, task_status: trio.TaskStatus[_Running]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = await trio.lowlevel.open_process(
                    self._command, cwd=self._directory, env=self._environment, stdin=theirs, start_new_session=True
                )
            running = _Running(process, ours)
            try:
                task_status.started(running)
                code = await process.wait()
                if running.loaded:  # else who waits for a worker says so
                    happened = f"the fork server (pid {process.pid}) ended by {describe_exit(code)}"
                    fields = {"pid": process.pid, "exit_code": code}
                    log.error("%s; its workers go on, and the next that starts brings another", happened, extra=fields)
            finally:
                await end_process(process, ours.close)


async def _meet(running: _Running, reports: socket.socket) -> ForkedWorker:
    """The worker of which the first report has come."""
    told, descriptors, _, _ = socket.recv_fds(reports, _MAX_REASON, 1, socket.MSG_CMSG_CLOEXEC)
    if not told:
        code = await running.process.wait()
        raise WorkerNotStarted(f"the fork server (pid {running.process.pid}) ended by {describe_exit(code)}", code)
    if not told.isdigit():
        raise NoForks(told.decode())
    running.loaded = True
    if not descriptors:
        raise WorkerNotStarted(f"cannot fork: {os.strerror(int(told))}", None)
    return ForkedWorker(int(told), descriptors[0], reports)


@asynccontextmanager
async def open_fork_server(
    command: Sequence[str], directory: str | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[ForkServer]:
    """A fork server while the context is open, started for its first worker; workers should end before it.

    Args:
        command: starts a process that calls `fork_workers`.
        directory: where that is done; None is the current one.
        environment: with which variables; None is with ours.
    """
    async with trio.open_nursery() as nursery:
        yield ForkServer(command, directory, environment, nursery)
        nursery.cancel_scope.cancel()


# -- the fork server's side ------------------------------------------------------------------------


@attrs.frozen
class _Child:
    """A worker, as the fork server knows it."""

    pid: int
    descriptor: int
    reports: socket.socket

    def close(self) -> None:
        os.close(self.descriptor)
        self.reports.close()

    def reap(self) -> None:
        """Report how it has ended, when it has."""
        _, status = os.waitpid(self.pid, 0)
        with suppress(OSError):  # the parent need not be there any more
            self.reports.send(b"%d" % os.waitstatus_to_exitcode(status))
        self.close()


def fork_workers() -> int | None:
    """Be the fork server. Returns in each worker, with its port, and in the end here, with None.

    Raises:
        click.UsageError: standard input is no socket.
    """
    reason = reason_against_forks()  # now, as the link would be a socket to it
    # Blocked and not ignored, so that one that is meant for a worker waits until it is one. Terminals and service
    # managers send them to us too, whom the parent needs until its workers have drained.
    signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_US)
    print(end="", flush=True)  # what the application has printed so far, each worker would print again
    try:
        link = socket.socket(fileno=os.dup(_STDIN))
    except OSError as exc:
        raise click.UsageError("--fork-server is what trioroom gives to a process it starts; see --workers") from exc
    outlive_parent()
    with link:
        if reason is not None:
            _refuse(link, reason)
            return None
        port = _fork_until_hangup(link)
    if port is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_US)
    return port


def _refuse(link: socket.socket, reason: str) -> None:
    """Answer the first request, instead of a pid."""
    _, sockets, _, _ = socket.recv_fds(link, _MAX_NUMBER, 2, socket.MSG_CMSG_CLOEXEC)
    if sockets:
        with socket.socket(fileno=sockets[0]), socket.socket(fileno=sockets[1]) as reports, suppress(OSError):
            reports.send(reason.encode())


def _fork_until_hangup(link: socket.socket) -> int | None:
    children: dict[int, _Child] = {}  # by pidfd
    while True:
        ready = _wait_readable(link.fileno(), *children)
        for descriptor in children.keys() & ready:
            children.pop(descriptor).reap()
        if link.fileno() not in ready:
            continue
        told, sockets, _, _ = socket.recv_fds(link, _MAX_NUMBER, 2, socket.MSG_CMSG_CLOEXEC)
        if not told:
            _end_all(children.values())
            return None
        lifeline, reports = (socket.socket(fileno=descriptor) for descriptor in sockets)
        with lifeline:
            pid = _fork(reports)
            if pid == 0:
                _become_worker(lifeline, reports, *children.values())
                return int(told)
        if pid is not None:
            child = _introduce(pid, reports)
            children[child.descriptor] = child


def _wait_readable(*descriptors: int, timeout: float | None = None) -> set[int]:
    poll = select.poll()  # unlike epoll it is nothing that a fork would have in common with us
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if timeout is None else timeout * 1000)}


def _fork(reports: socket.socket) -> int | None:
    """As `os.fork`; None, once that is reported, if the system has no room for another process."""
    try:
        return os.fork()
    except OSError as exc:
        with reports, suppress(OSError):
            reports.send(b"%d" % (exc.errno or errno.EAGAIN))
    return None


def _introduce(pid: int, reports: socket.socket) -> _Child:
    descriptor = os.pidfd_open(pid)  # surely of this worker, as we have not waited for it
    with suppress(OSError):
        socket.send_fds(reports, [b"%d" % pid], [descriptor])
    return _Child(pid, descriptor, reports)


def _become_worker(lifeline: socket.socket, *not_ours: socket.socket | _Child) -> None:
    """What a new interpreter would be: the leader of a session, with its lifeline and no other socket."""
    os.setsid()
    os.dup2(lifeline.fileno(), _STDIN)
    for each in not_ours:
        each.close()


def _end_all(children: Collection[_Child]) -> None:
    """Wait for workers, whom the end of their lifelines has told to stop, and kill those that take too long."""
    deadline = time.monotonic() + _KILL_AFTER
    for child in children:
        if not _wait_readable(child.descriptor, timeout=max(0.0, deadline - time.monotonic())):
            signal.pidfd_send_signal(child.descriptor, signal.SIGKILL)
        child.reap()
