"""Examples that tell friend from stranger: tokens, sessions, TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trustme
from trio_websocket import open_websocket_url

from tests.docs.examples.running import DEADLINE, running, stop, text_from, url_of
from trioroom import ConnectionClosed, open_server
from trioroom.testing import open_peer, open_test_server, open_v1_peer


async def test_chat_for_members_lets_in_who_has_a_token_for_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_SECRET", "0123456789abcdef0123456789abcdef")
    from issue_token import issue
    from members_only import app

    async with open_test_server(app) as server:
        async with (
            open_peer(server, f"/chat/lobby?token={issue('ann', ['lobby'])}") as ann,
            open_v1_peer(server) as bob,
        ):
            assert (await bob.request("join", room="chat/lobby"))["code"] == "unauthenticated"
            assert (await bob.request("auth", token=issue("bob", ["lobby"])))["expires_in"] == pytest.approx(310, abs=5)
            await bob.join("chat/lobby")
            await ann.send("hello")
            while (said := await bob.receive())["type"] == "presence":
                pass  # before or after, as it comes
            assert said["data"] == "ann: hello"
            refused = await bob.request("join", room="chat/kitchen")
            assert (refused["code"], refused["message"]) == ("denied", "bob may not join kitchen")
        with pytest.raises(ConnectionClosed, match="401 Unauthorized"):
            async with open_peer(server, "/chat/lobby"):
                pass


@pytest.mark.parametrize(
    ("cookie", "status"), [("session=3c9d0e", 101), ("session=guess", 401), ("a=b", 401), ("", 401)]
)
async def test_session_of_a_web_application_opens_its_rooms(cookie: str, status: int) -> None:
    from sessions import app

    request = (
        "GET /chat/lobby HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
    )
    async with open_server(app, port=0) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(request.encode())
            answer = await stream.receive_some()
    assert int(answer.split()[1]) == status


async def test_tls_server_is_reached_by_wss(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    program = f"import trio, tls_server; trio.run(tls_server.main, '{tmp_path}/cert.pem', '{tmp_path}/key.pem', 0)"
    with trio.fail_after(DEADLINE), running("-c", program) as process:
        url = url_of(process)
        assert url.startswith("wss://")
        async with open_websocket_url(url, ssl_context=trusting) as one, open_websocket_url(url, trusting) as two:
            assert "came to lobby" in await text_from(one)
            await two.send_message("hello")
            assert (await text_from(one)).endswith(": hello")
        stop(process)
