"""What a URL of NATS may say."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
import trustme

from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.location import Login, parse_location
from trioroom.backplane.url import Endpoint
from trioroom.errors import BackplaneError


@pytest.mark.parametrize(
    ("url", "endpoints", "login"),
    [
        ("nats://", [Endpoint("127.0.0.1", 4222)], Login()),
        ("NATS://HOST/", [Endpoint("host", 4222)], Login()),
        ("nats://host:1234", [Endpoint("host", 1234)], Login()),
        ("nats://[::1]", [Endpoint("::1", 4222)], Login()),
        ("nats://a,b:1,[::2]:3", [Endpoint("a", 4222), Endpoint("b", 1), Endpoint("::2", 3)], Login()),
        ("nats://me:pw@host", [Endpoint("host", 4222)], Login(user="me", password="pw")),
        ("nats://m%40e:p%2Fw%25@host", [Endpoint("host", 4222)], Login(user="m@e", password="p/w%")),
        ("nats://s3cr%3At@a,b", [Endpoint("a", 4222), Endpoint("b", 4222)], Login(token="s3cr:t")),
        ("nats://host?nkey_file=/a/b", [Endpoint("host", 4222)], Login(nkey_file="/a/b")),
        ("nats://host?credentials_file=a.creds", [Endpoint("host", 4222)], Login(credentials_file="a.creds")),
    ],
)
def test_url_tells_where_and_how(url: str, endpoints: list[Endpoint], login: Login) -> None:
    location = parse_location(url)
    assert (list(location.endpoints), location.login) == (endpoints, login)
    assert location.tls is None
    assert location.settings == NatsSettings()


def test_settings_in_the_url_go_before_those_given() -> None:
    location = parse_location(
        "nats://host?prefix=shop&timeout=2.5&replicas=3&storage=memory&max_relay_bytes=65536",
        NatsSettings(timeout=9, max_backoff=4),
    )
    expected = NatsSettings(
        prefix="shop", timeout=2.5, replicas=3, storage="memory", max_relay_bytes=65536, max_backoff=4
    )
    assert location.settings == expected


def test_tls_is_as_the_url_says(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    location = parse_location(f"nats+tls://host?ssl_ca_certs={ca}")
    assert location.tls is not None
    assert (location.tls.verify_mode, location.tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    unchecked = parse_location(f"nats+tls://host?ssl_ca_certs={ca}&ssl_check_hostname=False").tls
    assert unchecked is not None
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_REQUIRED, False)
    trusting = parse_location("nats+tls://host?ssl_cert_reqs=none").tls
    assert trusting is not None
    assert trusting.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host", "'redis' is no scheme of a NATS URL; write nats://host:4222"),
        ("host:4222", "no URL of NATS: it has no ://"),
        ("nats://host/path", "has no path"),
        ("nats://host:x", "no host and port; write host:4222"),
        ("nats://u:p@host,", "a comma too many between hosts"),
        ("nats://host?what=1", "option 'what' is not known; there are connect_timeout, "),
        ("nats://host?ssl_certfile=a", "option 'ssl_certfile' is for TLS; write nats\\+tls://"),
        ("nats+tls://host?ssl_ca_certs=/nowhere", "cannot use the certificates"),
        ("nats://host?timeout=soon", "timeout='soon' is no number"),
        ("nats://host?timeout=0", "'timeout' must be > 0"),
        ("nats://host?prefix=a.b", "'prefix' must match"),
        ("nats://host?replicas=6", "replicas=6 must be one of 1, 2, 3, 4, 5"),
        ("nats://host?storage=tape", "storage='tape' must be one of 'file', 'memory'"),
        ("nats://host?publication_id_ttl=0.01", "'publication_id_ttl' must be >= 0.1"),
        ("nats://u:p@host?nkey_file=a", "several ways to log in"),
        ("nats://host?credentials_file=b&nkey_file=a", "several ways to log in"),
    ],
)
def test_what_is_wrong_is_told(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_location(url)


def test_key_without_the_package_for_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(BackplaneError, match=r"pip install 'trioroom\[nats\]'"):
        parse_location("nats://host?nkey_file=a")


def test_payload_beyond_the_bound_is_refused() -> None:
    settings = NatsSettings(max_publication_bytes=3)
    settings.check_payload(b"abc")
    with pytest.raises(ValueError, match="publication of 4 bytes exceeds max_publication_bytes=3"):
        settings.check_payload(b"abcd")
