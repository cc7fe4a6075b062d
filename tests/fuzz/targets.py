"""What is fuzzed, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import envelope_targets, frame_targets, handshake_targets
from tests.fuzz.inputs import Target

TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for family in (frame_targets, handshake_targets, envelope_targets)
    for target in family.TARGETS
}
