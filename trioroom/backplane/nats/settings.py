"""What may be turned about the link to NATS; each can stand in the URL too, as in ``?prefix=shop``."""

from __future__ import annotations

import attrs
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE, number, one_of

_LEASE = validators.and_(number, validators.ge(1.0), validators.le(86_400.0))
_LASTING = validators.and_(POSITIVE, validators.lt(1e9))  # in nanoseconds it has to fit into 63 bits


@attrs.frozen(kw_only=True)
class NatsSettings:
    """Names, bounds and deadlines. Times are seconds."""

    prefix: str = attrs.field(default="trioroom", validator=validators.matches_re(r"[A-Za-z0-9_-]+"))
    """Before the name of each subject, stream and bucket, so that several apps share one account; letters, digits,
    ``_`` and ``-``."""
    timeout: float = attrs.field(default=5.0, validator=POSITIVE)
    """How long ``publish`` and ``subscribe`` wait, also for room in the queue, before `trioroom.BackplaneUnavailable`:
    longer than it takes to come back after a restart, so that a short outage costs a delay and no error."""
    connect_timeout: float = attrs.field(default=2.0, validator=POSITIVE)
    """Connecting and logging in, absolute, as a stopped server's kernel accepts connections that nobody serves; and
    then each question to JetStream before rooms are live, as a cluster without a leader answers nothing."""
    probe_interval: float = attrs.field(default=1.0, validator=POSITIVE)
    """Between two publications to ourselves, which show that the way through the broker is open."""
    probe_timeout: float = attrs.field(default=2.0, validator=POSITIVE)
    """Silence after which the link is given up; it is noticed after ``probe_interval + probe_timeout`` at most."""
    max_backoff: float = attrs.field(default=1.0, validator=POSITIVE)
    """The longest pause between two attempts to come back; pauses double up to it and are jittered."""
    max_queued_publications: int = attrs.field(default=4_096, validator=COUNT)
    """Publications of this node the broker has not confirmed; ``publish`` awaits when they are this many."""
    max_queued_bytes: int = attrs.field(default=1 << 24, validator=COUNT)
    """The same in bytes; the one that reaches the bound may go beyond it."""
    max_publication_bytes: int = attrs.field(default=1 << 22, validator=COUNT)
    """One publication. The server's own bound goes before it, ``max_payload``, 1 MiB unless its configuration says
    otherwise, for which headers count too. What another program puts into a room's subject beyond it is dropped and
    told as a gap."""
    publication_id_ttl: float = attrs.field(default=300.0, validator=[number, validators.ge(0.1)])
    """How long a ``publication_id`` is remembered; longer than any publisher goes on trying. The server refuses less
    than a tenth of a second."""
    max_relay_bytes: int = attrs.field(default=1 << 26, validator=[COUNT, validators.ge(1 << 16)])
    """Memory at the server for the stream through which rooms without a history go. It keeps the last publication of
    each room, for ``publication_id_ttl`` at most, by which nodes notice what was lost between two servers; no member
    gets it."""
    replicas: int = attrs.field(default=1, validator=one_of(1, 2, 3, 4, 5))
    """Servers of a cluster that have each stream, histories too. With 1 rooms wait while the one server is away and
    histories are as lasting as its disk; 3 outlives the loss of one, and each publication waits for two of them."""
    storage: str = attrs.field(default="file", validator=one_of("file", "memory"))
    """What has histories, and who is present. ``file`` outlives a restart of the server, ``memory`` does not and needs
    no disk."""

    history_streams: int = attrs.field(default=4, validator=[COUNT, validators.le(256)])
    """Streams over which histories are spread by the names of rooms. The server looks for what a room has among all
    that its stream has: a page takes it up to a millisecond for each 7,000 publications there. Alike on all nodes; one
    with another number is refused until the streams are removed."""
    max_history_size: int = attrs.field(default=1_000, validator=COUNT)
    """Publications that the server holds of each room, so the most that a ``History.size`` may be. A room that keeps
    less has as many there, once it has published so many."""
    position_ttl: float = attrs.field(default=86_400.0, validator=_LASTING)
    """How long the server holds each of them, so the most that a ``History.ttl`` may be. The last one tells where the
    room's history ends, so that who comes back to a room that has been quiet for longer is told of a loss."""
    presence_lease: float = attrs.field(default=30.0, validator=_LEASE)
    """How long who is present on a node stays present when the node is gone without a word. Renewed three times in it:
    a node that stops for longer, or has no way to the broker, is taken for dead and comes back as another one. From 1
    second, which a pause of a process may take, to a day."""

    def check_payload(self, payload: bytes) -> None:
        """Raise ValueError if ``payload`` has more than ``max_publication_bytes``."""
        if len(payload) > self.max_publication_bytes:
            raise ValueError(
                f"publication of {len(payload)} bytes exceeds max_publication_bytes="
                f"{self.max_publication_bytes}; raise the limit on all nodes or publish in parts"
            )
