"""A server as a whole, at a moment: what `Server.statistics` says and what ``/metrics`` tells come from here."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import attrs

from trioroom._core.meters import closed_by_code
from trioroom._core.statistics import ServerStatistics
from trioroom._net.moment import Moment
from trioroom._net.vitals import Vitals, read_process_figures
from trioroom.backplane.base import Counting

if TYPE_CHECKING:
    from trioroom._core.admission import Admission
    from trioroom._net.hub import Hub


@attrs.frozen
class Overview:
    """Of one server."""

    hub: Hub
    admission: Admission
    vitals: Vitals = attrs.field(factory=Vitals)

    def statistics(self) -> ServerStatistics:
        """As things stand; takes some half a microsecond for each active room."""
        hub, budget, meters = self.hub, self.hub.limits.budget, self.hub.limits.meters
        return ServerStatistics(
            connections=len(hub.connections),
            refused_connections=self.admission.refused.total(),
            rooms=len(hub.rooms),
            queued_bytes=budget.used,
            dropped_queues=budget.dropped,
            deliveries=hub.deliveries(),
            members=meters.members,
            outboxes=budget.droppable,
            opened_connections=meters.opened,
            closed_connections=closed_by_code(meters.closed),
            messages_received=meters.messages_received,
            received_bytes=meters.received_bytes,
            sent_bytes=meters.sent_bytes,
            publications=meters.publications,
            failed_publications=meters.failed_publications,
            backplane_ready=hub.backplane.ready,
            draining=hub.draining,
            longest_loop_lag=self.vitals.longest_loop_lag,
        )

    async def moment(self) -> Moment:
        """All numbers."""
        process = await read_process_figures()
        backplane = self.hub.backplane
        return Moment(
            version=package_version(),
            statistics=self.statistics(),
            meters=self.hub.limits.meters,
            refused=dict(self.admission.refused),
            max_connections=self.admission.max_connections,
            max_queued_bytes=self.hub.limits.budget.max_bytes,
            vitals=self.vitals,
            link=backplane.meters if isinstance(backplane, Counting) else None,
            process=process,
        )


@cache  # it reads a file
def package_version() -> str:
    """Of trioroom."""
    from importlib.metadata import PackageNotFoundError, version  # a parser of e-mail comes with it; few ask

    try:
        return version("trioroom")
    except PackageNotFoundError:  # it runs from a directory of sources
        return "unknown"
