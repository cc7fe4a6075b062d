"""Which tokens are good: what a forger may try, and what an issuer may."""

from __future__ import annotations

import base64
import json
import logging
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import assert_checkpoints

import trioroom
from tests.auth.conftest import DAY, EC, OTHER_RSA, RSA, SECRET, claims, pem, refused, shown, token
from tests.conftest import closed_with
from trioroom.auth import JWTAuthenticator
from trioroom.testing import open_peer, open_test_server, open_v1_peer

UNKNOWN_KEY = "the token is signed with no key that is known here"
MALFORMED = "the token is malformed"
UNFIT = "sub, exp or info of the token is not as it should be"
BY_SECRET = JWTAuthenticator(SECRET, algorithms=["HS256"])


def make(keys: Any = SECRET, algorithms: Any = ("HS256",), **options: Any) -> JWTAuthenticator:
    return JWTAuthenticator(keys, algorithms=algorithms, **options)


def encoded(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def by_hand(header: object, payload: object = None, signature: bytes = b"") -> str:
    """A token that no library would make."""
    return ".".join([encoded(header), encoded(claims() if payload is None else payload), encoded(signature)])


@pytest.mark.parametrize(
    ("authenticate", "good"),
    [
        (make(), token()),
        (make(pem(RSA), ["RS256"]), token(RSA, "RS256")),
        (make(pem(EC), ["ES256"]), token(EC, "ES256")),
        (make(pem(EC).encode(), ["ES256"]), token(EC, "ES256", kid="any")),
        (make([pem(OTHER_RSA), pem(RSA)], ["RS256"]), token(RSA, "RS256")),
        (make([SECRET, pem(EC)], ["HS256", "ES256"]), token(EC, "ES256")),
        (make(audience="chat"), token(aud="chat")),
        (make(audience=["chat", "mail"]), token(aud=["mail", "news"])),
        (make(issuer="https://a.example"), token(iss="https://a.example")),
        (make(), token(iss="anybody")),
        (make(leeway=DAY), token(exp=time.time() - 20)),
        (make(leeway=DAY), token(nbf=time.time() + 20)),
        (make(require=()), token(exp=None)),
    ],
)
async def test_good_token_says_who_one_is(authenticate: JWTAuthenticator, good: str) -> None:
    with assert_checkpoints():
        identity = await authenticate(shown(good))
    assert identity is not None
    assert identity.user == "ann"


async def test_identity_has_all_that_the_token_says() -> None:
    end = time.time() + 300
    authenticate = make(user_claim="email", info_claim="profile", leeway=5)
    identity = await authenticate(shown(token(email="a@b.example", profile={"name": "Ann"}, exp=end, role="admin")))
    assert identity is not None
    assert (identity.user, identity.info, identity.claims["role"]) == ("a@b.example", {"name": "Ann"}, "admin")
    assert identity.expires_at == pytest.approx(end + 5)
    forever = await make(require=())(shown(token(exp=None)))
    assert forever is not None
    assert forever.expires_at is None


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        (token("another secret of thirty-two byte"), UNKNOWN_KEY),
        (token()[:-3] + "AAA", UNKNOWN_KEY),
        (by_hand({"alg": "HS256"}), UNKNOWN_KEY),
        (by_hand({"alg": "none"}), "the token has to be signed with HS256"),
        (by_hand({"alg": "None"}), "the token has to be signed with HS256"),
        (jwt.encode(claims(), "", "none"), "the token has to be signed with HS256"),
        (token(RSA, "RS256"), "the token has to be signed with HS256"),
        (token(SECRET * 2, "HS512"), "the token has to be signed with HS256"),
        (by_hand({}), "the token has to be signed with HS256"),
        (by_hand({"alg": ["HS256"]}), "the token has to be signed with HS256"),
        (by_hand({"alg": "HS256", "kid": 7}), MALFORMED),
        (by_hand({"alg": "HS256", "crit": ["x"], "x": 1}), MALFORMED),
        (by_hand([1]), MALFORMED),
        (by_hand(b"[" * 5_000), MALFORMED),
        ("", MALFORMED),
        ("a.b.c", MALFORMED),
        ("\ud800.\ud800.", MALFORMED),
        (token() + ".x", MALFORMED),
        (jwt.api_jws.encode(b"[1]", SECRET, "HS256"), MALFORMED),
        (jwt.api_jws.encode(b"[" * 5_000, SECRET, "HS256"), MALFORMED),
        (jwt.api_jws.encode(b'{"sub":"ann","exp":1e999}', SECRET, "HS256"), MALFORMED),
        (jwt.api_jws.encode(b'{"sub":"ann","exp":1%s}' % (b"0" * 400), SECRET, "HS256"), UNFIT),
        (token(exp="tomorrow"), MALFORMED),
        (token(sub=7), MALFORMED),
        (token(exp=time.time() - 60), "the token has expired"),
        (token(nbf=time.time() + DAY), "the token is not valid yet"),
        (token(iat=time.time() + DAY), "the token is not valid yet"),
        (token(exp=None), "the token has no exp"),
        (token(aud="somebody else"), "the token is for another audience"),
        (token(sub=None), UNFIT),
        (token(sub=""), UNFIT),
        (token(sub="x" * 129), UNFIT),
        (token(padding="x" * 8_192), "the token exceeds 8192 bytes"),
        (None, "there is no token"),
    ],
    ids=lambda value: value if value and " " in value else "token",  # which are new each time, and names are not to be
)
async def test_bad_token_is_refused_with_its_reason(
    forged: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert await refused(BY_SECRET, forged) == reason
    assert not forged or forged not in caplog.text


@pytest.mark.parametrize("secret", [pem(RSA), pem(RSA).strip(), pem(RSA).encode()])
async def test_public_key_is_no_secret_of_hs256(secret: str | bytes) -> None:
    """The old trick: everybody has the public key, and a verifier that lets the token choose takes it for a secret."""
    signed = by_hand({"alg": "HS256"}).rpartition(".")[0]
    key = secret.encode() if isinstance(secret, str) else secret
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), key)
    forged = f"{signed}.{encoded(signature)}"
    assert await refused(make(pem(RSA), ["RS256"]), forged) == "the token has to be signed with RS256"
    assert await refused(make([pem(RSA), SECRET], ["RS256", "HS256"]), forged) == UNKNOWN_KEY


