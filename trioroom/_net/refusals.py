"""What is said to peers that are not let in, and what the log says of them."""

from __future__ import annotations

import logging
import math
import random

import trio

from trioroom._core.admission import Admission, Verdict
from trioroom._wire.http import encode_response
from trioroom.errors import HandshakeError

log = logging.getLogger("trioroom.entrance")
_BURST_GAP = 10.0  # seconds without a refusal after which the next one is worth a line in the log again
_RETRY_AFTER = 5.0  # seconds a peer should wait where nobody can know when there will be a place
_SPREAD = 5.0  # seconds over which those come back that were refused together; they would all be refused again

_REASONS = {
    Verdict.FULL: "this server has as many connections as {setting} allows; try again later",
    Verdict.ADDRESS_FULL: "your address has as many connections as {setting} allows; try again later",
    Verdict.RATE: "more come to this server than {setting} allows; try again later",
    Verdict.ADDRESS_RATE: "more come from your address than {setting} allows; try again later",
    Verdict.NOT_A_PROXY: "this server takes connections from its proxies only; connect to one of them",
}


def encode_refusal(refusal: HandshakeError) -> bytes:
    """The whole response that tells it, as a line of text."""
    return encode_response(refusal.status, f"{refusal}\n".encode(), headers=refusal.headers)


class NoPlace(HandshakeError):
    """An answer of `Refusals`: the admission has counted it by the verdict."""


class Refusals:
    """Those of one server."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._last: dict[Verdict, float] = {}

    def answer(self, verdict: Verdict, address: str | None) -> NoPlace:
        """What to tell a peer at ``address`` that is refused by ``verdict``, once that is logged."""
        setting = verdict.value
        if verdict is Verdict.NOT_A_PROXY:
            self.log(verdict, address, f"not in {setting}")
            return NoPlace(403, _REASONS[verdict])
        self.log(verdict, address, f"{setting}={self._admission.limits[verdict]:.15g} reached")
        wait = self._admission.due_in(verdict, address, trio.current_time()) or _RETRY_AFTER
        retry_after = math.ceil(wait + random.uniform(0, _SPREAD))
        return NoPlace(503, _REASONS[verdict].format(setting=setting), (("Retry-After", str(retry_after)),))

    def log(self, verdict: Verdict, address: str | None, reason: str) -> None:
        """One line for a burst: the rest says the same."""
        now = trio.current_time()
        if now - self._last.get(verdict, -math.inf) > _BURST_GAP:
            fields = {"address": address, "reason": reason}
            log.warning("turning away %s and others that come now: %s", address or "a stream", reason, extra=fields)
        self._last[verdict] = now
