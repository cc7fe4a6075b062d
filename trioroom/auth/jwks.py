"""Key sets that change while the server runs: read anew when they are old, and when a token has a key not in them."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from trioroom.auth.fetch import FetchError, fetch_document, parse_key_set_url
from trioroom.auth.keys import Key, parse_jwks
from trioroom.errors import AuthenticationUnavailable

log = logging.getLogger("trioroom.auth")

_MAX_BYTES = 256 << 10  # of a set: some hundred keys of the largest kind
_FILE_TIMEOUT = 5.0  # seconds; it may be on a file system that has gone away


class _KeySet:
    """What a file and a URL have in common.

    Args:
        name: for the log.
        read: gives the document, or raises `FetchError`, in seconds at most.
        secrets: whether it may have keys of HS256.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[bytes]],
        max_age: float,
        min_interval: float,
        *,
        secrets: bool,
    ) -> None:
        if not (max_age > 0 and min_interval > 0):
            raise ValueError(f"max_age={max_age:g} and min_interval={min_interval:g} must be positive")
        self._name = name
        self._read = read
        self._max_age = max_age
        self._min_interval = min_interval
        self._secrets = secrets
        self._keys: list[Key] = []
        self._fresh_until = -math.inf
        self._not_before = -math.inf
        self._has_failed = False  # the latest try
        self._is_out = False  # and that has been logged
        self._reading = trio.Lock()

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Those that may have signed a token with this ``alg`` and ``kid``.

        Raises:
            AuthenticationUnavailable: the set could not be read, and the key may be in it.
        """
        if trio.current_time() >= self._fresh_until and not (self._keys and self._reading.locked()):
            await self._read_again()
        found = self._known(algorithm, key_id)
        if not found:
            await self._read_again()
            found = self._known(algorithm, key_id)
        if not found and self._has_failed:
            raise AuthenticationUnavailable(f"{self._name} cannot be read")
        return found

    def _known(self, algorithm: str, key_id: str | None) -> list[Key]:
        return [key for key in self._keys if key.fits(algorithm, key_id)]

    async def _read_again(self) -> None:
        """Unless that was tried a moment ago; who comes meanwhile waits. If it fails the keys stay as they are."""
        async with self._reading:
            now = trio.current_time()
            if now < self._not_before:
                return
            self._not_before = now + self._min_interval
            self._has_failed = True  # also when we are cancelled
            try:
                keys = parse_jwks(await self._read(), secrets=self._secrets)
            except (FetchError, ValueError) as exc:
                self._is_out = True
                kept = f"going on with {len(self._keys)} known keys" if self._keys else "nobody can be authenticated"
                log.warning("%s cannot be read, %s: %s", self._name, kept, exc)
                return
            if self._is_out:
                log.warning("%s can be read again", self._name)
            self._keys, self._has_failed, self._is_out = keys, False, False
            self._fresh_until = trio.current_time() + self._max_age


class JwksUrl(_KeySet):
    """The JSON Web Key Set at a URL, such as an issuer's ``/.well-known/jwks.json``; keys of HS256 in it do not count.

    It is fetched when the first token comes, when it is older than ``max_age``, and when a token has a ``kid`` that is
    not in it. While it cannot be fetched the keys that are known stay good, and each failure is logged.

    Args:
        url: ``https://``; ``http://`` only on this machine. Redirects are not followed.
        max_age: seconds after which a key that the issuer has withdrawn is not taken any more; an outage adds to that.
        min_interval: seconds between two tries, so that tokens with made-up keys do not hammer the issuer.
        timeout: seconds that a fetch may take; keep it below ``handshake_timeout``.
        ssl_context: by default the certificates that the system trusts.
    Raises:
        ValueError: whoever is between us and the URL could give us keys of their own; a number is not positive.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age: float = 3_600.0,
        min_interval: float = 10.0,
        timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        target = parse_key_set_url(url)
        if not timeout > 0:
            raise ValueError(f"timeout={timeout:g} must be positive")
        context = ssl_context or ssl.create_default_context()  # once: it reads all certificates of the system
        read = partial(fetch_document, target, timeout=timeout, max_bytes=_MAX_BYTES, ssl_context=context)
        scheme = "https" if target.is_tls else "http"
        super().__init__(f"the key set at {scheme}://{target.shown}", read, max_age, min_interval, secrets=False)


class JwksFile(_KeySet):
    """The JSON Web Key Set in a file, which may be replaced while the server runs; see `JwksUrl` for when it is read.

    Args:
        max_age: seconds after which it is read anew, short as that is cheap.
        min_interval: seconds between two tries.
    Raises:
        ValueError: a number is not positive.
    """

    def __init__(self, path: str | Path, *, max_age: float = 60.0, min_interval: float = 1.0) -> None:
        read = partial(_read_in_thread, Path(path), trio.CapacityLimiter(1))
        super().__init__(f"the key set {str(path)!r}", read, max_age, min_interval, secrets=True)


async def _read_in_thread(path: Path, threads: trio.CapacityLimiter) -> bytes:
    with trio.move_on_after(_FILE_TIMEOUT):
        return await trio.to_thread.run_sync(_read_file, path, abandon_on_cancel=True, limiter=threads)
    raise FetchError(f"not read within {_FILE_TIMEOUT:g} s")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise FetchError(exc.strerror or str(exc)) from exc
    if len(content) > _MAX_BYTES:
        raise FetchError(f"the file exceeds {_MAX_BYTES} bytes")
    return content
