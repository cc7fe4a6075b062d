"""Whether a server keeps its memory, its files and its books over time: churn, slow readers, a broker that restarts.

    python -m tests.benchmarks.soak [--minutes 20] [--strangers 60] [--stalled 40] [--plot FILE.svg]

Two workers on redis-server (or the Valkey of the wheel). In 20 rooms with a history and presence publishers count, and
five readers each look whether a number is missing without a ``gap`` to say so. Strangers come, 60 a second, and leave
in every way there is; 40 peers read nothing of what a heavy room says, until they are dropped. The broker is killed
every three minutes, and comes back empty three seconds later. In the end all leave, and what is left is counted: the
books have to balance, and nothing may be open. Exit code 1 if something is amiss.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.backplane.processes import free_port, until
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from tests.benchmarks.soak.readers import stay
from tests.benchmarks.soak.strangers import churn, stall, talk_heavily
from tests.benchmarks.soak.watch import API_KEY, Sample, look, name_of

WORKERS = 2
ROOMS, READERS = 20, 5
LOOK_INTERVAL = 5.0
AWAY = 3.0  # seconds the broker is gone
SETTLE = 50.0  # longer than any deadline: heartbeat, close, drop by the kernel
FLAT = 0.05  # the share by which memory may differ between the second and the last fifth of the load
MIB = 1 << 20


@attrs.define
class Soak:
    """One run."""

    server: trio.Process
    port: int
    began: float = attrs.field(factory=time.monotonic)
    samples: list[Sample] = attrs.field(factory=list)
    restarts: list[float] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)

    @property
    def ports(self) -> list[int]:
        """Of the workers."""
        return [self.port + number for number in range(WORKERS)]

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(LOOK_INTERVAL)

    async def look(self) -> Sample:
        """Once."""
        sample = await trio.to_thread.run_sync(look, self.began, self.server.pid, self.port)
        self.samples.append(sample)
        resident = sum(sample.resident.values()) / MIB
        members = sample.metrics.get("trioroom_members", 0)
        line = f"{sample.at:5.0f} s  {resident:6.1f} MiB  {sum(sample.files.values()):5} files  {members:5.0f} members"
        print(line, end="\033[K\r", file=sys.stderr, flush=True)
        return sample

    async def restart(self, broker: RedisServer, interval: float) -> None:
        """Kill the broker every now and then; it comes back empty."""
        while True:
            await trio.sleep(interval)
            self.restarts.append(time.monotonic() - self.began)
            broker.kill()
            await trio.sleep(AWAY)
            await broker.restart()

    async def load(self, arguments: argparse.Namespace, broker: RedisServer) -> None:
        """All of it, for so many minutes."""
        urls = [f"ws://127.0.0.1:{port}/" for port in self.ports]
        with trio.move_on_after(arguments.minutes * 60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watch)
                nursery.start_soon(self.restart, broker, arguments.restart_every)
                nursery.start_soon(stay, urls, ROOMS, READERS, self.counts)
                nursery.start_soon(churn, self.ports, arguments.strangers, self.counts)
                for number in range(arguments.stalled):
                    nursery.start_soon(stall, self.ports[number % WORKERS], self.counts)
                for port in self.ports:
                    nursery.start_soon(talk_heavily, port, self.counts)


@asynccontextmanager
async def open_soak() -> AsyncIterator[tuple[Soak, RedisServer]]:
    """The broker and the server."""
    program = binaries()
    async with open_redis_server(program.get("redis", program["valkey"])) as broker:
        port = free_port()
        command = [sys.executable, "-m", "trioroom", "serve", "tests.benchmarks.soak.app:app", "--port", str(port)]
        command += ["--workers", str(WORKERS), "--port-per-worker", "--log-level", "error"]
        environment = {**os.environ, "TRIOROOM_API_KEY": API_KEY, "TRIOROOM_BACKPLANE": broker.url}
        server = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, env=environment)
        try:
            await until(partial(_serve, range(port, port + WORKERS)), "the workers serve")
            yield Soak(server, port), broker
        finally:
            server.terminate()
            await server.wait()


async def _serve(ports: Sequence[int]) -> bool:
    """Whether somebody listens on all of them."""
    for port in ports:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    return True


async def run(arguments: argparse.Namespace) -> tuple[Soak, Sample, Sample]:
    """The soak, and how the server was before and after."""
    async with open_soak() as (soak, broker):
        before = await soak.look()
        await soak.load(arguments, broker)
        await trio.sleep(SETTLE)
        after = await soak.look()
    soak.counts["exit code of the server"] = soak.server.returncode or 0
    return soak, before, after


def faults(soak: Soak, before: Sample, after: Sample) -> Iterator[str]:
    """What is not as it should be."""
    counts, metrics = soak.counts, after.metrics
    for name in ("MISSING AND NOT TOLD", "READ TWICE", "exit code of the server"):
        if counts[name]:
            yield f"{name.lower()}: {counts[name]}"
    if not metrics:
        yield "the server does not answer any more"
        return
    for name in ("trioroom_members", "trioroom_rooms", "trioroom_queued_bytes", "trioroom_deliveries_queued"):
        if metrics.get(name) != 0:
            yield f"{name} is {metrics.get(name)} and nobody is there"
    opened, closed = metrics["trioroom_connections_opened_total"], metrics["trioroom_connections_closed_total"]
    if opened != closed or metrics["trioroom_connections"]:
        yield f"{opened:.0f} connections opened, {closed:.0f} closed, {metrics['trioroom_connections']:.0f} open"
    if metrics["trioroom_tasks"] > before.metrics["trioroom_tasks"]:
        yield f"{metrics['trioroom_tasks']:.0f} tasks, {before.metrics['trioroom_tasks']:.0f} before"
    if after.resident.keys() != before.resident.keys():
        yield "a process has been replaced"
    for pid, files in after.files.items():
        if files > before.files.get(pid, 0) + 1:  # the connection that asks may be open still
            yield f"{name_of(pid, soak.server.pid)}: {files} open files, {before.files.get(pid, 0)} before"
    for pid in before.resident:
        early, late = early_and_late(soak.samples, pid)
        if late > early * (1 + FLAT):
            yield f"process {pid} grows: {early / MIB:.1f} MiB in the second fifth, {late / MIB:.1f} in the last"


def early_and_late(samples: Sequence[Sample], pid: int) -> tuple[float, float]:
    """Medians of what was resident in the second and in the last fifth of the load."""
    under_load = [sample.resident.get(pid, 0) for sample in samples[:-1]]
    fifth = max(1, len(under_load) // 5)
    return statistics.median(under_load[fifth : 2 * fifth] or under_load), statistics.median(under_load[-fifth:])


def draw(soak: Soak, before: Sample, file: Path) -> None:
    """Memory of each process, and connections, over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    memory, members = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    at = [sample.at / 60 for sample in soak.samples]
    workers = 0
    for pid in before.resident:
        name = "parent" if pid == soak.server.pid else "fork server"
        if before.files[pid] > min(before.files.values()) and pid != soak.server.pid:
            workers += 1
            name = f"worker {workers}"
        memory.plot(at, [sample.resident.get(pid, 0) / MIB for sample in soak.samples], label=name, linewidth=1)
    members.plot(at, [sample.metrics.get("trioroom_members", float("nan")) for sample in soak.samples], linewidth=1)
    for axes in (memory, members):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        for restart in soak.restarts:
            axes.axvline(restart / 60, color="grey", linewidth=0.6, linestyle=":")
    memory.set_ylabel("resident, MiB")
    memory.legend(loc="lower right", ncols=4, fontsize="small")
    members.set_ylabel("members")
    members.set_xlabel("minutes (dotted: the broker is killed)")
    figure.savefig(file)


