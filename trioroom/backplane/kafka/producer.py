"""The writing half: records on their way to the log, each writer awaiting its own answer.

librdkafka sends what waits together, and sends again what was not answered, so that each record stands in the log once
and in order (https://kafka.apache.org/documentation/#producerconfigs_enable.idempotence). Answers come in a thread and
cross to Trio in groups.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import confluent_kafka
import outcome
import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.client import (
    POLL_SECONDS,
    Config,
    KafkaError,
    OnError,
    common_config,
    milliseconds,
    run_thread,
)
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.records import UNKNOWN_OFFSET, Headers, Place
from trioroom.backplane.kafka.refusals import SPENT, SPENT_ONCE_UP, refusal
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneUnavailable

_LOOKS_PER_TIMEOUT = 20  # so that a record may wait a twentieth longer than it should
_SLACK_PUBLICATIONS = 1_024  # in librdkafka's queue, beyond ours: marks
_PURGE_SECONDS = 1.0  # that a client which ends may take for that; more would delay the next one
_RECORD_BYTES = 100  # beside key and value, at least


@attrs.define(eq=False)
class _Pending:
    """One record, until the broker has answered for it."""

    size: int
    since: float
    tell: Callable[[outcome.Outcome[Place]], None] | None = None  # None once told, or when nobody wants to know


@attrs.define(eq=False)
class _Group:
    """Records that one writer awaits together."""

    left: int
    place: Place | None = None
    """Of the last one."""
    error: Exception | None = None
    settled: trio.Event = attrs.field(factory=trio.Event)

    def take(self, result: outcome.Outcome[Place]) -> None:
        """One has been answered."""
        self.left -= 1
        if isinstance(result, outcome.Value):
            self.place = result.value
        elif isinstance(result, outcome.Error) and isinstance(result.error, Exception):
            self.error = self.error or result.error
        if not self.left:
            self.settled.set()


_Report = tuple[_Pending, "KafkaError | None", int, "int | None"]  # with partition and offset


class Producer:
    """Outlives the client; `run` has one at a time."""

    def __init__(self, location: Location, meters: LinkMeters) -> None:
        self._settings = location.settings
        self._location = location
        self._topic = location.plan.name
        self._meters = meters
        self._client: confluent_kafka.Producer | None = None
        self._client_there = trio.Event()
        self._pending: dict[_Pending, None] = {}  # a set that keeps its order
        self._bytes = 0
        self._full = trio.lowlevel.ParkingLot()
        self._closed = False
        self._stopping = threading.Event()
        self._spent = trio.Event()  # the client is of no more use
        self._fatal: str | None = None  # why
        self._reports: list[_Report] = []  # that the thread has not handed over
        self.was_up = False
        """Records have come round in the life of this client."""
        self.down_since: float | None = trio.current_time()
        """Since when records have not come round; None while they do."""
        self.trouble: str | None = None
        """Why not, where that is known; for the message to who waits."""

    @property
    def queued(self) -> int:
        """Records the broker has not answered for."""
        return len(self._pending)

    async def produce(self, partition: int, key: bytes, value: bytes | None, headers: Headers = ()) -> Place:
        """Append a record; returns where it stands, when the broker has confirmed it. Always a checkpoint.

        Cancelled, it may or may not be written. Calls may overlap; those of one task keep their order.

        Raises:
            BackplaneUnavailable: no answer within ``timeout``: it may have gone out or not.
            BackplaneError: the broker refuses it, as it will again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        pending = await self._enqueue(partition, key, value, headers)
        pending.tell = partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            pending.tell = None  # it is out of our hands, and counts until there is an answer
            return trio.lowlevel.Abort.SUCCEEDED

        place: Place = await trio.lowlevel.wait_task_rescheduled(abort)
        return place

    async def produce_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> Place:
        """Append keys with their values, in this order; returns where the last one stands, when all are confirmed.

        There has to be one. Raises as `produce` does, when all have been answered: then any may have gone out.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        group = _Group(len(records))
        for key, value in records:
            (await self._enqueue(partition, key, value)).tell = group.take
        await group.settled.wait()
        if group.error is not None or group.place is None:
            raise group.error or ValueError("no records")
        return group.place

    async def _enqueue(self, partition: int, key: bytes, value: bytes | None, headers: Headers = ()) -> _Pending:
        """Hand it to the client, when there is room; no checkpoint where there is some."""
        if self._client is None or self._is_full:
            await self._wait_for_room()
        if self._closed:
            raise BackplaneUnavailable("the link to the broker is closed; publish while it is open")
        if self._client is None:
            raise BackplaneUnavailable(f"there is no link to the broker{self._because}; retry later")
        pending = _Pending(len(key) + len(value or b"") + _RECORD_BYTES, trio.current_time())
        try:
            self._client.produce(
                self._topic, value, key, partition, headers=list(headers),
                on_delivery=partial(self._on_delivery, pending),
            )  # fmt: skip
        except (confluent_kafka.KafkaException, BufferError) as exc:
            await trio.lowlevel.cancel_shielded_checkpoint()
            error = exc.args[0] if isinstance(exc, confluent_kafka.KafkaException) else None
            raise refusal(error, self._topic) from exc
        self._pending[pending] = None
        self._bytes += pending.size
        if not self._is_full:
            self._full.unpark()  # the next one: a large publication may have kept out many small ones
        return pending

    def check_up(self) -> None:
        """Raise BackplaneUnavailable if nothing has come through for longer than ``timeout``."""
        down = 0.0 if self.down_since is None else trio.current_time() - self.down_since
        if down > self._settings.timeout:
            # A short outage is worth waiting for. In a long one each on_leave of a drain, say, would wait in vain.
            raise BackplaneUnavailable(f"the broker has been out of reach for {down:.1f} s{self._because}; retry later")

    @property
    def _because(self) -> str:
        return f" ({self.trouble})" if self.trouble else ""

    @property
    def _is_full(self) -> bool:
        settings = self._settings
        return self.queued >= settings.max_queued_publications or self._bytes >= settings.max_queued_bytes

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self._settings.timeout):
            while True:
                if self._client is None and not self._closed:
                    await self._client_there.wait()
                elif self._is_full and not self._closed:
                    await self._full.park()
                else:
                    return
        within = f"within timeout={self._settings.timeout:g} s"
        if self._client is None:
            raise BackplaneUnavailable(f"there was no link to the broker {within}{self._because}; retry later")
        raise BackplaneUnavailable(
            f"{self.queued} publications waited for the broker and left no room for another {within}; publish less, or "
            "see max_queued_publications"
        )

    # -- in the client's thread --------------------------------------------------------------------

    def _on_delivery(self, pending: _Pending, error: KafkaError | None, message: Any) -> None:
        self._reports.append((pending, error, message.partition(), message.offset()))
        if error is not None:
            self._judge(error)

    def _judge(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in SPENT or (self.was_up and error.code() in SPENT_ONCE_UP):
            self._fatal = error.str()

    def _poll(self, token: trio.lowlevel.TrioToken, on_error: OnError) -> None:
        client = confluent_kafka.Producer(_config(self._location, on_error))
        token.run_sync_soon(self._take_client, client)
        while not self._stopping.is_set():
            try:
                client.poll(POLL_SECONDS)  # returns when it has called back for all that was there
            except confluent_kafka.KafkaException as exc:  # a fatal error, which the error callback is not told
                self._fatal = exc.args[0].str()
            self._hand_over(token)
            if self._fatal is not None:
                token.run_sync_soon(self._spent.set)
                self._stopping.wait()  # until Trio has no reference to the client: the last one is to be ours
        client.purge()  # else the library would never give back what belongs to records it has not answered for
        with suppress(confluent_kafka.KafkaException):
            client.flush(_PURGE_SECONDS)
        self._reports.clear()

    def _hand_over(self, token: trio.lowlevel.TrioToken) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            token.run_sync_soon(self._take_reports, reports)  # as many as are pending at most: that is their bound

    # -- on Trio's side ----------------------------------------------------------------------------

    def _take_reports(self, reports: list[_Report]) -> None:
        now = trio.current_time()
        self._meters.batches.observe(len(reports))
        self._meters.publishing.observe(now - reports[0][0].since)
        for pending, error, number, offset in reports:
            if pending not in self._pending:
                continue  # its client was given up, and it with that
            del self._pending[pending]
            self._release(pending)
            if error is not None:
                _wake(pending, outcome.Error(refusal(error, self._topic)))
            else:
                _wake(pending, outcome.Value(Place(number, UNKNOWN_OFFSET if offset is None else offset)))

    async def run(self, on_error: OnError, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have a client until cancelled, or until it is of no more use; then what was on its way has failed.

        Raises:
            LinkLost: the client has come to an end.
        """
        self._stopping, self._spent = threading.Event(), trio.Event()
        self._fatal, self.was_up = None, False

        def on_client_error(error: KafkaError) -> None:
            self._judge(error)
            on_error(error)

        poll = partial(self._poll, trio.lowlevel.current_trio_token(), on_client_error)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire)
                nursery.start_soon(run_thread, poll, self._stop)
                await self._client_there.wait()
                task_status.started()
                await self._spent.wait()
                raise LinkLost(f"the client can write no more: {self._fatal}")
        finally:
            self._fail_all(
                "the link to the broker broke while a publication was on its way; it may have gone out or not"
            )

    def _take_client(self, client: confluent_kafka.Producer) -> None:
        if not self._stopping.is_set():
            self._client = client
            self._client_there.set()

    def _stop(self) -> None:
        self._client = None
        self._client_there = trio.Event()
        self._stopping.set()

    async def _expire(self) -> None:
        """Fail what has waited for longer than ``timeout``: librdkafka looks at its own deadline once a second."""
        timeout = self._settings.timeout
        within = f"within timeout={timeout:g} s"
        while True:
            await trio.sleep(timeout / _LOOKS_PER_TIMEOUT)
            oldest = trio.current_time() - timeout
            for pending in self._pending:
                if pending.since > oldest:
                    break
                if pending.tell is not None:
                    text = f"the broker has not confirmed a publication {within}{self._because}; retry later"
                    _wake(pending, outcome.Error(BackplaneUnavailable(text)))  # its place stays: an answer will come

    def _fail_all(self, text: str) -> None:
        for pending in list(self._pending):
            del self._pending[pending]
            self._release(pending)
            _wake(pending, outcome.Error(BackplaneUnavailable(text)))

    def close(self) -> None:
        """Nothing is written any more; who waits for room raises."""
        self._closed = True
        self._client_there.set()
        self._full.unpark_all()

    def _release(self, pending: _Pending) -> None:
        self._bytes -= pending.size
        if self._full:
            self._full.unpark()


def _config(location: Location, on_error: OnError) -> Config:
    settings = location.settings
    return {
        **common_config(location, on_error),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": settings.linger * 1_000,
        "request.timeout.ms": milliseconds(settings.timeout),
        "message.timeout.ms": milliseconds(max(settings.timeout, settings.linger + 0.01)),
        "queue.buffering.max.messages": settings.max_queued_publications + _SLACK_PUBLICATIONS,
        "queue.buffering.max.kbytes": 2 * (settings.max_queued_bytes + settings.max_publication_bytes) // 1_024 + 1_024,
    }


def _wake(pending: _Pending, result: outcome.Outcome[Place]) -> None:
    if pending.tell is not None:
        waiting, pending.tell = pending.tell, None
        waiting(result)
