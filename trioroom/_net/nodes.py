"""Which servers there are: each has a row in a table of presence that only servers see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping


class Nodes:
    """The others' ids, as their seats tell; a `PresenceListener`. ``gone`` is called with each that is there no more.

    One that dies without a word is here until the backplane has found it dead.
    """

    def __init__(self, gone: Callable[[str], None]) -> None:
        self._gone = gone
        self._seats: dict[str, set[str]] = {}  # the nodes of each: one, as far as they are ours

    @property
    def ids(self) -> set[str]:
        """Who is there, without ourselves."""
        return set().union(*self._seats.values())

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """See `PresenceListener`."""
        there = self._seats.setdefault(seat, set())
        there.update(put)
        there.difference_update(removed)
        self._tell(removed)

    def seat_gone(self, seat: str) -> None:
        """See `PresenceListener`."""
        self._tell(self._seats.pop(seat, set()))

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        """See `PresenceListener`."""
        before = self.ids
        self._seats = {seat: set(rows) for seat, rows in seats.items()}
        self._tell(before)

    def _tell(self, nodes: Collection[str]) -> None:
        for node in set(nodes) - self.ids:
            self._gone(node)
