"""The proxy of the how-to that does not speak HTTP, as it stands there but for its ports: TLS passes through it."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

import trioroom
from tests.backplane.processes import free_port
from tests.browser import program

CONFIG = Path(__file__).parent.parent.parent / "docs" / "examples" / "proxies" / "haproxy-tcp.cfg"
DEADLINE = 30.0
CLIENT = "127.0.0.2"
"""Where the peer is; the proxy comes from 127.0.0.1."""


class Where(trioroom.Room):
    """Tells members where they are."""

    async def on_join(self, member: trioroom.Member) -> None:
        member.send(str(member.address))


@asynccontextmanager
async def open_haproxy(directory: Path, upstream: int) -> AsyncIterator[int]:
    """HAProxy before the server at ``upstream``; its port."""
    port = free_port()
    text = CONFIG.read_text("utf-8")
    for was, now in {"bind :443\n": f"bind :{port}\n", "127.0.0.1:8000": f"127.0.0.1:{upstream}"}.items():
        assert was in text, was
        text = text.replace(was, now)
    path = directory / "haproxy.cfg"
    path.write_text(text)
    command = [program("TRIOROOM_HAPROXY", "haproxy", "/usr/sbin/haproxy"), "-db", "-f", str(path)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(10, shield=True):
            await process.wait()
        process.kill()


@asynccontextmanager
async def connecting(port: int, tls: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A peer that comes from `CLIENT`, as soon as the proxy listens."""
    while True:
        sock = trio.socket.socket()
        await sock.bind((CLIENT, 0))
        try:
            await sock.connect(("127.0.0.1", port))
            break
        except OSError:
            sock.close()
            await trio.sleep(0.05)
    stream = trio.SSLStream(trio.SocketStream(sock), tls, server_hostname="localhost", https_compatible=True)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")
async def test_member_s_address_comes_through_before_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls, serving = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(tls)
    authority.issue_cert("localhost").configure_cert(serving)
    app = trioroom.App()
    app.route("where/{name}", Where)
    settings = trioroom.Settings(trusted_proxies=("127.0.0.1",), proxy_protocol=True, drain_timeout=1.0)
    with trio.fail_after(DEADLINE):
        async with trioroom.open_server(app, port=0, settings=settings, ssl_context=serving) as server:
            async with open_haproxy(tmp_path, server.port) as port, connecting(port, tls) as stream:
                await stream.send_all(
                    f"GET /where/a HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n"
                    "X-Forwarded-For: 203.0.113.66\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                answer = b""
                while CLIENT.encode() not in answer:
                    answer += (data := await stream.receive_some())
                    assert data, answer
