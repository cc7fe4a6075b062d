"""The link to the brokers, supervised: two clients, and a probe that goes round through each partition.

librdkafka finds the brokers again by itself, and goes on where it was: an outage loses nothing. What it cannot mend is
mended here, with new clients: a writer whose order of records is broken, a place that the log does not have any more,
a topic that was made anew or was given more partitions.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import attrs
import confluent_kafka
import trio

from trioroom._core.causes import first_of, leaves_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.client import KafkaError, run_thread
from trioroom.backplane.kafka.feed import LogLost
from trioroom.backplane.kafka.location import Location, in_our_words
from trioroom.backplane.kafka.marks import Marks
from trioroom.backplane.kafka.producer import Producer
from trioroom.backplane.kafka.reader import Handler, Reader
from trioroom.backplane.kafka.topic import Topic, find_or_make_topic, find_starts, find_topic
from trioroom.backplane.supervision import FIRST_BACKOFF, LinkLost, keep_alive
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
Answer = TypeVar("Answer")
CHECK_SECONDS = 30.0  # between two looks whether somebody has added partitions, which nothing else would tell
_PROGRESS_SECONDS = 5.0  # between two lines in the log about reading back


class Link:
    """`run` keeps it up until cancelled; who waits for a record or a place outlives what happens to the clients."""

    def __init__(self, location: Location, handlers: Mapping[bytes, Handler], on_change: Callable[[], None]) -> None:
        """``on_change`` is called when the link comes up or goes down."""
        self.meters = LinkMeters()
        """All it has counted so far."""
        self.ready = False
        """Records come round in each partition, as of the last probe."""
        self.failure: str | None = None
        """Why they do not; None while they do, or were never tried."""
        self.settings = location.settings
        self.partitions = 0
        """Of the topic, which may change when the link comes up again; known once it has been up."""
        self.producer = Producer(location, self.meters)
        self.marks = Marks(self.producer, secrets.token_hex(8).encode())
        self.reader = Reader(location, handlers)
        self._location = location
        self._handlers = handlers
        self._on_change = on_change
        self._topic: Topic | None = None
        self._trouble: str | None = None  # the last that a client has told
        self._suspicion = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def incarnation(self) -> str:
        """Of the topic, as `Topic.incarnation`."""
        return "" if self._topic is None else self._topic.incarnation

    async def run(self) -> None:
        """Connect, and again whenever the clients are of no more use; only cancelling ends it."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            await keep_alive(self._live, self._lost, self.settings.max_backoff)
        finally:
            self.ready = False
            self.producer.close()

    def _lost(self, error: BaseExceptionGroup[BackplaneError]) -> None:
        for exc in leaves_of(error):
            if isinstance(exc, LogLost):
                # Where nothing says whether it is the same topic, one partition speaks for all: others may have grown
                # beyond where we were.
                self.reader.lose(exc.partitions if self.incarnation else range(self.partitions))
        self._went_down(str(first_of(error)))

    async def _live(self) -> None:
        """One life of the clients; ends by raising `LinkLost`, perhaps in a group."""
        self._accept(await self._ask(find_or_make_topic))
        async with trio.open_nursery() as nursery:
            await nursery.start(self.producer.run, self._note)
            await nursery.start(self.marks.run)
            ends = await self._ends()
            starts = dict(self.reader.places) or await self._first_starts(ends)
            await nursery.start(self.reader.run, starts, ends, self._note)
            await self._wait_read_back()
            await self._keep_probing()

    async def _first_starts(self, ends: Mapping[int, int]) -> Mapping[int, int]:
        read_back = max((handler.read_back for handler in self._handlers.values()), default=0.0)
        if not read_back:
            return ends
        return await self._ask(partial(find_starts, ends=ends, since=time.time() - read_back))

    async def _ask(self, question: Callable[[Location, threading.Event], Answer]) -> Answer:
        stopping = threading.Event()
        answers: list[Answer] = []
        await run_thread(lambda: answers.append(question(self._location, stopping)), stopping.set)
        return answers[0]

    def _accept(self, topic: Topic) -> None:
        known, self._topic = self._topic, topic
        self.partitions = topic.partitions
        if known is not None and topic != known:
            self.reader.lose_all(topic.partitions)

    async def _ends(self) -> dict[int, int]:
        ends: dict[int, int] = {}

        async def find(partition: int) -> None:
            ends[partition] = await self._first_mark(partition) + 1

        try:
            async with trio.open_nursery() as nursery:
                for partition in range(self.partitions):
                    nursery.start_soon(find, partition)
        except* BackplaneError as group:
            raise LinkLost(f"{first_of(group)}{self._told}") from None  # it says all there is to say
        return ends

    async def _first_mark(self, partition: int) -> int:
        # A client needs a second until it may write; a timeout that is shorter is for when it may.
        deadline = trio.current_time() + self.settings.connect_timeout
        while True:
            try:
                return await self.marks.offset(partition)
            except BackplaneUnavailable:
                if trio.current_time() > deadline:
                    raise

    async def _wait_read_back(self) -> None:
        """As long as it takes, while records come."""
        told_at, behind = trio.current_time(), self.reader.behind
        whole = behind
        while self.reader.behind:
            with trio.move_on_after(self.settings.probe_timeout) as waiting:
                await self.reader.wait_progress()
            if waiting.cancelled_caught and behind == self.reader.behind:
                raise LinkLost(f"the log was not read for {self.settings.probe_timeout:g} s{self._told}")
            behind = self.reader.behind
            if trio.current_time() - told_at >= _PROGRESS_SECONDS:
                told_at = trio.current_time()
                log.info("kafka: reading the log back, %d of %d records to go", behind, whole)

    async def _keep_probing(self) -> None:
        settings, checked_at = self.settings, trio.current_time()
        while True:
            self._suspicion = trio.Event()
            if self.ready:
                failure = await self._probe()
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._check_topic)  # beside it: it may be what keeps the probe
                    failure = await self._probe()
                    nursery.cancel_scope.cancel()
                failure = failure or await self._check_topic()
            if failure is None:
                self._came_up()
            else:
                self._went_down(failure)
            with trio.move_on_after(settings.probe_interval if self.ready else FIRST_BACKOFF):
                if self.ready and trio.current_time() - checked_at > CHECK_SECONDS:
                    checked_at = trio.current_time()
                    await self._check_topic()  # that it cannot be asked now is no news
                await self._suspicion.wait()

    async def _probe(self) -> str | None:
        """Why it did not come round."""
        timeout, began, failure = self.settings.probe_timeout, trio.current_time(), None
        with trio.move_on_after(timeout) as waiting:
            failure = await self._go_round()
        if waiting.cancelled_caught:
            failure = f"a probe did not come round within {timeout:g} s{self._told}"
        self.meters.round_trips.observe(trio.current_time() - began)
        return failure

    @property
    def _told(self) -> str:
        return f" ({in_our_words(self._trouble)})" if self._trouble else ""

    async def _go_round(self) -> str | None:
        """Through all partitions at once; or why not."""
        failures: list[str] = []

        async def go_round(partition: int) -> None:
            try:
                offset = await self.marks.offset(partition)
                await self.reader.wait_passed(partition, offset)
            except BackplaneUnavailable as exc:
                failures.append(str(exc))
            except BackplaneError as exc:
                raise LinkLost(str(exc)) from exc  # the client would keep to it for minutes, a new one asks again

        async with trio.open_nursery() as nursery:
            for partition in range(self.partitions):
                nursery.start_soon(go_round, partition)
        return failures[0] if failures else None

    async def _check_topic(self) -> str | None:
        """Why we cannot tell that it is the same; raises `LinkLost` if it is not."""
        try:
            topic = await self._ask(find_topic)
        except LinkLost as exc:
            return str(exc)
        if topic is None:
            assert self._topic is not None
            self._topic = attrs.evolve(self._topic, incarnation="deleted")  # so that the next one is another one
            raise LinkLost(f"topic {self._location.plan.name} was deleted")
        if topic.partitions != self.partitions:
            raise LinkLost(
                f"topic {topic.name} has {topic.partitions} partitions and had {self.partitions}: what is written "
                "to it goes to others now, and it is read anew"
            )
        if topic != self._topic:
            raise LinkLost(f"topic {topic.name} was made anew")
        return None

    # -- state -------------------------------------------------------------------------------------

    def _note(self, error: KafkaError) -> None:
        """In a client's thread."""
        assert self._token is not None
        if error.code() == confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED:
            return  # the client asks for the coordinator of a group, and we have none
        all_down = error.code() == confluent_kafka.KafkaError._ALL_BROKERS_DOWN
        self._token.run_sync_soon(self._take_note, error.str(), all_down)

    def _take_note(self, trouble: str, all_down: bool) -> None:
        if not all_down:
            self._trouble = trouble
        elif self.ready:
            self._went_down(f"no broker can be reached{self._told}")
            self._suspicion.set()

    def _came_up(self) -> None:
        self._trouble = self.failure = self.producer.trouble = self.producer.down_since = None
        self.producer.was_up = True
        if not self.ready:
            self.ready = True
            fields = {"topic": self._location.plan.name, "endpoint": str(self._location), "partitions": self.partitions}
            log.info("kafka: topic %s at %s is up, %d partitions", *fields.values(), extra=fields)
            self._on_change()

    def _went_down(self, reason: str) -> None:
        first = self.failure is None and self._topic is None  # that is for who opens the backplane to tell
        if reason != self.failure and not first:
            fields = {"endpoint": str(self._location)}
            log.warning("kafka: %s%s; trying again", self._location.plan.label, reason, extra=fields)
        self.failure = self.producer.trouble = reason
        if self.producer.down_since is None:
            self.producer.down_since = trio.current_time()
        self.meters.outages += self.ready
        self.ready = False
        self._on_change()
