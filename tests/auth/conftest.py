"""Keys, tokens that are signed with them, and a server for key sets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import trioroom
from trioroom._wire.http import Request

SECRET = "0123456789abcdef0123456789abcdef"
RSA = rsa.generate_private_key(65_537, 2_048)
OTHER_RSA = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
DAY = 86_400.0
REQUEST = Request("GET", "/", "/", "", ())


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """The public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claims(**changed: object) -> dict[str, object]:
    """Of a token that is good for longer than all tests take; what is None is left out."""
    all = {"sub": "ann", "exp": time.time() + DAY, **changed}
    return {name: value for name, value in all.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changed: object) -> str:
    """Signed with ``key``."""
    return jwt.encode(claims(**changed), key, algorithm, {} if kid is None else {"kid": kid})


def jwk(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str | None = None, **changed: object
) -> dict[str, Any]:
    """The public half as a JSON Web Key."""
    if isinstance(key, rsa.RSAPrivateKey):
        found: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        found = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    found |= changed
    return found if kid is None else {**found, "kid": kid}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def shown(token: str | None) -> trioroom.Credentials:
    return trioroom.Credentials(REQUEST, token)


@attrs.define
class Issuer:
    """Serves one document over HTTP, and counts who asks for it."""

    url: str
    socket: ThreadingHTTPServer
    """Its `socket` may be made one of TLS."""
    document: bytes = b""
    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)
    hangs: bool = False
    asked: int = 0
    done: threading.Event = attrs.field(factory=threading.Event)
    changed: threading.Condition = attrs.field(factory=threading.Condition)

    def ask(self) -> None:
        with self.changed:
            self.asked += 1
            self.changed.notify_all()

    async def wait_asked(self, times: int) -> None:
        """Until so many have asked; on no clock."""

        def wait() -> None:
            with self.changed:
                assert self.changed.wait_for(lambda: self.asked >= times, 20)

        await trio.to_thread.run_sync(wait)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """A real server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.ask()
            if served.hangs:
                served.done.wait(20)
                return
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(served.document)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Issuer(f"http://127.0.0.1:{server.server_port}/jwks.json?key=s3cret", server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            served.done.set()
            server.shutdown()
            thread.join()


async def refused(authenticate: Any, token: str | None) -> str:
    """Why ``authenticate`` refuses it."""
    with trio.fail_after(10), pytest.raises(trioroom.AuthenticationRefused) as raised:
        await authenticate(shown(token))
    return raised.value.reason
