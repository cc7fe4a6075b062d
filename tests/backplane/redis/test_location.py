"""What a URL of Redis may say."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from trioroom.backplane.redis import RedisSettings
from trioroom.backplane.redis.location import Endpoint, Login, Mode, parse_location


@pytest.mark.parametrize(
    ("url", "mode", "endpoints", "login"),
    [
        ("redis://", Mode.SERVER, [Endpoint("127.0.0.1", 6379)], Login()),
        ("redis://host", Mode.SERVER, [Endpoint("host", 6379)], Login()),
        ("REDIS://HOST/", Mode.SERVER, [Endpoint("host", 6379)], Login()),
        ("redis://host:1234/5", Mode.SERVER, [Endpoint("host", 1234)], Login(db=5)),
        ("redis://host?db=7", Mode.SERVER, [Endpoint("host", 6379)], Login(db=7)),
        ("redis://[::1]", Mode.SERVER, [Endpoint("::1", 6379)], Login()),
        ("redis://[fe80::1%25eth0]:99/1", Mode.SERVER, [Endpoint("fe80::1%eth0", 99)], Login(db=1)),
        ("redis://me:pw@host", Mode.SERVER, [Endpoint("host", 6379)], Login("me", "pw")),
        ("redis://:pw@host", Mode.SERVER, [Endpoint("host", 6379)], Login(None, "pw")),
        ("redis://m%40e:p%2Fw%25@host", Mode.SERVER, [Endpoint("host", 6379)], Login("m@e", "p/w%")),
        ("redis://:p@w@host", Mode.SERVER, [Endpoint("host", 6379)], Login(None, "p@w")),
        ("redis://host?username=me&password=p%40w", Mode.SERVER, [Endpoint("host", 6379)], Login("me", "p@w")),
        ("redis://host?protocol=2&client_name=x", Mode.SERVER, [Endpoint("host", 6379)], Login(None, None, 0, 2, "x")),
        ("unix:///run/redis.sock", Mode.SERVER, [Endpoint("", 0, "/run/redis.sock")], Login()),
        ("unix:///a%20b/@c?db=3", Mode.SERVER, [Endpoint("", 0, "/a b/@c")], Login(db=3)),
        ("unix://me:pw@/a", Mode.SERVER, [Endpoint("", 0, "/a")], Login("me", "pw")),
        (
            "redis+cluster://me:pw@a,b:1,[::2]:3",
            Mode.CLUSTER,
            [Endpoint("a", 6379), Endpoint("b", 1), Endpoint("::2", 3)],
            Login("me", "pw"),
        ),
        (
            "redis+sentinel://a,b:1,[::2]/rooms",
            Mode.SENTINEL,
            [Endpoint("a", 26379), Endpoint("b", 1), Endpoint("::2", 26379)],
            Login(),
        ),
        ("redis+sentinel://:pw@a/rooms/3", Mode.SENTINEL, [Endpoint("a", 26379)], Login(None, "pw", 3)),
    ],
)
def test_url_tells_where_and_how(url: str, mode: Mode, endpoints: list[Endpoint], login: Login) -> None:
    location = parse_location(url)
    assert (location.mode, list(location.endpoints), location.login) == (mode, endpoints, login)
    assert location.tls is None
    assert location.settings == RedisSettings()


def test_sentinels_have_a_master_and_a_login_of_their_own() -> None:
    location = parse_location("redis+sentinel://u:p@a/my%20rooms?sentinel_username=s&sentinel_password=t")
    assert location.master == "my rooms"
    assert (location.login, location.sentinel_login) == (Login("u", "p"), Login("s", "t"))
    assert parse_location("redis+sentinel://u:p@a/rooms").sentinel_login == Login()


def test_endpoint_is_written_as_in_a_url() -> None:
    assert str(Endpoint("host", 1)) == "host:1"
    assert str(Endpoint("::1", 1)) == "[::1]:1"
    assert str(Endpoint("", 0, "/run/redis.sock")) == "/run/redis.sock"


def test_settings_in_the_query_go_before_those_of_the_caller() -> None:
    mine = RedisSettings(timeout=9, probe_timeout=7)
    location = parse_location("redis://h?timeout=1.5&prefix=shop%2F1&max_queued_bytes=77", mine)
    assert location.settings == RedisSettings(timeout=1.5, probe_timeout=7, prefix="shop/1", max_queued_bytes=77)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("client.example")
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    return directory


def tls_of(url: str) -> ssl.SSLContext:
    tls = parse_location(url).tls
    assert tls is not None
    return tls


@pytest.mark.parametrize("scheme", ["rediss://h", "rediss+sentinel://h/rooms", "rediss+cluster://h"])
def test_second_s_is_tls_that_verifies(scheme: str) -> None:
    tls = tls_of(scheme)
    assert tls.check_hostname
    assert tls.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("query", "check_hostname", "verify_mode"),
    [
        ("ssl_cert_reqs=required", True, ssl.CERT_REQUIRED),
        ("ssl_cert_reqs=optional", True, ssl.CERT_OPTIONAL),
        ("ssl_cert_reqs=none", False, ssl.CERT_NONE),
        ("ssl_check_hostname=false", False, ssl.CERT_REQUIRED),
        ("ssl_check_hostname=true&ssl_cert_reqs=none", False, ssl.CERT_NONE),
    ],
)
def test_tls_verifies_as_much_as_is_asked_for(query: str, check_hostname: bool, verify_mode: ssl.VerifyMode) -> None:
    tls = tls_of(f"rediss://h?{query}")
    assert (tls.check_hostname, tls.verify_mode) == (check_hostname, verify_mode)


def test_certificates_are_taken_from_files(pem: Path) -> None:
    tls = tls_of(f"rediss://h?ssl_ca_certs={pem}/ca.pem&ssl_certfile={pem}/cert.pem&ssl_keyfile={pem}/key.pem")
    assert len(tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    "query", ["ssl_ca_certs=/nowhere", "ssl_certfile={pem}/cert.pem&ssl_keyfile=/nowhere", "ssl_certfile={pem}/ca.pem"]
)
def test_certificates_that_are_none_are_refused(query: str, pem: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot use the certificates that the URL names: "):
        parse_location(f"rediss://h?{query.format(pem=pem)}")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "this is no URL of Redis: it has no ://; write redis://host:6379, for example"),
        ("host:6379", "it has no ://"),
        ("http://host", "'http' is no scheme"),
        ("redis:host", "it has no ://"),
        ("redis+ring://host", "'redis+ring' is no scheme"),
        ("unix+sentinel:///path/rooms", "'unix+sentinel' is no scheme"),
        ("unix+cluster:///path", "'unix+cluster' is no scheme"),
        ("redis://[::1", "this is no URL"),
        ("redis://a,b", "redis:// names one server; write redis+sentinel:// or redis+cluster:// for several"),
        ("redis://host?sentinel_password=x", "belong to a redis+sentinel:// URL, not to redis://"),
        ("redis://host?sentinel_username=x", "belong to a redis+sentinel:// URL, not to redis://"),
        ("redis+sentinel://host", "redis+sentinel:// needs the master's name: redis+sentinel://host:26379/mymaster"),
        ("rediss+sentinel://host/", "rediss+sentinel:// needs the master's name"),
        ("unix://", "unix:// needs the socket's path: unix:///run/redis/redis.sock"),
        ("redis://host/rooms", "the path is no number of a database; write redis://host:6379/0"),
        ("redis+sentinel://host/rooms/x", "the path is no number of a database"),
        ("redis://host:x", "what begins with 'host' is no host and port; write host:6379"),
        ("redis://host:65536", "what begins with 'host' is no host and port"),
        ("redis+sentinel://a,b:x/rooms", "what begins with 'b' is no host and port; write host:26379"),
        ("redis+cluster://[::1]:1,[::2:3", "no host and port"),
        ("redis://host?protocol=4", "protocol=4 is no version of RESP; write 2 or 3"),
        ("redis://host?protocol=x", "Invalid value for 'protocol'"),
        ("redis://host?db=x", "Invalid value for 'db'"),
        ("redis://host?colour=red", "option 'colour' is not known; there are client_name, connect_timeout, db, "),
        ("redis://host?ssl_cert_reqs=none", "option 'ssl_cert_reqs' is for TLS; write rediss:// with a second s"),
        ("rediss://host?ssl_cert_reqs=some", "ssl_cert_reqs='some' is neither none, optional nor required"),
        ("redis://host?timeout=soon", "timeout='soon' is no number"),
        ("redis://host?timeout=", "timeout='' is no number"),
        ("redis://host?timeout=0", "'timeout' must be > 0"),
        ("redis://host?timeout=nan", "'timeout' must be > 0"),
        ("redis://host?max_queued_bytes=1.5", "max_queued_bytes='1.5' is no number"),
        ("redis://host?prefix=", "'prefix'"),
        ("redis://host/0#x", "the URL has a # or @ where none can stand"),
    ],
)
def test_what_is_no_such_url_is_refused_with_advice(url: str, text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the text is compared below
        parse_location(url)
    assert text in str(refused.value)


HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
ENDPOINTS = st.builds(Endpoint, HOSTS, st.integers(1, 65535))


@given(st.lists(ENDPOINTS, min_size=1, max_size=4), st.text(min_size=1), st.text(min_size=1), st.integers(0, 99))
def test_hosts_and_login_come_out_as_they_went_in(hosts: list[Endpoint], user: str, password: str, db: int) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    for url in (
        f"redis+cluster://{login}@{','.join(map(str, hosts))}?db={db}",
        f"redis+sentinel://{login}@{','.join(map(str, hosts))}/rooms/{db}",
        f"redis://{login}@{hosts[0]}/{db}",
    ):
        location = parse_location(url)
        assert location.endpoints == tuple(hosts[:1] if location.mode is Mode.SERVER else hosts)
        assert location.login == Login(user, password, db)
