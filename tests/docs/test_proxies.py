"""The proxies of docs/deploy, each as it is shipped but for its ports and files, in front of two real servers."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from tests.backplane.processes import free_port
from tests.browser import program
from trioroom import App, Member, Room, Server, Settings, open_server
from trioroom.backplane.memory import MemoryBackplane
from trioroom.errors import ConnectionClosed
from trioroom.testing import Peer

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
DEADLINE = 30.0
SHORT = 2  # seconds for which a connection may be silent, where the files say 75
ADMIN_PATHS = ("/api", "/api/v1/rooms", "/metrics", "/_/", "/_", "/%61pi/v1/rooms", "/%6detrics", "/%5F%2f", "/%5F")
PROXIES = ["nginx", "haproxy", *(["caddy"] if shutil.which("caddy") else [])]  # CI has the first two


HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
FORGED = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=192.0.2.1\r\n"
"""What a peer says of itself is not believed."""


class Chat(Room):
    pass


class Where(Room):
    """Tells members where they are."""

    async def on_join(self, member: Member) -> str:
        return str(member.address)


@attrs.frozen
class RunningServer:
    """One behind the proxy."""

    app: App
    server: Server
    stop: trio.Event
    """Have it drain and end."""


class Site:
    """What peers know of it, and the servers behind the proxy."""

    def __init__(self, port: int, tls: ssl.SSLContext, servers: list[RunningServer]) -> None:
        self.port = port
        self.origin = f"https://localhost:{port}"
        self.servers = servers
        self._tls = tls

    @property
    def connections(self) -> list[int]:
        """How many each server has."""
        return [running.server.connection_count for running in self.servers]

    @asynccontextmanager
    async def member(self, path: str = "/chat/a", source: str | None = None) -> AsyncIterator[Peer]:
        """One that comes as a browser does, from a page of this site."""
        async with self._connection(source) as stream:
            peer = Peer(stream)
            head = await self._ask(stream, path, f"{HANDSHAKE}Origin: {self.origin}\r\n{FORGED}")
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield peer

    async def status(self, path: str, headers: str = "") -> int:
        """Of the answer to a GET."""
        async with self._connection() as stream:
            return int((await self._ask(stream, path, headers)).split()[1])

    @asynccontextmanager
    async def _connection(self, source: str | None = None) -> AsyncIterator[trio.abc.Stream]:
        tcp = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=source)
        async with trio.SSLStream(tcp, self._tls, server_hostname="localhost", https_compatible=True) as stream:
            yield stream

    async def _ask(self, stream: trio.abc.Stream, path: str, headers: str) -> bytes:
        """The head of the answer; what follows is left in the stream."""
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost:{self.port}\r\n{headers}\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = await stream.receive_some(1)
            assert byte, head
            head += byte
        return head


# -- the files, with ports and places of the test --------------------------------------------------


def nginx(directory: Path, ports: dict[str, str]) -> list[str]:
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    for was, now in {
        "/run/nginx.pid": f"{directory}/pid",
        "/var/log/nginx/error.log": "stderr",
        "/var/log/nginx/access.log": "off",
        "/etc/ssl/chat.example.pem": f"{directory}/chat.pem",
        "/etc/ssl/chat.example.key": f"{directory}/chat.pem",
        "server_name chat.example": "server_name localhost",
        "75s": f"{SHORT}s",
        "worker_processes auto": "worker_processes 1",
        "worker_rlimit_nofile 1048576;": "",  # which only root may have
        "262144": "256",
        "listen 80 ": f"listen {ports['plain']} ",
        "listen 443 ": f"listen {ports['tls']} ",
        "127.0.0.1:8000": f"127.0.0.1:{ports['one']}",
        "127.0.0.1:8001": f"127.0.0.1:{ports['two']}",
    }.items():
        assert was in text, was
        text = text.replace(was, now)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    path = directory / "nginx.conf"
    path.write_text(text.replace("http {\n", "http {\n" + temporary))
    return [program("TRIOROOM_NGINX", "nginx", "/usr/sbin/nginx"), "-c", str(path), "-g", "daemon off;", "-e", "stderr"]


def haproxy(directory: Path, ports: dict[str, str]) -> list[str]:
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8")
    for was, now in {
        "maxconn 500000": "maxconn 100",
        "/etc/ssl/chat.example.pem": f"{directory}/chat.pem",
        "timeout tunnel 75s": f"timeout tunnel {SHORT}s",
        "bind :80\n": f"bind :{ports['plain']}\n",
        "bind :443 ": f"bind :{ports['tls']} ",
        "127.0.0.1:8000": f"127.0.0.1:{ports['one']}",
        "127.0.0.1:8001": f"127.0.0.1:{ports['two']}",
    }.items():
        assert was in text, was
        text = text.replace(was, now)
    path = directory / "haproxy.cfg"
    path.write_text(text)
    return [program("TRIOROOM_HAPROXY", "haproxy", "/usr/sbin/haproxy"), "-db", "-f", str(path)]


def caddy(directory: Path, ports: dict[str, str]) -> list[str]:
    text = (DEPLOY / "Caddyfile").read_text("utf-8")
    text = text.replace("{$SITE:chat.example}", f"https://localhost:{ports['tls']}")
    text = text.replace(
        "{$UPSTREAMS:127.0.0.1:8000 127.0.0.1:8001}", f"127.0.0.1:{ports['one']} 127.0.0.1:{ports['two']}"
    )
    certificate = f"\ttls {directory}/chat.pem {directory}/chat.pem\n"
    path = directory / "Caddyfile"
    path.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text.replace(" {\n", f" {{\n{certificate}", 1))
    return [program("TRIOROOM_CADDY", "caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]


COMMANDS = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


@asynccontextmanager
async def open_site(proxy: str, directory: Path) -> AsyncIterator[Site]:
    """Two servers that are one by their backplane, and the proxy, which takes each of them for ready."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(directory / "chat.pem"))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    settings = Settings(
        ping_interval=1.2, ping_timeout=1.1, drain_timeout=5, trusted_proxies=("127.0.0.1",), public_metrics=True
    )
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        backplane = MemoryBackplane()
        servers: list[RunningServer] = [await nursery.start(_serve, backplane, settings) for _ in range(2)]
        ports = {
            "plain": free_port(), "tls": free_port(), "one": servers[0].server.port,
            "two": servers[1].server.port,
        }  # fmt: skip
        command = COMMANDS[proxy](directory, {name: str(port) for name, port in ports.items()})
        await stack.enter_async_context(_running(command, directory))
        site = Site(ports["tls"], tls, servers)
        await _wait_ready(site)
        yield site


