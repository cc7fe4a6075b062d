"""For tests of your rooms: peers in memory, and the conformance suites that backplanes pass."""

from __future__ import annotations

from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.conformance import BackplaneConformance
from trioroom.testing.faulty_backplane import FaultyBackplane
from trioroom.testing.faulty_delivery import Fault
from trioroom.testing.history_conformance import HistoryConformance
from trioroom.testing.line import Line, ServesStreams, open_client, open_line
from trioroom.testing.orphans import assert_no_orphans
from trioroom.testing.peer import Peer, open_peer, open_test_server
from trioroom.testing.presence_conformance import PresenceConformance
from trioroom.testing.v1_peer import V1Peer, open_v1_peer

__all__ = [
    "BackplaneConformance",
    "Fault",
    "FaultyBackplane",
    "HistoryConformance",
    "Line",
    "Peer",
    "PresenceConformance",
    "ServesStreams",
    "V1Peer",
    "assert_no_orphans",
    "cancel_at_step",
    "open_client",
    "open_line",
    "open_peer",
    "open_test_server",
    "open_v1_peer",
]