@pytest.mark.parametrize(
    ("options", "bad", "reason"),
    [
        ({"audience": "chat"}, token(aud="mail"), "the token is for another audience"),
        ({"audience": "chat"}, token(), "the token has no aud"),
        ({"audience": "chat"}, token(aud=7), "the token is for another audience"),
        ({"issuer": "https://a.example"}, token(iss="https://b.example"), "the token is of another issuer"),
        ({"issuer": "https://a.example"}, token(iss="https://a"), "the token is of another issuer"),
        ({"issuer": ["https://a.example"]}, token(iss="https://a"), "the token is of another issuer"),
        ({"issuer": "https://a.example"}, token(), "the token has no iss"),
        ({"leeway": 0}, token(exp=time.time() - 1), "the token has expired"),
        ({"require": ("exp", "jti")}, token(), "the token has no jti"),
        ({"max_token_bytes": 20}, token(), "the token exceeds 20 bytes"),
        ({"info_claim": "name"}, token(name="x" * 2_000), UNFIT),
        ({"allow_anonymous": True}, token(exp=time.time() - 60), "the token has expired"),
    ],
)
async def test_token_has_to_be_as_it_was_asked_for(options: dict[str, Any], bad: str, reason: str) -> None:
    assert await refused(make(**options), bad) == reason


async def test_peer_without_a_token_may_be_anonymous() -> None:
    assert await make(allow_anonymous=True)(shown(None)) is None


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
async def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    await refused(BY_SECRET, text)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "b64", "crit", "jwk", "x5c"]), st.text() | st.integers()))
async def test_any_header_is_refused_and_nothing_else_happens(header: dict[str, object]) -> None:
    await refused(BY_SECRET, by_hand(header))


@pytest.mark.parametrize(
    ("keys", "algorithms", "complaint"),
    [
        (SECRET, [], r"algorithms=\[\] has to be a list of some of HS256, RS256, ES256"),
        (SECRET, "HS256", "algorithms='HS256' has to be a list"),
        (SECRET, ["none"], "has to be a list of some of"),
        (SECRET, ["HS512"], "has to be a list of some of"),
        (SECRET, ["HS256", "RS256"], "there is no key for RS256; take it out of algorithms, or add one"),
        ([], ["HS256"], "there is no key for HS256"),
        (pem(RSA), ["HS256"], "a key is one for RS256, which algorithms="),
        ("short", ["HS256"], "a secret of 5 bytes is too short for HS256; take 32 random ones"),
    ],
)
def test_keys_and_algorithms_have_to_fit(keys: Any, algorithms: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(keys, algorithms)


async def test_server_takes_tokens_in_both_modes() -> None:
    app = trioroom.App(authenticate=BY_SECRET)
    app.route("room/{name}", trioroom.Room)
    good, old = token(exp=time.time() + 300), token(exp=time.time() - 60)
    async with open_test_server(app) as server:
        async with open_peer(server, f"/room/a?token={good}"), open_v1_peer(server) as v1:
            assert (await v1.request("auth", token=good))["expires_in"] == pytest.approx(310, abs=2)
            await v1.join("room/a")
        with pytest.raises(trioroom.ConnectionClosed, match=r"401 Unauthorized(.|\r\n)*the token has expired"):
            async with open_peer(server, f"/room/a?token={old}"):
                pass
        async with open_v1_peer(server) as v1:
            await v1.request("auth", token=old)
            assert await closed_with(v1.peer) == (4003, "the token has expired")
