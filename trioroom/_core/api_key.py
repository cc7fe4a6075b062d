"""The secret that operators show to what is not for everybody: HTTP API, metrics, dashboard."""

from __future__ import annotations

import hashlib
import hmac

MIN_LENGTH = 16
"""Characters; with 16 at random nobody guesses it."""


class ApiKey:
    """One that is set. Kept as a digest, so that no dump of our objects shows it.

    Raises:
        ValueError: it is too short, or has characters that no header may have; the message does not repeat it.
    """

    __slots__ = ("_digest",)

    def __init__(self, key: str) -> None:
        if len(key) < MIN_LENGTH:
            raise ValueError(
                f"an API key of {len(key)} characters can be guessed; give at least {MIN_LENGTH} at random"
            )
        if not all("!" <= character <= "~" for character in key):
            raise ValueError("the API key has a space, or what is not ASCII; give letters, digits and signs")
        self._digest = _digest_of(key)

    def __repr__(self) -> str:
        return "<ApiKey>"

    def opens(self, shown: str) -> bool:
        """Whether ``shown`` is this key; how long that takes tells nothing of it."""
        return hmac.compare_digest(self._digest, _digest_of(shown))


def _digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
