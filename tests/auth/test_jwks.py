"""Key sets that change, and that cannot be had: from a file, and from a real server."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

import trioroom
from tests.auth.conftest import EC, OTHER_RSA, RSA, Issuer, jwk, jwks, refused, shown, token
from trioroom.auth import JwksFile, JwksUrl, JWTAuthenticator
from trioroom.errors import AuthenticationUnavailable
from trioroom.testing import open_test_server, open_v1_peer

OLD, NEW = token(RSA, "RS256", "old"), token(OTHER_RSA, "RS256", "new")
UNKNOWN_KEY = "the token is signed with no key that is known here"


def by(keys: JwksUrl | JwksFile) -> JWTAuthenticator:
    return JWTAuthenticator(keys, algorithms=["RS256"])


async def is_good(authenticate: JWTAuthenticator, token: str) -> bool:
    with trio.fail_after(10):
        identity = await authenticate(shown(token))
    return identity is not None and identity.user == "ann"


async def test_set_is_fetched_once_for_many(issuer: Issuer) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url))
    assert issuer.asked == 0
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(is_good, authenticate, OLD)
    assert issuer.asked == 1


async def test_key_that_is_new_is_fetched(issuer: Issuer, mock_clock: MockClock) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url, min_interval=10))
    assert await is_good(authenticate, OLD)
    mock_clock.jump(10)
    issuer.document = jwks(jwk(RSA, "old"), jwk(OTHER_RSA, "new"))
    assert await is_good(authenticate, NEW)
    assert await is_good(authenticate, OLD)
    assert issuer.asked == 2


async def test_tokens_with_made_up_keys_do_not_hammer_the_issuer(issuer: Issuer, mock_clock: MockClock) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url, min_interval=10))
    for number in range(20):
        assert await refused(authenticate, token(OTHER_RSA, "RS256", f"made up {number}")) == UNKNOWN_KEY
        mock_clock.jump(1)
    assert issuer.asked == 2


async def test_key_that_was_withdrawn_is_not_taken_for_longer_than_max_age(
    issuer: Issuer, mock_clock: MockClock
) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url, max_age=3_600))
    assert await is_good(authenticate, OLD)
    issuer.document = jwks(jwk(OTHER_RSA, "new"))
    mock_clock.jump(3_599)
    assert await is_good(authenticate, OLD)
    mock_clock.jump(1)
    assert await refused(authenticate, OLD) == UNKNOWN_KEY
    assert await is_good(authenticate, NEW)


@pytest.mark.parametrize(
    "outage",
    [
        {"status": 500},
        {"status": 404, "document": b"not here"},
        {"status": 302, "headers": {"Location": "https://elsewhere.example/"}},
        {"document": b"<html>"},
        {"document": b'{"keys":[]}'},
        {"document": b"[" * 100_000},
        {"document": b"x" * (300 << 10)},
    ],
)
async def test_outage_leaves_the_keys_as_they_are(
    issuer: Issuer, outage: dict[str, Any], mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trioroom")
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url, max_age=100, min_interval=10))
    assert await is_good(authenticate, OLD)
    for name, value in outage.items():
        setattr(issuer, name, value)
    mock_clock.jump(100)
    for _ in range(3):
        assert await is_good(authenticate, OLD)
    assert issuer.asked == 2
    (failure,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "jwks.json cannot be read, going on with 1 known keys: " in failure.getMessage()
    with pytest.raises(AuthenticationUnavailable):  # who can say that there is no such key?
        await authenticate(shown(NEW))
    issuer.status, issuer.headers, issuer.document = 200, {}, jwks(jwk(OTHER_RSA, "new"))
    mock_clock.jump(10)
    assert await is_good(authenticate, NEW)
    assert caplog.messages[-1].endswith("can be read again")
    assert "s3cret" not in caplog.text


async def test_file_that_is_gone_leaves_the_keys_as_they_are(mock_clock: MockClock, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk(RSA, "old")))
    authenticate = by(JwksFile(file, max_age=60))
    assert await is_good(authenticate, OLD)
    file.unlink()
    mock_clock.jump(60)
    assert await is_good(authenticate, OLD)


async def test_server_that_hangs_holds_up_one_peer_and_no_other(issuer: Issuer, mock_clock: MockClock) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authenticate = by(JwksUrl(issuer.url, max_age=100, timeout=5))
    assert await is_good(authenticate, OLD)
    issuer.hangs = True
    mock_clock.jump(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_good, authenticate, OLD)
        await issuer.wait_asked(2)
        for _ in range(3):
            assert await is_good(authenticate, OLD)
        mock_clock.jump(6)
        issuer.done.set()


async def test_nobody_can_say_before_there_are_keys(issuer: Issuer, mock_clock: MockClock) -> None:
    issuer.status = 503
    authenticate = by(JwksUrl(issuer.url, min_interval=10))
    for _ in range(3):
        with pytest.raises(AuthenticationUnavailable, match="cannot be read"):
            await authenticate(shown(OLD))
    assert issuer.asked == 1
    issuer.status, issuer.document = 200, jwks(jwk(RSA, "old"))
    mock_clock.jump(10)
    assert await is_good(authenticate, OLD)


async def test_who_is_cancelled_while_it_fetches_leaves_the_set_usable(issuer: Issuer, mock_clock: MockClock) -> None:
    issuer.hangs = True
    authenticate = by(JwksUrl(issuer.url, min_interval=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(authenticate, shown(OLD))
        await issuer.wait_asked(1)
        nursery.cancel_scope.cancel()
    with pytest.raises(AuthenticationUnavailable):
        await authenticate(shown(OLD))
    issuer.done.set()
    issuer.hangs, issuer.document = False, jwks(jwk(RSA, "old"))
    mock_clock.jump(10)
    assert await is_good(authenticate, OLD)


async def test_file_may_be_replaced_while_the_server_runs(tmp_path: Path, mock_clock: MockClock) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk(RSA, "old")))
    app = trioroom.App(authenticate=by(JwksFile(file)))
    app.route("room/{name}", trioroom.Room)
    async with open_test_server(app) as server, open_v1_peer(server) as one, open_v1_peer(server) as two:
        assert (await one.request("auth", token=OLD))["type"] == "ok"
        file.write_bytes(jwks(jwk(OTHER_RSA, "new")))
        mock_clock.jump(1)
        assert (await two.request("auth", token=NEW))["type"] == "ok"
        assert (await one.request("auth", token=OLD))["code"] == "unauthenticated"
        assert (await one.request("join", room="room/a"))["type"] == "ok"


async def test_key_without_an_id_is_tried_for_any_token(issuer: Issuer) -> None:
    issuer.document = jwks(jwk(RSA), jwk(OTHER_RSA))
    authenticate = by(JwksUrl(issuer.url))
    assert await is_good(authenticate, OLD)
    assert await is_good(authenticate, token(OTHER_RSA, "RS256"))


async def test_key_of_another_algorithm_is_none(issuer: Issuer) -> None:
    issuer.document = jwks(jwk(EC, "old"))
    assert await refused(by(JwksUrl(issuer.url)), OLD) == UNKNOWN_KEY


async def test_certificate_of_the_issuer_is_verified(issuer: Issuer) -> None:
    issuer.document = jwks(jwk(RSA, "old"))
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    theirs, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(trusting)
    issuer.socket.socket = theirs.wrap_socket(issuer.socket.socket, server_side=True)
    url = issuer.url.replace("http:", "https:")
    assert await is_good(by(JwksUrl(url, ssl_context=trusting)), OLD)
    with pytest.raises(AuthenticationUnavailable):
        await by(JwksUrl(url))(shown(OLD))


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks.json",
        "http://127.0.0.1.issuer.example/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https:///jwks.json",
        "https://user:s3cret@issuer.example/",
        "https://issuer.example/jwks.json?key=s3cret\r\nX: y",
        "https://issuer.example/a b?key=s3cret",
        "https://issuer.example/ü?key=s3cret",
        "",
    ],
)
def test_url_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https://") as refused:
        JwksUrl(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://issuer.example/a", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"]
)
def test_url_that_is_safe_is_taken(url: str) -> None:
    JwksUrl(url)


@pytest.mark.parametrize("option", ["max_age", "min_interval", "timeout"])
def test_numbers_have_to_be_positive(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match="must be positive"):
        JwksUrl("https://issuer.example/", **options)
