"""Where the servers are and how to log in, from the URL."""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs

from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.url import (
    Endpoint,
    host_and_port,
    refuse_unknown,
    split,
    split_hosts,
    take_settings,
    tls_context,
)
from trioroom.errors import BackplaneError

DEFAULT_PORT: Final = 4222
_SCHEMES: Final = ("nats", "nats+tls")
_KEY_OPTIONS: Final = ("nkey_file", "credentials_file")
_FALSE: Final = ("0", "f", "false", "n", "no")  # as redis-py reads them


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
    parts = split(url, _SCHEMES, "NATS", f"nats://host:{DEFAULT_PORT}, for example")
    if parts.path.strip("/"):
        raise ValueError("a NATS URL has no path; write nats://host:4222?prefix=shop, for example")
    tls = parts.scheme == "nats+tls"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = take_settings(options, settings or NatsSettings())
    names = {*attrs.fields_dict(NatsSettings), *_KEY_OPTIONS}
    refuse_unknown(options, names, None if tls else "nats+tls://")
    login, _, hosts = parts.netloc.rpartition("@")
    return Location(
        tuple(Endpoint(*host_and_port(host, DEFAULT_PORT)) for host in split_hosts(hosts)),
        _login(login, options),
        _tls_context(options) if tls else None,
        settings,
    )


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


def _tls_context(options: dict[str, str]) -> ssl.SSLContext:
    check = options.get("ssl_check_hostname", "true").lower() not in _FALSE
    return tls_context({**options, "ssl_check_hostname": check})
