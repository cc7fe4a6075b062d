"""The topic as a log that all nodes write and read: what rooms, histories and presence are built on.

`Log.produce` appends and says where; every node's handlers get every record of their kind, in the order of the log in
each partition. `Log.caught_up` waits until the handlers have been given all that was there when it was called, so that
what they make of it can be asked.

The link to the brokers is supervised: a probe goes round through each partition, and clients that are of no more use are
replaced. An outage loses nothing, as reading goes on from the same place; only where the log has lost that place
the handlers are told.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

import confluent_kafka
import trio

from trioroom._core.backoff import Backoff
from trioroom._core.causes import first_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.client import KafkaError, LinkLost, run_thread
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.marks import Marks
from trioroom.backplane.kafka.producer import Producer
from trioroom.backplane.kafka.reader import Handler, LogLost, Reader
from trioroom.backplane.kafka.records import Headers, Place, partition_of
from trioroom.backplane.kafka.topic import Admin, Topic
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_FIRST_BACKOFF = 0.05  # seconds; doubles with each failure up to KafkaSettings.max_backoff
_SETTLED = 5.0  # seconds of life after which a loss is a new one and no sign that coming back is useless
Answer = TypeVar("Answer")
_PROGRESS_SECONDS = 5.0  # between two lines in the log about reading back


class Log:
    """`run` keeps the link up until cancelled; who waits for a record or a place outlives what happens to the clients."""

    def __init__(self, location: Location, on_change: Callable[[], None] = lambda: None) -> None:
        """``on_change`` is called when the link comes up or goes down."""
        self.meters = LinkMeters()
        """Outages, delays and group sizes so far."""
        self.ready = False
        """Whether what we write comes round to us in each partition, as of the last probe."""
        self.failure: str | None = None
        """Why it does not; None while it does, or was never tried."""
        self.settings = location.settings
        self.partitions = 0
        """Of the topic; known once the link has been up."""
        self._location = location
        self._on_change = on_change
        self._handlers: dict[bytes, Handler] = {}
        self._producer = Producer(location, self.meters)
        self._marks = Marks(self._producer, secrets.token_hex(8).encode())
        self._reader = Reader(location, self._handlers)
        self._topic: Topic | None = None
        self._trouble: str | None = None  # the last that a client has told
        self._suspicion = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    # -- for those who build on it -----------------------------------------------------------------

    def add_handler(self, kind: bytes, handler: Handler) -> None:
        """Give ``handler`` all records of this kind; before `run`."""
        self._handlers[kind] = handler

    def partition_of(self, kind: bytes, name: str) -> int:
        """Where `produce` puts what has this kind and name."""
        return partition_of(kind + name.encode(), self.partitions)

    async def produce(self, kind: bytes, name: str, value: bytes, headers: Headers = ()) -> Place:
        """Append a record; returns its place when the broker has confirmed it. Always a checkpoint.

        Cancelled, it may or may not be written. Calls may overlap; those of one task keep their order.

        Raises:
            BackplaneUnavailable: no answer within ``timeout``: it may have gone out or not. At once when nothing has
                come through for so long already.
            BackplaneError: the broker refuses it, as it will again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._producer.check_up()
        key = kind + name.encode()
        return await self._producer.produce(partition_of(key, self.partitions), key, value, headers)

    async def wait_passed(self, place: Place) -> None:
        """Until the record there has been given to its handler; always a checkpoint."""
        await self._reader.wait_passed(place.partition, place.offset)

    async def end(self, partition: int) -> int:
        """An offset behind all that has been confirmed so far. Calls may overlap, and then share a round trip.

        Raises:
            BackplaneUnavailable, BackplaneError: as `produce`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._producer.check_up()
        return await self._marks.offset(partition) + 1

    async def caught_up(self, partition: int) -> None:
        """Until the handlers have been given all that has been confirmed so far, by any node.

        Raises:
            BackplaneUnavailable: not within ``timeout``.
            BackplaneError: as `produce`.
        """
        with trio.move_on_after(self.settings.timeout):
            end = await self.end(partition)
            return await self._reader.wait_passed(partition, end - 1)
        raise BackplaneUnavailable(
            f"the log has not been read to its end within timeout={self.settings.timeout:g} s"
            f"{self._because}; retry later"
        )

    @property
    def _because(self) -> str:
        return f" ({self.failure})" if self.failure else ""

    # -- supervision -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and again whenever the clients are of no more use; only cancelling ends it."""
        self._token = trio.lowlevel.current_trio_token()
        backoff = Backoff(first=_FIRST_BACKOFF, most=self.settings.max_backoff, settled=_SETTLED)
        try:
            while True:
                began = trio.current_time()
                try:
                    await self._live()
                except* LogLost as group:
                    lost = {partition for exc in leaves_of(group) for partition in exc.partitions}
                    self._reader.lose(sorted(lost))
                    self._went_down(str(first_of(group)))
                except* LinkLost as group:
                    self._went_down(str(first_of(group)))
                await trio.sleep(backoff.after(trio.current_time() - began, random.random()))
        finally:
            self.ready = False
            self._producer.close()

    async def _live(self) -> None:
        """One life of the clients; ends by raising `LinkLost`, perhaps in a group."""
        self._accept(await self._ask(Admin.find_or_make))
        async with trio.open_nursery() as nursery:
            await nursery.start(self._producer.run, self._note)
            await nursery.start(self._marks.run)
            ends = await self._ends()
            starts = dict(self._reader.places)
            if not starts and (read_back := max((h.read_back for h in self._handlers.values()), default=0.0)):
                since = time.time() - read_back
                found = await self._ask(lambda admin: admin.starts([*ends.values()], since))
                starts = dict(enumerate(found))
            nursery.start_soon(self._reader.run, starts or ends, ends, self._note)
            await self._wait_read_back()
            await self._keep_probing()

    async def _ask(self, question: Callable[[Admin], Answer]) -> Answer:
        admin = Admin(self._location)
        answers: list[Answer] = []
        await run_thread(lambda: answers.append(question(admin)), admin.stop)
        return answers[0]

    def _accept(self, topic: Topic) -> None:
        known, self._topic = self._topic, topic
        if known is None:
            self.partitions = topic.partitions
        elif topic.partitions != self.partitions:
            self._topic = known
            raise LinkLost(
                f"topic {topic.name} has {topic.partitions} partitions and had {self.partitions}; restart all nodes, "
                "which would not agree where a room is"
            )
        elif topic.incarnation != known.incarnation:
            self._reader.lose(range(topic.partitions))

    async def _ends(self) -> dict[int, int]:
        try:
            return {partition: await self._marks.offset(partition) + 1 for partition in range(self.partitions)}
        except BackplaneError as exc:
            raise LinkLost(f"{exc}{f' ({self._trouble})' if self._trouble else ''}") from exc

    async def _wait_read_back(self) -> None:
        """As long as it takes, while records come."""
        told_at, behind = trio.current_time(), self._reader.behind
        whole = behind
        while self._reader.behind:
            with trio.move_on_after(self.settings.probe_timeout) as waiting:
                await self._reader.wait_progress()
            if waiting.cancelled_caught and behind == self._reader.behind:
                raise LinkLost(f"the log was not read for {self.settings.probe_timeout:g} s{self._told}")
            behind = self._reader.behind
            if trio.current_time() - told_at >= _PROGRESS_SECONDS:
                told_at = trio.current_time()
                log.info("kafka: reading the log back, %d of %d records to go", behind, whole)

    async def _keep_probing(self) -> None:
        settings = self.settings
        while True:
            self._suspicion = trio.Event()
            began = trio.current_time()
            with trio.move_on_after(settings.probe_timeout) as waiting:
                failure = await self._go_round()
            if waiting.cancelled_caught:
                failure = f"a probe did not come round within {settings.probe_timeout:g} s{self._told}"
            self.meters.round_trips.observe(trio.current_time() - began)
            if failure is None and not self.ready:
                failure = await self._check_topic()
            if failure is None:
                self._came_up()
                with trio.move_on_after(settings.probe_interval):
                    await self._suspicion.wait()
            else:
                self._went_down(failure)
                await self._check_topic()
                if not waiting.cancelled_caught:  # refused at once
                    await trio.sleep(settings.max_backoff)

    @property
    def _told(self) -> str:
        return f" ({self._trouble})" if self._trouble else ""

    async def _go_round(self) -> str | None:
        """Through all partitions at once; or why not."""
        failures: list[str] = []

        async def go_round(partition: int) -> None:
            try:
                offset = await self._marks.offset(partition)
                await self._reader.wait_passed(partition, offset)
            except BackplaneError as exc:
                failures.append(str(exc))

        async with trio.open_nursery() as nursery:
            for partition in range(self.partitions):
                nursery.start_soon(go_round, partition)
        return failures[0] if failures else None

    async def _check_topic(self) -> str | None:
        """Why we cannot tell that it is the same; raises `LinkLost` if it is not."""
        try:
            topic = await self._ask(Admin.find)
        except LinkLost as exc:
            return str(exc)
        if topic != self._topic:
            raise LinkLost(f"topic {self.settings.topic} was {'deleted' if topic is None else 'made anew'}")
        return None

    # -- state -------------------------------------------------------------------------------------

    def _note(self, error: KafkaError) -> None:
        """In a client's thread."""
        assert self._token is not None
        all_down = error.code() == confluent_kafka.KafkaError._ALL_BROKERS_DOWN
        self._token.run_sync_soon(self._take_note, error.str(), all_down)

    def _take_note(self, trouble: str, all_down: bool) -> None:
        if not all_down:
            self._trouble = trouble
        elif self.ready:
            self._went_down(self._trouble or trouble)
            self._suspicion.set()

    def _came_up(self) -> None:
        self._trouble = self.failure = self._producer.trouble = self._producer.down_since = None
        if not self.ready:
            self.ready = True
            fields = {"topic": self.settings.topic, "endpoint": str(self._location), "partitions": self.partitions}
            log.info("kafka: topic %s at %s is up, %d partitions", *fields.values(), extra=fields)
            self._on_change()

    def _went_down(self, reason: str) -> None:
        first = self.failure is None and self._topic is None  # that is for who opens the backplane to tell
        if reason != self.failure and not first:
            log.warning("kafka: %s; trying again", reason, extra={"endpoint": str(self._location)})
        self.failure = self._producer.trouble = reason
        if self._producer.down_since is None:
            self._producer.down_since = trio.current_time()
        self.meters.outages += self.ready
        self.ready = False
        self._on_change()
