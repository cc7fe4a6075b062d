"""Subjects and names at the server. A room's name becomes one token, which no other name does."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

# All that a key of a key-value bucket may have (https://docs.nats.io/nats-concepts/jetstream/key-value-store) but for
# the dot, which would part tokens, and = which begins an escape.
_OTHERS = re.compile(rb"[^A-Za-z0-9_/-]")
_escape: Callable[[re.Match[bytes]], bytes] = lambda found: b"=%02X" % ord(found[0])  # noqa: E731


def token_of(text: str) -> str:
    """``text`` as one token of a subject, or a key: what is no letter, digit, ``_``, ``-`` or ``/`` becomes ``=XX``.

    Those are the bytes of its UTF-8. No text is ``=`` alone. Case counts, as it does at the server.
    """
    return _OTHERS.sub(_escape, text.encode()).decode("ascii") or "="


@attrs.frozen
class Names:
    """Of streams and subjects, by the prefix of an app. A relay is what rooms without a history go through."""

    prefix: str

    @property
    def relay(self) -> str:
        """The stream that is it."""
        return f"{self.prefix}_relay"

    @property
    def relay_leaders(self) -> str:
        """Where the server tells that another one of the cluster has it now."""
        return f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{self.relay}"

    @property
    def put(self) -> str:
        """What is published to subjects that begin so is numbered by the relay."""
        return f"{self.prefix}.put."

    @property
    def history(self) -> str:
        """The stream in which all histories are."""
        return f"{self.prefix}_history"

    @property
    def keep(self) -> str:
        """What is published to subjects that begin so is kept there."""
        return f"{self.prefix}.keep."

    @property
    def kept(self) -> str:
        """And comes out again on those that begin so."""
        return f"{self.prefix}.kept."

    @property
    def got(self) -> str:
        """And comes out again on those that begin so."""
        return f"{self.prefix}.got."
