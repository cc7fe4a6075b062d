"""One GET of a key set: no more bytes and no longer than it should take, over TLS, and from nowhere else."""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs
import trio

from trioroom._core.causes import root_of
from trioroom.client.dialing import Proxy, Target, parse_http_url, parse_proxy
from trioroom.client.fetching import Answer, fetch
from trioroom.errors import HandshakeError


class FetchError(Exception):
    """It could not be had, as the message says; maybe later."""


def parse_key_set_url(url: str) -> Target:
    """Raises:
    ValueError: it is none, or whoever is in between could give us other keys.
    """
    parts = urlsplit(url)
    is_clean = all("!" <= character <= "~" for character in url)
    if parts.username is not None or not parts.hostname or parts.scheme not in ("http", "https") or not is_clean:
        raise ValueError("the URL of a key set has to be like https://issuer.example/.well-known/jwks.json")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"keys from http://{parts.hostname} could be anybody's; give an https:// URL")
    target = parse_http_url(url)
    return attrs.evolve(target, resource=f"{target.resource}?{parts.query}") if parts.query else target


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def fetch_document(target: Target, *, timeout: float, max_bytes: int, ssl_context: ssl.SSLContext) -> bytes:
    """The document at ``target``.

    Raises:
        FetchError: the server is out of reach, too slow, answers with another status than 200, or with too much.
    """
    answer: Answer | None = None
    try:
        with trio.move_on_after(timeout):
            proxy = _proxy_to(target)
            answer = await fetch(target, max_bytes=max_bytes, proxy=proxy, ssl_context=ssl_context)
    except (OSError, HandshakeError, ValueError) as exc:
        raise FetchError(str(root_of(exc)) or type(exc).__name__) from exc
    if answer is None:
        raise FetchError(f"the document did not come within {timeout:g} s")
    if answer.status != 200:
        raise FetchError(f"the server answered with HTTP {answer.status}")
    return answer.body


def _proxy_to(target: Target) -> Proxy | None:
    """What ``https_proxy`` of the environment says, unless ``no_proxy`` does; no proxy knows our loopback."""
    url = getproxies().get("https")
    if not url or _is_loopback(target.host) or proxy_bypass(target.host):
        return None
    return parse_proxy(url if "://" in url else f"http://{url}")
