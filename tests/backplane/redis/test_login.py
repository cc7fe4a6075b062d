"""Logging in to a real server: user, password, database, TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.backplane.processes import free_port
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from tests.backplane.redis.test_resp import log_in
from trioroom.backplane.redis.location import Endpoint, Login
from trioroom.backplane.redis.resp import (
    CallRefused,
)
from trioroom.backplane.supervision import LinkLost


@pytest.fixture(params=sorted(binaries()))
async def guarded_server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """With a password, and a user who may publish."""
    async with open_redis_server(binaries()[request.param], "--requirepass", "pw") as server:
        await server.command("ACL", "SETUSER", "writer", "on", ">wpw", "&*", "+publish", "+client|setname", "+select")
        yield server


@pytest.mark.redis
@pytest.mark.parametrize("protocol", [2, 3])
async def test_login_takes_password_user_database_and_name(guarded_server: RedisServer, protocol: int) -> None:
    endpoint = Endpoint("127.0.0.1", guarded_server.port)
    info = await log_in(endpoint, Login(password="pw", db=3, protocol=protocol, client_name="me"))
    for field in (b"db=3", b"user=default", b"name=me", b"resp=%d" % protocol):
        assert field in info.split()
    with pytest.raises(CallRefused, match="NOPERM"):  # it is that user
        await log_in(endpoint, Login("writer", "wpw", protocol=protocol))
    for login in (Login(password="no"), Login("nobody", "pw"), Login("writer", "no")):
        with pytest.raises(LinkLost, match=r"refused us: WRONGPASS .*; check user and password in the URL$"):
            await log_in(endpoint, Login(login.username, login.password, protocol=protocol))
    # CLIENT SETNAME, which is all that RESP2 asks for then, is allowed to anybody: the first real command is refused.
    text = r"refused us: NOAUTH .*; check user and password in the URL$" if protocol == 3 else "NOAUTH"
    with pytest.raises(LinkLost, match=text):
        await log_in(endpoint, Login(protocol=protocol))
    with pytest.raises(LinkLost, match=r"the server refused us: ERR DB index is out of range$"):
        await log_in(endpoint, Login(password="pw", db=99, protocol=protocol))


@pytest.mark.redis
async def test_password_where_none_is_needed(redis_server: RedisServer) -> None:
    endpoint = Endpoint("127.0.0.1", redis_server.port)
    assert b"user=default" in await log_in(endpoint, Login(password="any"))  # HELLO takes it
    with pytest.raises(LinkLost, match=r"called without any password configured.*; check user and password"):
        await log_in(endpoint, Login(password="any", protocol=2))


@pytest.mark.redis
async def test_unix_socket_and_refused_ports(valkey_server: RedisServer) -> None:
    path = valkey_server.unix_url.removeprefix("unix://")
    assert b"db=2" in await log_in(Endpoint("", 0, path), Login(db=2))
    with pytest.raises(LinkLost, match=r"cannot connect: .*No such file"):
        await log_in(Endpoint("", 0, path + "x"), Login())
    with pytest.raises(LinkLost, match=r"cannot connect: .*Connection refused"):
        await log_in(Endpoint("127.0.0.1", free_port()), Login())
    with pytest.raises(LinkLost, match=r"cannot connect: .*Connection refused"):
        await log_in(Endpoint("localhost", free_port()), Login())


@pytest.mark.parametrize("host", ["a" * 64, "a..b", ".x"])
async def test_name_that_no_host_could_have_is_a_lost_link(host: str) -> None:
    with pytest.raises(LinkLost, match="cannot connect: "):
        await log_in(Endpoint(host, 6379), Login())


@pytest.mark.redis
async def test_tls_is_spoken_and_the_certificate_verified(valkey_server: RedisServer) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting, distrusting = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    async with open_proxy(valkey_server.port, server_side) as proxy:
        endpoint = Endpoint("127.0.0.1", proxy.port)
        assert b"name=trioroom" in await log_in(endpoint, Login(), trusting)
        with pytest.raises(LinkLost, match=r"TLS failed: .*CERTIFICATE_VERIFY_FAILED"):
            await log_in(endpoint, Login(), distrusting)
        with pytest.raises(LinkLost, match=r"TLS failed: .*localhost"):
            await log_in(Endpoint("localhost", proxy.port), Login(), trusting)
