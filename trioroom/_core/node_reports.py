"""The nodes that one of them has heard of: what each said last, and for how long that is worth showing."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from trioroom._core.snapshot import NodeReport, Report, Snapshot

SILENT_FOR = 15.0
"""Seconds for which a node that does not answer is shown: it may have crashed, or stall while somebody looks on."""
_MAX_SILENT = 100  # nodes; some hundred restarts within that time are not to grow what is asked for each second


@attrs.frozen
class _Heard:
    snapshot: Snapshot
    at: float


class NodeReports:
    """Owned by who asks the nodes."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def update(self, now: float, answers: Iterable[Snapshot]) -> Report:
        """All nodes, now that these have answered and the others have not."""
        answered = {snapshot.node: _Heard(snapshot, now) for snapshot in answers}
        silent = [each for node, each in self._heard.items() if node not in answered and now - each.at < SILENT_FOR]
        silent.sort(key=lambda each: each.at, reverse=True)
        self._heard = {**answered, **{each.snapshot.node: each for each in silent[:_MAX_SILENT]}}
        nodes = sorted(self._heard.values(), key=lambda each: (each.snapshot.label, each.snapshot.node))
        return Report(nodes=[self._report(each, now, answered) for each in nodes])

    def _report(self, heard: _Heard, now: float, answered: dict[str, _Heard]) -> NodeReport:
        return NodeReport(heard.snapshot, now - heard.at, heard.snapshot.node not in answered)
