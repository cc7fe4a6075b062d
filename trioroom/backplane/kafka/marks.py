"""Places in the log, each behind all that had been confirmed when it was asked for.

A mark is a record that says nothing; the answer to it is its offset. That is how a subscription knows where it begins,
how a reader knows that it has caught up, and what a probe is. Asking the broker for the end of the log would
write nothing, but a leader that has been voted out and does not know yet answers that too, and not all that speak
Kafka's protocol answer it right. (Confluent's Schema Registry does the same with its "noop" records.)
"""

from __future__ import annotations

import attrs
import trio

from trioroom.backplane.kafka.producer import Producer
from trioroom.backplane.kafka.records import MARK, UNKNOWN_OFFSET
from trioroom.errors import BackplaneError, BackplaneUnavailable, fresh

_INTERVAL = 0.005  # seconds between two in one partition: 200 a second, however many rooms come and go


@attrs.define(eq=False)
class _Round:
    """One mark and all who asked for it before it was written."""

    done: trio.Event = attrs.field(factory=trio.Event)
    offset: int = UNKNOWN_OFFSET
    error: BackplaneError | None = None


@attrs.define(eq=False)
class _Line:
    """The marks of one partition: one is on its way, while the next round gathers."""

    gathering: _Round | None = None
    busy: bool = False


def _not_confirmed() -> BackplaneError:
    return BackplaneUnavailable("the broker has not confirmed a place in the log; retry later")


class Marks:
    """`run` writes them while somebody asks."""

    def __init__(self, producer: Producer, name: bytes) -> None:
        """``name`` is the writer's."""
        self._producer = producer
        self._key = MARK + name
        self._lines: dict[int, _Line] = {}
        self._nursery: trio.Nursery | None = None

    async def offset(self, partition: int) -> int:
        """The offset of a mark that is written from now on; always a checkpoint. Calls may overlap, and then share one.

        Raises:
            BackplaneUnavailable, BackplaneError: as `Producer.produce`.
        """
        line = self._lines.setdefault(partition, _Line())
        if line.gathering is None:
            line.gathering = _Round()
        if not line.busy and self._nursery is not None:
            self._start(line, partition)
        asked = line.gathering
        await asked.done.wait()
        if asked.error is not None:
            raise fresh(asked.error)
        return asked.offset

    def _start(self, line: _Line, partition: int) -> None:
        assert self._nursery is not None
        line.busy = True
        self._nursery.start_soon(self._write, line, partition)

    async def _write(self, line: _Line, partition: int) -> None:
        try:
            while (current := line.gathering) is not None:
                line.gathering = None
                current.error = _not_confirmed()  # if we are cancelled
                try:
                    while current.offset == UNKNOWN_OFFSET:  # of a second try: another mark says more
                        # Without a value, lest a topic that is compacted keeps one of each node that there ever was.
                        current.offset = (await self._producer.produce(partition, self._key, None)).offset
                    current.error = None
                except BackplaneError as exc:
                    current.error = exc
                finally:
                    current.done.set()
                await trio.sleep(_INTERVAL)
        finally:
            line.busy = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Who asks meanwhile waits for the next one to run it."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for partition, line in self._lines.items():
                    if line.gathering is not None:
                        self._start(line, partition)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None  # inside: in a nursery that ends nothing can be started
