"""Logging in to real servers: by passwords, tokens, keys and over TLS; and what is told when it fails."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nkeys
import pytest
import trio
import trustme

from tests.backplane.logins import passes_on, refuses
from tests.backplane.nats.servers import NatsServer, open_nats_server
from trioroom.backplane.nats.connection import open_connection
from trioroom.backplane.nats.credentials import advice_on, credentials_of
from trioroom.backplane.nats.location import Login
from trioroom.backplane.supervision import LinkLost
from trioroom.backplane.url import Endpoint

SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
PUBLIC = nkeys.from_seed(bytearray(SEED)).public_key.decode()


def at(server: NatsServer, login: str, query: str = "") -> str:
    return f"nats://{login}127.0.0.1:{server.port}{query}"


@pytest.mark.nats
async def test_user_and_password() -> None:
    async with open_nats_server('authorization { user: "m@e", password: "ses:ame" }') as server:
        await passes_on(at(server, "m%40e:ses%3Aame@"))
        await refuses(at(server, "m%40e:sesame@"), "the server refused us: Authorization Violation; check the user and")
        await refuses(at(server, ""), "Authorization Violation")


@pytest.mark.nats
async def test_token() -> None:
    async with open_nats_server('authorization { token: "ses/ame" }') as server:
        await passes_on(at(server, "ses%2Fame@"))
        await refuses(at(server, "sesame@"), "Authorization Violation")


@pytest.mark.nats
async def test_key(tmp_path: Path) -> None:
    file = tmp_path / "user.nk"
    async with open_nats_server(f"authorization {{ users: [{{ nkey: {PUBLIC} }}] }}") as server:
        file.write_bytes(SEED + b"\n")
        await passes_on(at(server, "", f"?nkey_file={file}"))
        file.write_bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER))
        await refuses(at(server, "", f"?nkey_file={file}"), "Authorization Violation")
        file.unlink()
        await refuses(at(server, "", f"?nkey_file={file}"), "cannot read .*user.nk: No such file or directory")


def test_credentials_file_is_read_as_its_tools_write_it(tmp_path: Path) -> None:
    file = tmp_path / "app.creds"
    file.write_text(
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nNKEY Seed printed below ...\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{SEED.decode()}\n------END USER NKEY SEED------\n"
    )
    told = credentials_of(Login(credentials_file=str(file)), "nonce")
    assert told["jwt"] == "eyJ0.eyJq.c2ln"
    signature = base64.urlsafe_b64decode(told["sig"] + "==")
    assert nkeys.from_seed(bytearray(SEED)).verify(b"nonce", signature)
    assert credentials_of(Login(credentials_file=str(file)), "\ud800")["sig"], "a JSON text may have that"


@pytest.mark.parametrize("claims", [b"", b"!", b"[]", b'{"exp":"x"}', b'{"exp":1e400}', b'{"exp":1e30}', b"[" * 9_000])
def test_jwt_that_is_none_is_told_of_as_one_that_does_not_fit(claims: bytes, tmp_path: Path) -> None:
    for jwt in (b"x", b"x.%b.x" % base64.urlsafe_b64encode(claims)):
        (tmp_path / "file").write_bytes(b"-----BEGIN NATS USER JWT-----\n%b\n------END NATS USER JWT------\n" % jwt)
        assert " is revoked, or" in advice_on(Login(credentials_file=str(tmp_path / "file")))


@pytest.mark.parametrize(
    ("text", "make", "reason"),
    [
        ("sesame", lambda file: Login(nkey_file=file), "has no seed of a key"),
        ("S" + "Z" * 57, lambda file: Login(nkey_file=file), "has no seed of a key"),
        (SEED.decode(), lambda file: Login(credentials_file=file), "has no user JWT"),
        (
            "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n",
            lambda file: Login(credentials_file=file),
            "has no seed of a key",
        ),
    ],
)
def test_file_without_a_key_is_told_and_not_what_it_has(
    text: str, make: Callable[[str], Login], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(LinkLost, match=reason) as raised:
        credentials_of(make(str(tmp_path / "file")), "nonce")
    assert text not in str(raised.value)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.mark.nats
async def test_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    names = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    issued = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(str(names["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(names["cert"]))
    issued.private_key_pem.write_to_path(str(names["key"]))
    async with open_nats_server(f'tls {{ cert_file: "{names["cert"]}", key_file: "{names["key"]}" }}') as server:
        url = f"nats+tls://localhost:{server.port}?ssl_ca_certs={names['ca']}"
        await passes_on(url)
        await passes_on(f"nats+tls://localhost:{server.port}?ssl_cert_reqs=none")
        await refuses(url.replace("localhost", "127.0.0.1"), "TLS failed: .*IP address mismatch")
        await refuses(f"nats+tls://localhost:{server.port}", "TLS failed: .*certificate verify failed")
        await refuses(server.url, r"the server wants TLS; write nats\+tls://")


async def test_only_what_is_said_inside_tls_tells_of_other_servers() -> None:
    ca, server_side = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(server_side)
    ours = ssl.create_default_context()
    ca.configure_trust(ours)
    told = 'INFO {"max_payload":1,"headers":true,"tls_required":true,"connect_urls":["%s"]}\r\n'

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all((told % "elsewhere:1").encode())  # as anybody between may
        secure = trio.SSLStream(stream, server_side, server_side=True)
        await secure.receive_some()
        await secure.send_all(b"PONG\r\n")
        await secure.receive_some()
        await secure.send_all((told % "n2:1").encode())
        await trio.sleep_forever()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, host="127.0.0.1"), 0)
            endpoint = Endpoint("127.0.0.1", listener.socket.getsockname()[1])
            async with open_connection(endpoint, Login(), ours, 5, "localhost") as connection:
                assert [*connection.info.addresses] == []
                await connection.send(b"PING\r\n")
                await connection.receive()
                assert [*connection.info.addresses] == ["n2:1"]
            nursery.cancel_scope.cancel()


@pytest.mark.nats
async def test_client_certificate(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca"))
    for name, issued in (("server", ca.issue_cert("localhost")), ("client", ca.issue_cert("app@example.org"))):
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / name))
    conf = f'cert_file: "{tmp_path}/server", key_file: "{tmp_path}/server", ca_file: "{tmp_path}/ca", verify: true'
    async with open_nats_server(f"tls {{ {conf} }}") as server:
        url = f"nats+tls://localhost:{server.port}?ssl_ca_certs={tmp_path}/ca"
        await passes_on(f"{url}&ssl_certfile={tmp_path}/client")
        await refuses(url, "certificate required|the connection broke|closed the connection")


@pytest.mark.nats
async def test_server_without_tls_is_told(nats_server: NatsServer) -> None:
    await refuses(nats_server.url.replace("nats:", "nats+tls:"), "the server speaks no TLS; write nats://")
