"""Where the brokers are and how to log in: from the URL to what librdkafka is told."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from trioroom.backplane.kafka.plans import TopicPlan, rooms_plan
from trioroom.backplane.kafka.settings import KafkaSettings

DEFAULT_PORT = 9092
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# The names that the URL of Redis has for the same, and what librdkafka calls them.
_TLS_FILES = {
    "ssl_ca_certs": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
_TLS_OPTIONS = {*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname"}
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@attrs.frozen
class Endpoint:
    """One broker to ask where all of them are."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Location:
    """All that a URL says."""

    endpoints: tuple[Endpoint, ...]
    access: dict[str, str] = attrs.field(repr=False)
    """How to connect and log in, in librdkafka's words; there are passwords in it."""
    settings: KafkaSettings
    plan: TopicPlan
    """The topic: that of the rooms, unless it is evolved."""

    def __str__(self) -> str:
        return ",".join(map(str, self.endpoints))


def parse_location(url: str, settings: KafkaSettings | None = None) -> Location:
    """Read ``url``; what it says goes before ``settings``.

    The schemes are ``kafka`` and, for TLS, ``kafkas``: with the s that makes rediss and https of the plain ones.

    Raises:
        ValueError: it is not as `trioroom.backplane.kafka.open_kafka` says; no password is named.
    """
    parts = _split(url)
    tls = parts.scheme == "kafkas"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = _take_settings(options, settings or KafkaSettings())
    login, _, hosts = parts.netloc.rpartition("@")
    access = _sasl(login, options.pop("sasl_mechanism", None), tls=tls)
    _refuse_unknown(options, tls=tls)
    if tls:
        access |= _tls(options)
    return Location(tuple(_endpoint(host) for host in hosts.split(",")), access, settings, rooms_plan(settings))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may have the password
        raise ValueError("this is no URL; in user and password write [ as %5B and ] as %5D, for example") from None
    if parts.scheme not in ("kafka", "kafkas") or "://" not in url:
        named = parts.scheme or "that"
        raise ValueError(f"{named!r} is no scheme of a Kafka URL; write kafka://host:9092, or kafkas:// for TLS")
    # Before anything of it is named: a /, ? or # in a password ends the host and what is before it.
    if parts.fragment or "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc):
        raise ValueError(
            "the URL has a # or @ where none can stand; in user and password write / as %2F, ? as %3F, # as %23"
        )
    if parts.path.strip("/"):
        raise ValueError("a Kafka URL has no path; the topic is named by ?prefix=")
    return parts


def _take_settings(options: dict[str, str], settings: KafkaSettings) -> KafkaSettings:
    """``settings`` with those that stand in ``options``, which are taken out."""
    chosen: dict[str, Any] = {}
    for name, field in attrs.fields_dict(KafkaSettings).items():
        if (text := options.pop(name, None)) is not None:
            kind: Any = type(field.default)
            try:
                chosen[name] = kind(text)
            except ValueError as exc:
                raise ValueError(f"{name}={text!r} is no number") from exc
    return attrs.evolve(settings, **chosen)


def _sasl(login: str, mechanism: str | None, *, tls: bool) -> dict[str, str]:
    if not login:
        if mechanism is not None:
            raise ValueError("sasl_mechanism is for user and password; write kafka://user:password@host")
        return {"security.protocol": "SSL" if tls else "PLAINTEXT"}
    user, colon, password = login.partition(":")
    if not (user and colon):
        raise ValueError("SASL needs user and password; write kafka://user:password@host")
    if (mechanism := (mechanism or "PLAIN").upper()) not in _MECHANISMS:
        raise ValueError(f"sasl_mechanism is none of {', '.join(_MECHANISMS)}")
    return {
        "security.protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": unquote(user),
        "sasl.password": unquote(password),
    }


def _refuse_unknown(options: dict[str, str], *, tls: bool) -> None:
    names = attrs.fields_dict(KafkaSettings).keys() | {"sasl_mechanism"} | _TLS_OPTIONS
    if unknown := options.keys() - names:
        name = repr(min(unknown)) if min(unknown).isidentifier() else "in the query"  # else it may be of a password
        raise ValueError(f"option {name} is not known; there are {', '.join(sorted(names))}")
    if not tls and (misplaced := options.keys() & _TLS_OPTIONS):
        raise ValueError(f"option {min(misplaced)!r} is for TLS; write kafkas:// with an s")


def _tls(options: dict[str, str]) -> dict[str, str]:
    """The peer is verified unless ``ssl_cert_reqs=none``."""
    words = {name: options[option] for option, name in _TLS_FILES.items() if option in options}
    requirement = options.get("ssl_cert_reqs", "required")
    if requirement not in ("none", "required"):
        raise ValueError(f"ssl_cert_reqs={requirement!r} is neither none nor required")
    switch = options.get("ssl_check_hostname", "true")
    if switch.lower() not in _SWITCHES:
        raise ValueError(f"ssl_check_hostname={switch!r} is neither true nor false")
    words["enable.ssl.certificate.verification"] = "true" if requirement == "required" else "false"
    named = _SWITCHES[switch.lower()] and requirement == "required"
    words["ssl.endpoint.identification.algorithm"] = "https" if named else "none"
    return words


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(f"//{text}")
        return Endpoint(unquote(parts.hostname or "127.0.0.1"), parts.port or DEFAULT_PORT)
    except ValueError:  # what follows the colon may be a password: its @host was forgotten
        host = text.partition(":")[0]
        raise ValueError(f"what begins with {host!r} is no host and port; write host:{DEFAULT_PORT}") from None
