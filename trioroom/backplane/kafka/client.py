"""confluent-kafka, which is librdkafka: what its clients are told, and a thread for each that Trio's tasks own.

The client's calls block, so that each of the two has a thread of its own: one takes what was read, one the answers to
what was written. They see nothing of Trio but ``TrioToken.run_sync_soon``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import confluent_kafka
import trio

from trioroom.backplane.kafka.location import Location, in_our_words
from trioroom.backplane.kafka.settings import OVERHEAD_BYTES
from trioroom.backplane.supervision import LinkLost

log = logging.getLogger("trioroom.backplane")
library_log = logging.getLogger("trioroom.backplane.librdkafka")
"""What librdkafka says by itself, which is much while a broker is away; our own lines say it once."""

POLL_SECONDS = 0.1  # that a thread waits for news before it looks whether it shall end
CLOSE_TIMEOUT = 5.0  # for the threads to end; each looks every POLL_SECONDS, and closing took 1 ms where measured

Config: TypeAlias = dict[str, Any]
KafkaError: TypeAlias = confluent_kafka.KafkaError
OnError: TypeAlias = Callable[[KafkaError], None]
"""Called in the client's thread with what happened to it, which is mostly over by itself."""


def milliseconds(seconds: float) -> int:
    """As librdkafka wants times; not less than one, as zero often means something else."""
    return max(1, round(seconds * 1_000))


def common_config(location: Location, on_error: OnError) -> Config:
    """Of every client; what it logs comes to `library_log`."""
    settings = location.settings
    return {
        **location.access,
        "bootstrap.servers": str(location),
        "client.id": "trioroom",
        "error_cb": on_error,
        "logger": LibraryLog(),
        "log.connection.close": False,
        "socket.timeout.ms": milliseconds(settings.probe_timeout),
        "socket.connection.setup.timeout.ms": milliseconds(settings.connect_timeout),
        "api.version.request.timeout.ms": milliseconds(settings.connect_timeout),
        "socket.nagle.disable": True,
        "allow.auto.create.topics": False,  # with whatever partitions are the broker's default
        "topic.metadata.propagation.max.ms": 1_000,  # a topic that is not there is soon known not to be
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": max(50, milliseconds(settings.max_backoff)),
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": max(50, milliseconds(settings.max_backoff)),
        "topic.metadata.refresh.fast.interval.ms": 50,
        "message.max.bytes": settings.max_publication_bytes + OVERHEAD_BYTES,
    }


class LibraryLog(logging.LoggerAdapter[logging.Logger]):
    """To `library_log`, everything at DEBUG: librdkafka repeats itself, and what matters comes as an error too."""

    def __init__(self) -> None:
        super().__init__(library_log, {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(logging.DEBUG, msg, *args, **kwargs)


async def run_thread(fn: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run ``fn`` in a thread of its own; in the end, or cancelled, call ``stop`` and wait for the thread's end.

    Clients begin and end there: both may wait, for files and for threads of the library's. One that does not end within
    `CLOSE_TIMEOUT` is left behind with an error in the log.

    Raises:
        LinkLost: the library raised what nobody caught. It may not want a client so, as a certificate is not there.
    """
    closing = trio.CancelScope(shield=True)
    failures: list[BaseException] = []
    ended = trio.Event()

    async def watch() -> None:
        try:
            with closing:
                # A limiter of its own: it may last for ever, and is to keep nobody else's thread from starting.
                await trio.to_thread.run_sync(fn, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
        except confluent_kafka.KafkaException as exc:
            failures.append(LinkLost(in_our_words(exc.args[0].str().strip())))
        except Exception as exc:
            failures.append(exc)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await ended.wait()
        finally:
            stop()
            closing.deadline = trio.current_time() + CLOSE_TIMEOUT
    if closing.cancelled_caught:
        log.error("kafka: a thread of the client did not end within %g s and is left behind", CLOSE_TIMEOUT)
    if failures:
        raise failures[0]
