"""Apache Kafka itself, from the unpacked distribution that the environment variable ``KAFKA_HOME`` names.

It is no package that pip brings, so that the tests run on it only where somebody has it; see docs/contributing.md.
Java has to be installed. Each server is a node in KRaft mode, broker and controller in one process, in a folder of its
own; one is up within two seconds or three, and takes 350 MB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.backplane.kafka.servers import KafkaServer, NoidaServer
from tests.backplane.processes import free_port

HOME: Final = os.environ.get("KAFKA_HOME")
"""None where there is none."""

_CLUSTER_ID: Final = "dHJpb3Jvb20tdGVzdHMtMQ"  # any 16 bytes in Base64
_SESSION_SECONDS: Final = 3
_START_TIMEOUT: Final = 60.0
# A small machine's, unless the environment says otherwise: one compiler, one thread for garbage, a heap that is enough.
_JAVA: Final = {
    "KAFKA_HEAP_OPTS": "-Xms64m -Xmx256m",
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@attrs.frozen
class _Node:
    """Where it is, and how it is to be run."""

    number: int
    port: int
    controller_port: int
    advertised_port: int
    more: Mapping[str, int] = attrs.field(factory=dict)
    """Ports of further listeners, by their names."""
    settings: Mapping[str, str] = attrs.field(factory=dict)
    """Lines of server.properties that go before ours."""


class ApacheServer(KafkaServer):
    """After `end`, `kill` and `restart` it has all that it had.

    One that was killed comes back later than one that was ended: its own controller waits until the session of the
    broker that it was is over, 9 seconds unless set (``broker.session.timeout.ms``), and 3 here.
    """

    start_timeout = _START_TIMEOUT

    def __init__(self, home: Path, directory: Path, node: _Node, voters: str) -> None:
        self.number = node.number
        """Its ``node.id``."""
        self._home = home
        self._properties = directory / "server.properties"
        self._directory = directory
        self.environment = {**_JAVA, **os.environ, "LOG_DIR": str(directory / "logs")}
        properties = {**_properties(node, voters, directory / "data"), **node.settings}
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        self._format()
        super().__init__(home / "bin" / "kafka-server-start.sh", directory, node.port)

    @property
    def version(self) -> str:
        """Name and number."""
        [jar] = (self._home / "libs").glob("kafka-clients-*.jar")
        return f"Apache Kafka {jar.stem.removeprefix('kafka-clients-')}"

    def command_line(self) -> Sequence[str]:
        return [str(self._binary), str(self._properties)]

    async def answers(self) -> bool:
        """Whether it has a leader to tell, too: it answers before it may be given topics."""
        return await super().answers() and await trio.to_thread.run_sync(self._is_there)

    def _is_there(self) -> bool:
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            nodes = client.describe_cluster(request_timeout=5).result(10).nodes
        except KafkaException:
            return False
        return self.number in [node.id for node in nodes]

    def end(self) -> None:
        """Have it hand over and save what it has; it is gone when this returns."""
        self._process.terminate()
        self._process.wait(_START_TIMEOUT)

    def forget(self) -> None:
        """As of any; its data is removed."""
        self.kill()
        shutil.rmtree(self._directory / "data")
        self._format()

    def _format(self) -> None:
        command = ["format", "--cluster-id", _CLUSTER_ID, "--config", str(self._properties)]
        self.run_tool("kafka-storage.sh", *command)

    def run_tool(self, script: str, *arguments: str) -> str:
        """One of Kafka's scripts, and what it prints; it takes a second or two."""
        command = [str(self._home / "bin" / script), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout


def _properties(node: _Node, voters: str, data: Path) -> dict[str, str]:
    more = "".join(f",{name}://127.0.0.1:{port}" for name, port in node.more.items())
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}{more}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.advertised_port}{more}",
        "log.dirs": str(data),
        "broker.session.timeout.ms": str(_SESSION_SECONDS * 1_000),
        "broker.heartbeat.interval.ms": "500",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
    }


LastingServer: TypeAlias = NoidaServer | ApacheServer
"""Those that keep their log; see the fixture ``lasting``."""


@asynccontextmanager
async def open_apache(
    port: int | None = None,
    advertised_port: int | None = None,
    settings: Mapping[str, str] | None = None,
    listeners: Mapping[str, int] | None = None,
) -> AsyncIterator[ApacheServer]:
    """One node, killed at the end; a RuntimeError with its log when it does not come up.

    Args:
        advertised_port: where it says that it is, for a proxy in front of it.
        settings: further lines of server.properties; these go before ours.
        listeners: ports of further ones, by their names; ``settings`` says what they speak.
    """
    port = port or free_port()
    node = _Node(1, port, free_port(), advertised_port or port, listeners or {}, settings or {})
    async with _open([node]) as (server,):
        yield server


@asynccontextmanager
async def open_apache_cluster(
    count: int = 3, settings: Mapping[str, str] | None = None
) -> AsyncIterator[list[ApacheServer]]:
    """Several nodes that know each other; any but a majority of them may go. As `open_apache`."""
    ports = [free_port() for _ in range(count)]
    nodes = [
        _Node(number, port, free_port(), port, settings=settings or {}) for number, port in enumerate(ports, start=1)
    ]
    async with _open(nodes) as servers:
        yield servers


@asynccontextmanager
async def _open(nodes: Sequence[_Node]) -> AsyncIterator[list[ApacheServer]]:
    assert HOME is not None, "KAFKA_HOME names no Apache Kafka"
    voters = ",".join(f"{node.number}@127.0.0.1:{node.controller_port}" for node in nodes)
    with tempfile.TemporaryDirectory(prefix="kafka-") as name:
        servers = []
        try:
            for node in nodes:
                directory = Path(name) / str(node.number)
                directory.mkdir()
                servers.append(ApacheServer(Path(HOME), directory, node, voters))
            for server in servers:
                await server.wait_ready()
            yield servers
        finally:
            for server in servers:
                server.kill()
