from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.conftest import EC, RSA, SECRET, jwk, jwks, pem
from trioroom.auth.keys import FixedKeys, Key, parse_jwks, parse_key


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder(name, name, RSA.public_key(), 1, now, now + datetime.timedelta(days=1))
    return builder.sign(RSA, hashes.SHA256()).public_bytes(Encoding.PEM)


def public(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [(SECRET, "HS256"), (b"\0" * 32, "HS256"), (pem(RSA), "RS256"), (certificate(), "RS256"), (pem(EC), "ES256")],
)
def test_key_is_for_one_algorithm(text: str | bytes, algorithm: str) -> None:
    key = parse_key(text)
    assert (key.algorithm, key.id) == (algorithm, None)
    assert SECRET not in repr(key)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x" * 31, "31 bytes is too short for HS256"),
        (RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "this is a private key"),
        (public(rsa.generate_private_key(65_537, 1_024)), "1024 bits is too short; take 2048 or more"),
        (public(ec.generate_private_key(ec.SECP384R1())), "is none for HS256, RS256, ES256; take RSA, or EC on P-256"),
        (public(ed25519.Ed25519PrivateKey.generate()), "is none for HS256"),
        ("-----BEGIN PUBLIC KEY-----\nbroken\n-----END PUBLIC KEY-----\n", "PEM"),
    ],
)
def test_key_that_is_not_good_is_refused(text: str | bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_key(text)


@pytest.mark.parametrize(
    ("algorithm", "key_id", "found"),
    [
        ("RS256", "a", ["a", None]),
        ("RS256", "c", [None]),
        ("RS256", None, ["a", "b", None]),
        ("HS256", "a", []),
    ],
)
async def test_keys_are_found_by_algorithm_and_id(algorithm: str, key_id: str | None, found: list[str | None]) -> None:
    keys = FixedKeys([Key("RS256", b"", id) for id in ("a", "b", None)])
    assert [key.id for key in await keys.find(algorithm, key_id)] == found


def test_set_has_the_keys_that_can_be_used() -> None:
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="), "kid": "s"}
    document = jwks(
        jwk(RSA, "a", alg="RS256", use="sig"),
        jwk(EC, "b", alg="ES256"),
        jwk(EC),
        jwk(RSA, "for encryption", use="enc"),
        jwk(RSA, "of another algorithm", alg="RS512"),
        jwk(RSA, "private", d="AQAB"),
        jwk(EC, "another curve", crv="P-384"),
        jwk(RSA, "broken", n="!"),
        {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "of another kind"},
        {**jwk(RSA), "kid": 7},
        {"kty": "oct", "k": "c2hvcnQ", "kid": "short"},
        secret,
    )
    public = [("RS256", "a"), ("ES256", "b"), ("ES256", None)]
    assert [(key.algorithm, key.id) for key in parse_jwks(document, secrets=False)] == public
    assert [(key.algorithm, key.id) for key in parse_jwks(document, secrets=True)] == [*public, ("HS256", "s")]


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"{}", b'{"keys":7}', b'{"keys":[]}', b'{"keys":[7,null,[]]}', b'{"keys":[{}]}', b"\xff"],
)
def test_what_is_no_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of ours, of msgspec, of Python: all are
        parse_jwks(document, secrets=True)


def test_set_with_no_end_is_read_in_part() -> None:
    assert len(parse_jwks(jwks(*[jwk(EC, f"{number}") for number in range(200)]), secrets=False)) == 100


@given(
    st.fixed_dictionaries(
        {"kty": st.sampled_from(["RSA", "EC", "oct", "", 7])},
        optional=dict.fromkeys(
            ("n", "e", "x", "y", "k", "crv", "kid", "alg", "use"), st.text() | st.integers() | st.none()
        ),
    )
)
def test_any_entry_is_used_or_passed_over(entry: dict[str, Any]) -> None:
    assert len(parse_jwks(jwks(entry, jwk(EC, "good")), secrets=True)) in (1, 2)
