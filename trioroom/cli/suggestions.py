"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a complaint about ``name``: the nearest of the ``known`` ones, or nothing if none is near.

    Args:
        prefix: what they all begin with, and is left out, as it would make them all near.
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
