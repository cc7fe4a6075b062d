"""One GET of a small document: no more bytes and no longer than it should take, over TLS, and from nowhere else."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import time
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

_CHUNK = 16_384


class FetchError(Exception):
    """It could not be had, as the message says; maybe later."""


class _NoRedirects(HTTPRedirectHandler):
    """Keys come from where the operator said, and from nowhere else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> None:
        return None


def check_url(url: str) -> None:
    """Raises:
    ValueError: whoever is in between could give us other keys.
    """
    parts = urlsplit(url)
    if parts.username is not None or not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError("the URL of a key set has to be like https://issuer.example/.well-known/jwks.json")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"keys from http://{parts.hostname} could be anybody's; give an https:// URL")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fetch(url: str, *, timeout: float, max_bytes: int, ssl_context: ssl.SSLContext | None) -> bytes:
    """The document at ``url``, one that `check_url` has passed. Blocks: to be run in a thread.

    Raises:
        FetchError: the server is out of reach, too slow, answers with another status than 200, or with too much.
    """
    deadline = time.monotonic() + timeout
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "trioroom"})
    document = bytearray()
    try:
        with _opener(url, ssl_context).open(request, timeout=timeout) as response:
            if response.status != 200:
                raise FetchError(f"the server answered with HTTP {response.status}")
            while chunk := response.read1(_CHUNK):
                document += chunk
                if len(document) > max_bytes:
                    raise FetchError(f"the document exceeds {max_bytes} bytes")
                if time.monotonic() > deadline:  # the timeout of a socket is for each read
                    raise FetchError(f"the document did not come within {timeout:g} s")
    except HTTPError as exc:
        exc.close()
        raise FetchError(f"the server answered with HTTP {exc.code}") from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise FetchError(f"{type(exc).__name__}: {exc}") from exc
    return bytes(document)


def _opener(url: str, ssl_context: ssl.SSLContext | None) -> OpenerDirector:
    handlers = [HTTPSHandler(context=ssl_context or ssl.create_default_context()), _NoRedirects()]
    if _is_loopback(urlsplit(url).hostname or ""):
        return build_opener(*handlers, ProxyHandler({}))  # no proxy knows our loopback
    return build_opener(*handlers)
