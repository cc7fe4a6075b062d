"""Who is in a room, from pages of ``who`` and pushes in the order in which they come."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trioroom._wire.envelopes import Ok, Presence, Present
from trioroom.client.events import PresenceDiff
from trioroom.room import PresentUser


@attrs.frozen
class Ask:
    """What the list needs next: a page of ``who``, behind the user ``after``."""

    listing: int
    """Pages of an earlier listing do not count."""
    after: str | None = None


class PresenceList:
    """The list of one room; owned by the room.

    While pages come the list that is shown stays as it was. When the last one has come it is replaced, and what
    differs is told: so the first list tells of all who are in it, and a reconnect shows nothing of those who were there
    before and are there now.
    """

    def __init__(self) -> None:
        self.users: dict[str, object] = {}
        """What each user shows, by user."""
        self.count = 0
        """How many there are; also where there is no list."""
        self.is_complete = False
        """Whether a whole list has come, or the room only counts."""
        self._counts_only = False
        self._fresh: dict[str, object] | None = None  # while pages come
        self._pages = 0  # of it that have come
        self._listing = 0

    def begin(self) -> Ask | None:
        """The room was joined, or more has changed than is worth listing."""
        if self._counts_only:
            return None
        self._fresh, self._pages = {}, 0
        self._listing += 1
        return Ask(self._listing)

    def page(self, asked: Ask, ok: Ok) -> Ask | PresenceDiff | None:
        """An answer to ``who``: whether another page is to be asked for, or what has changed when it was the last."""
        if self._fresh is None or asked.listing != self._listing:
            return None
        members = ok.members or []
        self._add(self._fresh, members)
        self._pages += 1
        self.count = ok.count or 0
        if ok.more and members:
            return Ask(self._listing, members[-1].user)
        before, self.users, self._fresh = self.users, self._fresh, None
        self.is_complete = True
        return self._difference(before)

    def only_counts(self) -> PresenceDiff | None:
        """The room refuses to list its users; how many there are, if it has said so already."""
        self._fresh, self._counts_only, self.is_complete = None, True, True
        return PresenceDiff((), (), self.count) if self.count else None

    def stop(self) -> None:
        """Pages cannot be had; the list stays as it is until the next change."""
        self._fresh = None

    def push(self, push: Presence) -> Ask | PresenceDiff | None:
        """What has changed, or the first page to ask for when the push does not say what."""
        before, self.count = self.count, push.count
        if self._counts_only:
            return PresenceDiff((), (), push.count) if push.count != before else None
        if self._fresh is not None and not self._pages:
            return None  # the first page comes after it, and so knows
        if push.joined is None and push.left is None:
            return self.begin()
        joined, left = push.joined or [], push.left or []
        shown = self.users if self._fresh is None else self._fresh
        self._add(shown, joined)
        for user in left:
            shown.pop(user, None)
        if self._fresh is not None or not self.is_complete or not (joined or left):
            return None  # told as a difference when the list is there, or nothing to tell
        return PresenceDiff(tuple(PresentUser(each.user, each.info) for each in joined), tuple(left), push.count)

    def _add(self, users: dict[str, object], members: Sequence[Present]) -> None:
        users.update((member.user, member.info) for member in members)

    def _difference(self, before: dict[str, object]) -> PresenceDiff | None:
        missing = object()
        joined = tuple(
            PresentUser(user, info) for user, info in self.users.items() if before.get(user, missing) != info
        )
        left = tuple(user for user in before if user not in self.users)
        return PresenceDiff(joined, left, self.count) if joined or left else None