async def _serve(
    backplane: MemoryBackplane, settings: Settings, *, task_status: trio.TaskStatus[RunningServer]
) -> None:
    app, stop = App(), trio.Event()
    app.route("chat/{name}", Chat)
    app.route("where/{name}", Where)
    async with open_server(app, port=0, settings=settings, backplane=backplane, api_key="k" * 32) as server:
        task_status.started(RunningServer(app, server, stop))
        await stop.wait()


@asynccontextmanager
async def _running(command: list[str], directory: Path) -> AsyncIterator[None]:
    environment = {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}  # Caddy keeps things there
    with (directory / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=directory
        )
    try:
        yield
        assert process.poll() is None, (directory / "log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)  # nginx has children, which it ends then
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await process.wait()
        process.kill()


async def _wait_ready(site: Site) -> None:
    while True:
        try:
            if await site.status("/readyz") == 200:
                return
        except (OSError, trio.BrokenResourceError, AssertionError):
            pass
        await trio.sleep(0.02)


# -- what has to come through ----------------------------------------------------------------------


@pytest.mark.parametrize("proxy", PROXIES)
async def test_members_talk_and_stay_while_they_are_silent(proxy: str, tmp_path: Path) -> None:
    async def hear(member: Peer, *texts: str) -> None:
        assert [await member.receive() for _ in texts] == list(texts)

    with trio.fail_after(DEADLINE):
        async with open_site(proxy, tmp_path) as site, site.member() as one, trio.open_nursery() as nursery:
            nursery.start_soon(hear, one, "hello", "still here")  # who does not read does not answer the heartbeat
            async with site.member() as two, trio.open_nursery() as inner:
                assert site.connections == [1, 1]  # the one with fewest is next
                await two.send("hello")
                inner.start_soon(hear, two, "still here")
                await trio.sleep(1.5 * SHORT)  # as long as the proxy would not wait without the heartbeat
                await site.servers[0].app.publish("chat/a", "still here")


@pytest.mark.parametrize("proxy", PROXIES)
async def test_member_of_a_server_that_drains_is_told_and_comes_back_to_the_other(proxy: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with open_site(proxy, tmp_path) as site, site.member() as one:
            drained = site.connections.index(1)
            site.servers[drained].stop.set()
            with pytest.raises(ConnectionClosed) as closed:
                await one.receive()
            assert closed.value.code == 4101
            async with site.member(), site.member():  # at once, and whatever the proxy still believes
                assert site.connections[1 - drained] == 2


@pytest.mark.parametrize("proxy", PROXIES)
async def test_page_of_another_origin_is_refused_behind_the_proxy(proxy: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with open_site(proxy, tmp_path) as site:
            assert await site.status("/chat/a", f"{HANDSHAKE}Origin: {site.origin}\r\n") == 101
            assert await site.status("/chat/a", f"{HANDSHAKE}Origin: https://evil.example\r\n") == 403


@pytest.mark.parametrize("proxy", PROXIES)
async def test_what_is_for_operators_stays_inside(proxy: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with open_site(proxy, tmp_path) as site:
            assert [await site.status(path) for path in ADMIN_PATHS] == [404] * len(ADMIN_PATHS)
            assert await site.status("/trioroom.js") == 200


@pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")
@pytest.mark.parametrize("proxy", PROXIES)
async def test_server_knows_where_its_members_are(proxy: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with open_site(proxy, tmp_path) as site, site.member("/where/a", source="127.0.0.2") as member:
            assert await member.receive() == "127.0.0.2"