def report(soak: Soak, before: Sample, after: Sample) -> None:
    """Everything that was counted."""
    print(f"{platform.platform()}, Python {platform.python_version()}: {after.at:.0f} s\033[K")
    for name, count in sorted(soak.counts.items()):
        print(f"{name:44} {count:12,}")
    for name in ("connections_opened_total", "slow_consumers_total", "messages_received_total", "tasks"):
        print(f"{'trioroom_' + name:44} {after.metrics.get('trioroom_' + name, float('nan')):12,.0f}")
    for pid in before.resident:
        early, late = early_and_late(soak.samples, pid)
        line = f"MiB: {early / MIB:6.1f} -> {late / MIB:6.1f}; files: {before.files[pid]} -> {after.files.get(pid)}"
        print(f"process {pid}: {line}")


def main() -> None:
    """Run it, and say what is amiss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--strangers", type=float, default=60, help="of them a second (default: 60)")
    parser.add_argument("--stalled", type=int, default=40, help="peers that read nothing (default: 40)")
    parser.add_argument("--restart-every", type=float, default=180, help="seconds (default: 180)")
    parser.add_argument("--plot", type=Path, help="an SVG of memory over time; needs matplotlib")
    arguments = parser.parse_args()
    soak, before, after = trio.run(partial(run, arguments))
    if arguments.plot is not None:
        draw(soak, before, arguments.plot)
    report(soak, before, after)
    amiss = [*faults(soak, before, after)]
    for fault in amiss:
        print(f"AMISS: {fault}")
    sys.exit(bool(amiss))


if __name__ == "__main__":
    main()
