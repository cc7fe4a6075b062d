"""Where the broker is and how to log in: from the URL, which redis-py reads as far as it knows the kind."""

from __future__ import annotations

import enum
import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode

import attrs
from redis.connection import parse_url

from trioroom.backplane.redis.settings import RedisSettings
from trioroom.backplane.url import Endpoint as HostEndpoint
from trioroom.backplane.url import host_and_port, refuse_unknown, split, split_hosts, take_settings, tls_context

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
_SCHEMES = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip
_LOGIN_OPTIONS = {"username", "password", "db", "protocol", "client_name"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}


class Mode(enum.Enum):
    """What stands at the endpoints."""

    SERVER = "a server"
    SENTINEL = "sentinels, which know the server"
    CLUSTER = "some nodes of a cluster, which know the others"


@attrs.frozen
class Endpoint(HostEndpoint):
    """One server: a host and port, or the path of a Unix socket."""

    path: str | None = None

    def __str__(self) -> str:
        return super().__str__() if self.path is None else self.path


@attrs.frozen
class Login:
    """Who we are to a server."""

    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    db: int = 0
    protocol: int = 3
    """The version of RESP to speak: 3, or 2 (also what a server before Redis 6 gets)."""
    client_name: str = "trioroom"


@attrs.frozen
class Location:
    """All that a URL says."""

    mode: Mode
    endpoints: tuple[Endpoint, ...]
    login: Login
    sentinel_login: Login
    master: str
    """What the sentinels call the server; empty in the other modes."""
    tls: ssl.SSLContext | None
    settings: RedisSettings


def parse_location(url: str, settings: RedisSettings | None = None) -> Location:
    """Read ``url``; what it says goes before ``settings``.

    Raises:
        ValueError: it is none of the kinds that `trioroom.backplane.redis.open_redis` lists; no password is named.
    """
    parts = split(url, _SCHEMES, "Redis", f"redis://host:{DEFAULT_PORT}, for example")
    kind, _, mode_name = parts.scheme.partition("+")
    mode = Mode[(mode_name or "server").upper()]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = take_settings(options, settings or RedisSettings())
    sentinel_login = _take_sentinel_login(options, parts.scheme)
    names = attrs.fields_dict(RedisSettings).keys() | _LOGIN_OPTIONS
    refuse_unknown(options, names, None if kind == "rediss" else "rediss:// with a second s")
    master, path = _split_path(parts, mode)
    user, _, hosts = parts.netloc.rpartition("@")
    endpoints = (Endpoint("", 0, unquote(path)),) if kind == "unix" else _endpoints(parts.scheme, hosts, mode)
    plain = f"{kind}://{user}@{'' if kind == 'unix' else 'host'}{path}?{urlencode(options)}"
    known: dict[str, Any] = parse_url(plain)  # type: ignore[no-untyped-call]  # it has no types
    tls = tls_context(known) if kind == "rediss" else None
    return Location(mode, endpoints, _login(known), sentinel_login, master, tls, settings)


def _take_sentinel_login(options: dict[str, str], scheme: str) -> Login:
    taken: dict[str, Any] = {
        name.removeprefix("sentinel_"): options.pop(name) for name in _SENTINEL_OPTIONS & options.keys()
    }
    if taken and not scheme.endswith("+sentinel"):
        raise ValueError(
            f"sentinel_username and sentinel_password belong to a redis+sentinel:// URL, not to {scheme}://"
        )
    return Login(**taken)


def _split_path(parts: SplitResult, mode: Mode) -> tuple[str, str]:
    """What the sentinels call the server, and the rest: a database's number, or a socket's path."""
    master, path = "", parts.path
    if mode is Mode.SENTINEL:
        master, _, database = path.removeprefix("/").partition("/")
        path = f"/{database}" if database else ""
        if not master:
            raise ValueError(f"{parts.scheme}:// needs the master's name: {parts.scheme}://host:26379/mymaster")
    if parts.scheme == "unix":
        if not path:
            raise ValueError("unix:// needs the socket's path: unix:///run/redis/redis.sock")
    elif not (path.strip("/").isdecimal() or path in ("", "/")):
        # Not named: it may be of a password with a /, whose @host was forgotten.
        raise ValueError(f"the path is no number of a database; write {parts.scheme}://host:6379/0")
    return unquote(master), path


def _login(known: dict[str, Any]) -> Login:
    login = Login(**{name: value for name, value in known.items() if name in _LOGIN_OPTIONS})
    if login.protocol not in (2, 3):
        raise ValueError(f"protocol={login.protocol} is no version of RESP; write 2 or 3")
    return login


def _endpoints(scheme: str, hosts: str, mode: Mode) -> tuple[Endpoint, ...]:
    default_port = DEFAULT_SENTINEL_PORT if mode is Mode.SENTINEL else DEFAULT_PORT
    endpoints = tuple(Endpoint(*host_and_port(host, default_port)) for host in split_hosts(hosts))
    if mode is Mode.SERVER and len(endpoints) > 1:
        raise ValueError(f"{scheme}:// names one server; write {scheme}+sentinel:// or {scheme}+cluster:// for several")
    return endpoints
