"""What may be turned about the link to Kafka; each can stand in the URL too, as in ``?prefix=shop``."""

from __future__ import annotations

import attrs
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE, number, whole_number

_SECONDS = validators.and_(POSITIVE, validators.le(86_400.0))
_DEADLINE = validators.and_(POSITIVE, validators.le(300.0))  # as long as librdkafka waits at most
_FACTOR = validators.and_(whole_number, validators.ge(-1), validators.le(127))
_PREFIX = validators.matches_re(r"[A-Za-z0-9._-]{1,200}")
MAX_PUBLICATION_BYTES = 1 << 25  # what librdkafka takes in one answer to a fetch is 100 MB, with room for others
OVERHEAD_BYTES = 1 << 16  # of a record around a publication: its key, its headers, and the batch it stands in


@attrs.frozen(kw_only=True)
class KafkaSettings:
    """Names, bounds and deadlines. Times are seconds; what is waited for the brokers is 300 at most."""

    prefix: str = attrs.field(default="trioroom", validator=_PREFIX)
    """Before the names of the topics, ``prefix.rooms`` and ``prefix.presence``, so that several apps share one Kafka;
    an ACL needs Read, Write and Describe on the topics with this prefix, Create to have us make them, and
    IdempotentWrite before Kafka 3.0."""
    partitions: int = attrs.field(default=8, validator=COUNT)
    """Of the topic, if we are the ones to make it; what it can be spread over brokers by. A topic that is there is
    used as it is. Each node probes each of them, once in ``probe_interval``."""
    replication_factor: int = attrs.field(default=-1, validator=_FACTOR)
    """Of the topic, if we make it; -1 is the brokers' default."""
    retention: float = attrs.field(default=3_600.0, validator=POSITIVE)
    """How long the topic keeps records, if we make it; longer than ``publication_id_ttl``, than any room's history and
    than a node may be cut off and still miss nothing."""
    timeout: float = attrs.field(default=5.0, validator=_DEADLINE)
    """How long ``publish`` and ``subscribe`` wait, also for room in the queue, before `trioroom.BackplaneUnavailable`.
    Where it is longer than it takes until another broker leads a partition, a broker that dies costs a delay and no
    error; Kafka itself waits for that broker first, for ``broker.session.timeout.ms``, 9 seconds unless set."""
    connect_timeout: float = attrs.field(default=2.0, validator=[_DEADLINE, validators.ge(1.0)])
    """Connecting and logging in; from 1 second, which is the client's least."""
    probe_interval: float = attrs.field(default=1.0, validator=_DEADLINE)
    """Between two records to ourselves in each partition, which show that the way through the log is open."""
    probe_timeout: float = attrs.field(default=2.0, validator=_DEADLINE)
    """After it the node is not ready, and a broker that has not answered is asked on a new connection."""
    max_backoff: float = attrs.field(default=1.0, validator=_DEADLINE)
    """The longest pause between two attempts to come back; pauses double up to it and are jittered."""
    linger: float = attrs.field(default=0.0, validator=[number, validators.ge(0.0), validators.le(1.0)])
    """How long a publication waits for others to go with. At zero those that come up while requests are on their way go
    together; more is fewer requests at more latency."""
    fetch_wait: float = attrs.field(default=0.5, validator=_DEADLINE)
    """How long a broker holds back an answer that would be empty. Kafka answers as soon as there is something; some
    that speak its protocol only look after this time, and want 0.01."""
    max_queued_publications: int = attrs.field(default=4_096, validator=[COUNT, validators.le(1 << 30)])
    """Publications of this node the broker has not confirmed; ``publish`` awaits when they are this many."""
    max_queued_bytes: int = attrs.field(default=1 << 24, validator=[COUNT, validators.le(1 << 39)])
    """The same in bytes; the one that reaches the bound may go beyond it."""
    max_fetched_bytes: int = attrs.field(default=1 << 24, validator=[COUNT, validators.lt(1 << 31)])
    """What has been fetched and not been looked at yet; a fetch that is on its way may go beyond it."""
    max_publication_bytes: int = attrs.field(default=1 << 22, validator=[COUNT, validators.le(MAX_PUBLICATION_BYTES)])
    """One publication. A topic that we make takes as much; one that is there may take less (``max.message.bytes``)."""
    publication_id_ttl: float = attrs.field(default=300.0, validator=_SECONDS)
    """How long a ``publication_id`` is remembered; longer than any publisher goes on trying. A node that starts reads
    the log back for as long, which takes a second for each few 100,000 publications."""
    max_publication_ids: int = attrs.field(default=100_000, validator=COUNT)
    """How many are remembered, shared out among the partitions; beyond it those that were used longest ago are
    forgotten before their time. The same on all nodes, as each finds out for itself what came before."""

    max_history_bytes: float = attrs.field(default=64 * 1024 * 1024, validator=POSITIVE)
    """What the histories of all rooms may take in the memory of each node, with 200 for each publication and 1,000 for
    each room. When they are more, rooms that have been quiet longest lose theirs; ``inf`` is no bound."""
    history_window: float = attrs.field(default=600.0, validator=_SECONDS)
    """How far back a node reads the log when it starts, and so the longest that a publication is kept for, whatever the
    ``ttl`` of its room. Longer takes longer to start. The same on all nodes."""
    presence_lease: float = attrs.field(default=30.0, validator=[_SECONDS, validators.ge(1.0)])
    """How long who is present on a node stays present when the node is gone without a word. Renewed three times in it:
    a node that stops for longer, or has no way to the broker, is taken for dead and comes back as another one. Longer
    than nodes take to come back after an outage of the broker, which is some seconds."""
    max_presence_bytes: int = attrs.field(default=1 << 28, validator=COUNT)
    """Of memory for who is present in all rooms of all nodes, as each node holds all of that; a user takes 150 bytes
    beside its id and info, and each room on each node 700. Who is too many is not shown, and the log says so; each row
    is written again once a day, and is shown if there is room then."""

    def check_payload(self, payload: bytes) -> None:
        """Raise ValueError if ``payload`` has more than ``max_publication_bytes``."""
        if len(payload) > self.max_publication_bytes:
            raise ValueError(
                f"publication of {len(payload)} bytes exceeds max_publication_bytes="
                f"{self.max_publication_bytes}; raise the limit on all nodes or publish in parts"
            )

    def __attrs_post_init__(self) -> None:
        for name in ("publication_id_ttl", "history_window"):
            back = getattr(self, name)
            if self.retention < back:
                raise ValueError(
                    f"retention={self.retention:g} is shorter than {name}={back:g}, for which the log is read back; "
                    "raise it"
                )
