"""The proxies of the how-to, each as it stands there but for ports and files: the server sees who is behind them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
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

PROXIES = Path(__file__).parent.parent.parent / "docs" / "examples" / "proxies"
DEADLINE = 30.0
CLIENT = "127.0.0.2"
"""Where the peer is; the proxy comes from 127.0.0.1."""
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")


class Where(trioroom.Room):
    """Tells members where they are."""

    async def on_join(self, member: trioroom.Member) -> None:
        member.send(str(member.address))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def configured(name: str, directory: Path, port: int, upstream: int) -> Path:
    """The file of that name, for this machine."""
    text = (PROXIES / name).read_text("utf-8")
    changes = {"127.0.0.1:8000": f"127.0.0.1:{upstream}", "/etc/ssl/chat.pem": f"{directory}/chat.pem"}
    if name == "Caddyfile":
        tls = f"tls {directory}/chat.pem {directory}/chat.pem"
        own = f"{{\n\tadmin off\n\tauto_https off\n}}\nhttps://localhost:{port} {{\n\t{tls}"
        changes["chat.example {"] = own
    elif name == "nginx.conf":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        own = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
        changes["events {}"] = f"pid {directory}/pid;\nerror_log stderr;\nevents {{}}"
        changes["http {"] = f"http {{\naccess_log off;\n{own}"
        changes["listen 443 "] = f"listen {port} "
    else:
        changes["bind :443"] = f"bind :{port}"
    for was, now in changes.items():
        if was != "/etc/ssl/chat.pem" or was in text:
            assert was in text, was
        text = text.replace(was, now)
    path = directory / name
    path.write_text(text)
    return path


def command_of(program: str, config: Path) -> list[str]:
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return {
        "haproxy": [found, "-db", "-f", str(config)],
        "nginx": [found, "-c", str(config), "-g", "daemon off;", "-e", "stderr"],
        "caddy": [found, "run", "--config", str(config), "--adapter", "caddyfile"],
    }[program]


@asynccontextmanager
async def running(command: list[str], directory: Path) -> AsyncIterator[None]:
    environment = {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}  # Caddy keeps things there
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=directory
    )
    try:
        yield
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
@pytest.mark.parametrize(
    ("program", "name"),
    [("haproxy", "haproxy.cfg"), ("haproxy", "haproxy-tcp.cfg"), ("nginx", "nginx.conf"), ("caddy", "Caddyfile")],
)
async def test_member_s_address_and_origin_come_through(program: str, name: str, tmp_path: Path) -> None:
    ends_tls = name != "haproxy-tcp.cfg"
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "chat.pem"))
    tls, serving = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(tls)
    certificate.configure_cert(serving)
    app = trioroom.App()
    app.route("where/{name}", Where)
    settings = trioroom.Settings(trusted_proxies=("127.0.0.1",), proxy_protocol=not ends_tls, drain_timeout=1.0)
    opened = trioroom.open_server(app, port=0, settings=settings, ssl_context=None if ends_tls else serving)
    with trio.fail_after(DEADLINE):
        async with opened as server:
            port = free_port()
            command = command_of(program, configured(name, tmp_path, port, server.port))
            async with running(command, tmp_path):
                for origin, expected in (
                    (f"https://localhost:{port}", b"101"),
                    (f"http://localhost:{port}", b"403"),
                    ("https://other.example", b"403"),
                ):
                    async with connecting(port, tls) as stream:
                        answer = await ask(stream, port, origin, until=CLIENT.encode())
                        assert answer.startswith(b"HTTP/1.1 " + expected), answer
                        assert (CLIENT.encode() in answer) is (expected == b"101")


async def ask(stream: trio.abc.Stream, port: int, origin: str, until: bytes) -> bytes:
    """What comes until ``until`` or the end, to a browser's handshake that also invents an address."""
    await stream.send_all(
        f"GET /where/a HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {origin}\r\n"
        "X-Forwarded-For: 203.0.113.66\r\nForwarded: for=203.0.113.66\r\nX-Forwarded-Host: other.example\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = b""
    try:
        while until not in answer and (data := await stream.receive_some()):
            answer += data
            if answer.startswith(b"HTTP/1.1 403") and b"allowed_origins" in answer:
                break
    except trio.BrokenResourceError:
        pass
    return answer
