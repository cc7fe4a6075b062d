"""Keys that tokens are verified with: secrets, PEM, JSON Web Keys. Each is good for one algorithm and no other.

That is what keeps a public key from being taken for the secret of HS256, whatever a token says of itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

log = logging.getLogger("trioroom.auth")

ALGORITHMS = ("HS256", "RS256", "ES256")
"""Those that we verify (RFC 7518 §3.1)."""
_OF_KTY = {"oct": "HS256", "RSA": "RS256", "EC": "ES256"}
_MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: as long as the hash
_MIN_RSA_BITS = 2_048  # RFC 7518 §3.3
_MAX_KEYS = 100  # of one set: each may have to be tried

Material: TypeAlias = bytes | RSAPublicKey | EllipticCurvePublicKey


@attrs.frozen
class Key:
    """One key."""

    algorithm: str
    """The one it is used with."""
    material: Material = attrs.field(repr=False)
    id: str | None = None
    """``kid``, where it has one."""

    def fits(self, algorithm: str, key_id: str | None) -> bool:
        """Whether a token that says this of itself may be signed with it."""
        return self.algorithm == algorithm and (key_id is None or self.id in (None, key_id))


class KeySource(Protocol):
    """Where keys are kept. `JWTAuthenticator` asks it for each token; calls overlap."""

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Those that may have signed a token with this ``alg`` and ``kid``; empty if there is none.

        Raises:
            AuthenticationUnavailable: nobody can say now.
        """
        ...


class FixedKeys:
    """Keys that stay as they are."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """See `KeySource`; never waits."""
        return [key for key in self.keys if key.fits(algorithm, key_id)]


def parse_key(text: str | bytes) -> Key:
    """A secret, or a public key or certificate in PEM.

    Raises:
        ValueError: it is too short, or of a kind that none of `ALGORITHMS` is for.
    """
    material = text.encode() if isinstance(text, str) else text
    if b"-----BEGIN " not in material:
        if len(material) < _MIN_SECRET_BYTES:
            raise ValueError(
                f"a secret of {len(material)} bytes is too short for HS256; take {_MIN_SECRET_BYTES} random ones"
            )
        return Key("HS256", material)
    if b"PRIVATE KEY-----" in material:
        raise ValueError("this is a private key, which only the issuer of the tokens should have; give the public one")
    if b"-----BEGIN CERTIFICATE-----" in material:
        return _public(load_pem_x509_certificate(material).public_key())
    return _public(load_pem_public_key(material))


def _public(key: object, key_id: str | None = None) -> Key:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits is too short; take {_MIN_RSA_BITS} or more")
        return Key("RS256", key, key_id)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key("ES256", key, key_id)
    raise ValueError(
        f"a key of type {type(key).__name__} is none for {', '.join(ALGORITHMS)}; take RSA, or EC on P-256"
    )


def parse_jwks(text: bytes, *, secrets: bool) -> list[Key]:
    """The keys of a JSON Web Key Set (RFC 7517) that we can use; others are passed over.

    Args:
        secrets: whether it may have those of HS256.
    Raises:
        ValueError: it is no such set, or there is none that we can use.
    """
    try:
        jwks = msgspec.json.decode(text)
    except RecursionError as exc:
        raise ValueError("it nests too deep for a JSON Web Key Set") from exc
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(entries, list):
        raise ValueError('it is no JSON Web Key Set; that is an object with a list of "keys"')
    keys = []
    for number, entry in enumerate(entries[:_MAX_KEYS]):
        try:
            keys.append(_parse_jwk(entry, secrets))
        except (ValueError, TypeError, LookupError, jwt.PyJWTError) as exc:  # PyJWT looks for "k" and finds none
            log.debug("key %d of the set is not used: %r", number, exc)
    if not keys:
        raise ValueError(f"none of its {len(entries)} keys is a public one for {', '.join(ALGORITHMS)}")
    return keys


def _parse_jwk(entry: object, secrets: bool) -> Key:
    if not isinstance(entry, Mapping):
        raise TypeError("it is no object")
    algorithm = _OF_KTY.get(str(entry.get("kty")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        raise ValueError("it is for something else")
    key_id = entry.get("kid")
    if not (key_id is None or isinstance(key_id, str)):
        raise TypeError("its kid is no text")
    if "d" in entry:
        raise ValueError("it is a private key; have it taken out of there")
    if algorithm == "HS256" and not secrets:
        raise ValueError("a secret has no place in what anybody can fetch")
    material = jwt.PyJWK(dict(entry), algorithm=algorithm).key
    return attrs.evolve(parse_key(material), id=key_id) if isinstance(material, bytes) else _public(material, key_id)
