"""What may be turned about the link to Redis; each can stand in the URL too, as in ``?prefix=shop``."""

from __future__ import annotations

import attrs
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE, number

_LEASE = validators.and_(number, validators.ge(1.0), validators.le(86_400.0))


@attrs.frozen(kw_only=True)
class RedisSettings:
    """Names, bounds and deadlines. Times are seconds."""

    prefix: str = attrs.field(default="trioroom", validator=validators.min_len(1))
    """Before the name of each channel and key, so that several apps share one Redis; an ACL needs ``&prefix:*`` and
    ``~prefix:*``. No braces."""
    timeout: float = attrs.field(default=5.0, validator=POSITIVE)
    """How long ``publish`` and ``subscribe`` wait, also for room in the queue, before `trioroom.BackplaneUnavailable`:
    longer than it takes to come back after a restart, so that a short outage costs a delay and no error."""
    connect_timeout: float = attrs.field(default=2.0, validator=POSITIVE)
    """Connecting and logging in, absolute; a stopped server's kernel accepts connections that nobody serves."""
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
    """One publication; what another program puts into a room's channel beyond it is dropped and told as a gap."""
    position_ttl: float = attrs.field(default=7 * 86_400.0, validator=POSITIVE)
    """How long a room's epoch and offset outlive the last publication and the last look at its history; then all
    positions of that room are lost."""
    publication_id_ttl: float = attrs.field(default=300.0, validator=POSITIVE)
    """How long a ``publication_id`` is remembered; longer than any publisher goes on trying."""

    presence_lease: float = attrs.field(default=30.0, validator=_LEASE)
    """How long who is present on a node stays present when the node is gone without a word. Renewed three times in it:
    a node that stops for longer, or has no way to the broker, is taken for dead and comes back as another one. From 1
    second, which a pause of a process may take, to a day, after which Redis drops a table that nobody uses anyway."""

    def check_payload(self, payload: bytes) -> None:
        """Raise ValueError if ``payload`` has more than ``max_publication_bytes``."""
        if len(payload) > self.max_publication_bytes:
            raise ValueError(
                f"publication of {len(payload)} bytes exceeds max_publication_bytes="
                f"{self.max_publication_bytes}; raise the limit on all nodes or publish in parts"
            )

    @prefix.validator
    def _has_no_braces(self, _: object, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:  # on a cluster all channels would share the slot of what is between them
            raise ValueError(f"prefix={prefix!r} has a brace, which means something on a cluster; write it without")
