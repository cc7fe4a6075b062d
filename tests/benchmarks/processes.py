"""What benchmarks do with processes: a server on a core of its own, load on the other one, and what both use."""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Concatenate, ParamSpec

import attrs

SERVER_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")  # of a second, in which the kernel counts a process's time
LISTEN = "0A"  # in /proc/net/tcp
PAGE = os.sysconf("SC_PAGE_SIZE")
Arguments = ParamSpec("Arguments")


def rooms_command(settings: list[str], *options: str) -> list[str]:
    """How to start the server of ``rooms.py``; its port comes last."""
    script = str(Path(__file__).with_name("rooms.py"))
    return [sys.executable, script, *options, *(f"--set={setting}" for setting in settings)]


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """A server on a free port, on core 0; its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    server = subprocess.Popen(["taskset", "-c", str(SERVER_CORE), *command, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if accepts(port):
                break
            time.sleep(0.05)
        time.sleep(0.5)
        if server.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended at once; run it by hand to see why")
        yield port, server.pid
    finally:
        server.kill()
        server.wait()


@contextmanager
def beside(
    fn: Callable[Concatenate[Connection, Arguments], None], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Iterator[Connection]:
    """``fn`` in a process of its own, on the core of this one; our end of its pipe, the other one is ``fn``'s first."""
    ours, theirs = multiprocessing.Pipe()
    # A new interpreter: a fork would hold the sockets of this one open.
    process = multiprocessing.get_context("spawn").Process(target=fn, args=(theirs, *args), kwargs=kwargs, daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def wait_until(done: Callable[[], bool], timeout: float, what: str) -> None:
    """Look ten times a second whether it is; exit with an error if it is not in time."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout:g} s for {what}")
        time.sleep(0.1)


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def give_way() -> None:
    """From now on this process has its core only while nobody else wants it."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def resident_bytes(pid: int) -> int:
    """VmRSS of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """What a process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_seconds(core: int) -> float:
    """What a core has worked, for whomever."""
    match = re.search(rf"^cpu{core} (.*)$", Path("/proc/stat").read_text(), re.MULTILINE)
    assert match is not None
    user, nice, system, _, _, *interrupts = map(int, match[1].split()[:8])  # what is left out is idleness
    return (user + nice + system + sum(interrupts)) / TICKS


class CpuMeter:
    """Who has used how much of a core, in per cent, since the meter was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        server = cpu_seconds(self._pid)
        return time.perf_counter(), server, busy_seconds(SERVER_CORE) - server, time.process_time()

    def figures(self) -> dict[str, float]:
        """The server, others on its core (who spoil the figures), and this process, which is to stay below 70."""
        elapsed, server, others, load = (now - then for now, then in zip(self._read(), self._used, strict=True))
        shares = {"server CPU %": server, "others there %": others, "load CPU %": load}
        return {name: 100 * seconds / elapsed for name, seconds in shares.items()}


def open_files(pid: int) -> int:
    """Of a process: a server's connections, and a few more. A connection is gone when its server has closed it."""
    directory = f"/proc/{pid}/fd"
    return os.stat(directory).st_size or len(os.listdir(directory))  # Linux before 6.2 tells no size


def kernel_tcp_bytes() -> int:
    """What all TCP sockets of the machine hold in the kernel."""
    match = re.search(r"TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text())
    assert match is not None
    return int(match[1]) * PAGE


@attrs.frozen
class ServerEnd:
    """A server's end of a connection, as the kernel shows it."""

    peer: str
    """Its address in the kernel's own notation."""
    queued: int
    """Bytes that the peer has not acknowledged, or the server not read."""
    open: bool
    """Whether the process has it open: what it has closed lives on while the kernel tries to send the rest."""


def server_ends(port: int) -> Iterator[ServerEnd]:
    """All connections of a port of this machine, from proc(5), ``/proc/net/tcp``; with thousands it takes a while."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, peer, state, queues, *_, inode = line.split()[:10]
        if local.endswith(f":{port:04X}") and state != LISTEN:
            yield ServerEnd(peer, sum(int(queue, 16) for queue in queues.split(":")), inode != "0")


@attrs.frozen
class Sample:
    """A server at a moment."""

    at: float
    resident: int
    kernel: int
    files: int


@attrs.frozen
class Watch:
    """A server, looked at every now and then."""

    pid: int
    samples: list[Sample] = attrs.field(factory=list)

    def look(self) -> Sample:
        """See what it uses now."""
        sample = Sample(time.perf_counter(), resident_bytes(self.pid), kernel_tcp_bytes(), open_files(self.pid))
        self.samples.append(sample)
        return sample

    @property
    def peak(self) -> int:
        """The most that was resident."""
        return max(sample.resident for sample in self.samples)
