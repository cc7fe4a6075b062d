"""The other servers of one port, as one of them sees them: whoever is asked for all of them asks the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

Answer = Callable[[], Awaitable[bytes]]


class Siblings(Protocol):
    """Workers that share a port; see `trioroom.cli.siblings`."""

    @property
    def number(self) -> int:
        """Which of them we are, from 1; 0 while another one has taken our place."""
        ...

    def serve(self, path: str, answer: Answer) -> None:
        """Have ``answer`` tell the others what they ask for by ``path``."""
        ...

    async def ask(self, path: str) -> Mapping[int, bytes | None]:
        """What each of the others tells, asked side by side; None for one that does not, in time or at all."""
        ...
