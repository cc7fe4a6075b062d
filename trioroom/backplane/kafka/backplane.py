"""`open_kafka` and the backplane it opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import HistoryStore
from trioroom.backplane.kafka.history import KafkaHistory
from trioroom.backplane.kafka.location import Location, parse_location
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.plans import presence_plan
from trioroom.backplane.kafka.presence import KafkaPresence
from trioroom.backplane.kafka.presence_watch import BEATS
from trioroom.backplane.kafka.records import HISTORY, PUBLICATION_ID, ROOM
from trioroom.backplane.kafka.rooms import Rooms
from trioroom.backplane.kafka.settings import KafkaSettings
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable


class KafkaBackplane:
    """Records of one topic, which every node reads all of; get it from `open_kafka`."""

    def __init__(self, log: Log, presence_log: Log) -> None:
        """Before they run, as what is built on them has to see them from the start."""
        self._log = log
        self._presence = KafkaPresence(presence_log)
        self._rooms = Rooms(log)
        self._history = KafkaHistory(log)
        log.add_handler(ROOM, self._rooms)
        log.add_handler(HISTORY, self._history)

    @property
    def history(self) -> HistoryStore | None:
        """In the same log; each node has what is younger than ``history_window`` in its memory too."""
        return self._history

    @property
    def presence(self) -> KafkaPresence:
        """In a topic of its own, which all nodes read all of."""
        return self._presence

    @property
    def meters(self) -> LinkMeters:
        """Outages, delays and group sizes so far."""
        return self._log.meters

    @property
    def ready(self) -> bool:
        """Whether what we publish comes round to us in each partition, as of the last probe."""
        return self._log.ready

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """Append it to the log; returns when the broker has confirmed it.

        Calls may overlap, and then share a request. Cancelled, the publication may or may not have gone out. Of those
        with one id all get into the log, and each reader leaves out all but the first.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it.
        """
        self._log.settings.check_payload(payload)
        headers = [] if publication_id is None else [(PUBLICATION_ID, publication_id.encode())]
        await self._log.produce(ROOM, room, payload, headers)

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """From behind a mark in the log; entered when the broker has confirmed that.

        Raises:
            BackplaneUnavailable: no answer within ``timeout``.
            BackplaneError: the broker refused it.
        """
        return self._rooms.subscribe(room, channel)


@asynccontextmanager
async def open_kafka(url: str, *, settings: KafkaSettings | None = None) -> AsyncIterator[KafkaBackplane]:
    """A backplane through the brokers that ``url`` names some of, supervised while the context is open.

    ``kafka://[user:password@]host[:9092],host``, or ``kafka+tls://`` with TLS. With user and password goes
    ``?sasl_mechanism=``: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. With TLS ``ssl_ca_certs`` or ``ssl_ca_path``,
    ``ssl_certfile``, ``ssl_keyfile``, ``ssl_password``, ``ssl_cert_reqs=none`` and ``ssl_check_hostname=false``.

    Each field of `KafkaSettings` can stand in the query and goes before ``settings``. Entered when the log has been
    read back for ``publication_id_ttl`` or ``history_window``, whichever is longer.

    Raises:
        ValueError: the URL is not so.
        BackplaneUnavailable: the brokers cannot be reached or refuse us now. Later they are waited for.
    """
    location = parse_location(url, settings)
    changed = trio.Event()
    logs = [Log(each, lambda: changed.set()) for each in (location, _for_presence(location))]
    backplane = KafkaBackplane(*logs)
    async with run_in_background(logs[0].run), run_in_background(logs[1].run):
        new = logs
        while new := [log for log in new if not log.ready]:  # what has been up may wait, as long as the other is read
            if failures := [log.failure for log in new if log.failure is not None]:
                raise BackplaneUnavailable(f"cannot use the Kafka backplane: {failures[0]}")
            await changed.wait()
            changed = trio.Event()
        async with run_in_background(backplane.presence.run):
            yield backplane


def _for_presence(location: Location) -> Location:
    settings = location.settings
    # Nobody waits for what goes wrong here before the next beat, and each probe is a record that new nodes read.
    settings = attrs.evolve(settings, probe_interval=max(settings.probe_interval, settings.presence_lease / BEATS))
    return attrs.evolve(location, settings=settings, plan=presence_plan(settings))
