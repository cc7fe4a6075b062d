"""Where the servers are and how to log in, from the URL."""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.url import refuse_torn, refuse_unknown, take_settings, tls_context
from trioroom.errors import BackplaneError

DEFAULT_PORT: Final = 4222
_SCHEMES: Final = ("nats", "nats+tls")
_KEY_OPTIONS: Final = ("nkey_file", "credentials_file")
_FALSE: Final = ("0", "f", "false", "n", "no")  # as redis-py reads them


@attrs.frozen
class Endpoint:
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Login:
    """Who we are to a server; nothing at all where it asks for nothing."""

    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    nkey_file: str | None = None
    """Has the seed of a key that the server knows."""
    credentials_file: str | None = None
    """Has a JWT that says who we are, and the seed of its key (``.creds``)."""


@attrs.frozen
class Location:
    """All that a URL says."""

    endpoints: tuple[Endpoint, ...]
    login: Login
    tls: ssl.SSLContext | None
    settings: NatsSettings


def parse_location(url: str, settings: NatsSettings | None = None) -> Location:
    """What ``url`` says; its settings go before those given.

    Raises:
        ValueError: it is none that `open_nats` takes; no password is named.
        BackplaneError: it names a key, and the package for that is missing.
    """
    parts = _split(url)
    tls = parts.scheme == "nats+tls"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = take_settings(options, settings or NatsSettings())
    names = {*attrs.fields_dict(NatsSettings), *_KEY_OPTIONS}
    refuse_unknown(options, names, None if tls else "nats+tls://")
    login, _, text = parts.netloc.rpartition("@")
    hosts = text.split(",")
    if len(hosts) > 1 and "" in hosts:
        raise ValueError("the URL has a comma too many between hosts; one alone that is not named is 127.0.0.1")
    return Location(
        tuple(_endpoint(host) for host in hosts),
        _login(login, options),
        _tls_context(options) if tls else None,
        settings,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may have the password
        raise ValueError("this is no URL; in user and password write [ as %5B and ] as %5D, for example") from None
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ValueError(
            f"{parts.scheme or 'that'!r} is no scheme of a NATS URL; write nats://host:{DEFAULT_PORT}, for example"
        )
    refuse_torn(parts)
    if parts.path.strip("/"):
        raise ValueError("a NATS URL has no path; write nats://host:4222?prefix=shop, for example")
    return parts


def _login(text: str, options: dict[str, str]) -> Login:
    files = {name: options[name] for name in _KEY_OPTIONS if name in options}
    if files and find_spec("nkeys") is None:
        raise BackplaneError(f"{min(files)} needs the package nkeys; pip install 'trioroom[nats]'")
    if len(files) + bool(text) > 1:
        raise ValueError("the URL names several ways to log in; leave one: user:password@, token@, " + ", ".join(files))
    user, colon, password = text.partition(":")
    if colon:
        return Login(user=unquote(user), password=unquote(password))
    return Login(token=unquote(text)) if text else Login(**files)


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(f"//{text}")
        return Endpoint(unquote(parts.hostname or "127.0.0.1"), parts.port or DEFAULT_PORT)
    except ValueError:  # what follows the colon may be a password: its @host was forgotten
        host = text.partition(":")[0]
        raise ValueError(f"what begins with {host!r} is no host and port; write host:{DEFAULT_PORT}") from None


def _tls_context(options: dict[str, str]) -> ssl.SSLContext:
    check = options.get("ssl_check_hostname", "true").lower() not in _FALSE
    return tls_context({**options, "ssl_check_hostname": check})
