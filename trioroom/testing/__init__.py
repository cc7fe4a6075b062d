"""For tests of your rooms: peers in memory, and the conformance suite that every backplane passes."""

from __future__ import annotations

from trioroom.testing.peer import Peer, open_peer, open_test_server

__all__ = ["Peer", "open_peer", "open_test_server"]
