"""Where the brokers are and how to log in: from the URL to what librdkafka is told."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import attrs

from trioroom.backplane.kafka.plans import TopicPlan, rooms_plan
from trioroom.backplane.kafka.settings import KafkaSettings
from trioroom.backplane.url import Endpoint, host_and_port, refuse_unknown, split, split_hosts, take_settings

DEFAULT_PORT = 9092
_SCHEMES = ("kafka", "kafka+tls")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# The names that the URL of Redis has for the same, and what librdkafka calls them.
_TLS_FILES = {
    "ssl_ca_certs": "ssl.ca.location",
    "ssl_ca_path": "ssl.ca.location",  # which may be a folder
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@attrs.frozen
class Location:
    """All that a URL says."""

    endpoints: tuple[Endpoint, ...]
    """Brokers to ask where all of them are."""
    access: dict[str, str] = attrs.field(repr=False)
    """How to connect and log in, in librdkafka's words; there are passwords in it."""
    settings: KafkaSettings
    plan: TopicPlan
    """The topic: that of the rooms, unless it is evolved."""

    def __str__(self) -> str:
        return ",".join(map(str, self.endpoints))


def parse_location(url: str, settings: KafkaSettings | None = None) -> Location:
    """Read ``url``; what it says goes before ``settings``.

    The schemes are ``kafka`` and, for TLS, ``kafka+tls``.

    Raises:
        ValueError: it is not as `trioroom.backplane.kafka.open_kafka` says; no password is named.
    """
    parts = split(url, _SCHEMES, "Kafka", f"kafka://host:{DEFAULT_PORT}, or kafka+tls:// for TLS")
    if parts.path.strip("/"):
        raise ValueError("a Kafka URL has no path; the topic is named by ?prefix=")
    tls = parts.scheme == "kafka+tls"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    settings = take_settings(options, settings or KafkaSettings())
    login, _, hosts = parts.netloc.rpartition("@")
    access = _sasl(login, options.pop("sasl_mechanism", None), tls=tls)
    names = {*attrs.fields_dict(KafkaSettings), "sasl_mechanism"}
    refuse_unknown(options, names, None if tls else "kafka+tls://")
    if tls:
        access |= _tls(options)
    endpoints = tuple(Endpoint(*host_and_port(host, DEFAULT_PORT)) for host in split_hosts(hosts))
    return Location(endpoints, access, settings, rooms_plan(settings))


def in_our_words(text: str) -> str:
    """An error of librdkafka's, with the names that options have in the URL."""
    for option, name in _TLS_FILES.items():
        text = text.replace(name, option)
    return text


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
