"""The servers and the proxy that tests of the Redis backplane run on: they do what those tests take for granted."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from redis.crc import key_slot
from redis.exceptions import ResponseError
from trio.testing import wait_all_tasks_blocked

from tests.backplane.processes import free_port, until
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import Cluster, RedisServer, Sentinels, binaries, open_cluster, open_redis_server

pytestmark = pytest.mark.redis

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"


async def heard(stream: trio.abc.ReceiveStream) -> bytes:
    with trio.fail_after(10):
        return bytes(await stream.receive_some())


async def ping(stream: trio.abc.Stream) -> bytes:
    await stream.send_all(PING)
    return await heard(stream)


async def until_all_are_gone(server: RedisServer) -> None:
    async def only_this_one() -> bool:
        return bool((await server.command("CLIENT", "LIST")).count(b"\n") == 1)

    await until(only_this_one, "the server has no clients but the one that asks")


# -- one server ------------------------------------------------------------------------------------


async def test_server_answers_on_tcp_and_on_its_unix_socket(redis_server: RedisServer) -> None:
    assert await redis_server.command("SET", "key", b"\x00\xff") == b"OK"
    assert await redis_server.command("GET", "key") == b"\x00\xff"
    assert redis_server.url == f"redis://127.0.0.1:{redis_server.port}"
    for stream in (
        await trio.open_tcp_stream("127.0.0.1", redis_server.port),
        await trio.open_unix_socket(redis_server.unix_url.removeprefix("unix://")),
    ):
        async with stream:
            assert await ping(stream) == PONG


async def test_error_reply_is_raised(redis_server: RedisServer) -> None:
    with pytest.raises(ResponseError, match="unknown command"):
        await redis_server.command("NO-SUCH-COMMAND")


async def test_connection_of_a_client_can_be_killed(redis_server: RedisServer) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", redis_server.port) as stream:
        assert await ping(stream) == PONG
        assert await redis_server.command("CLIENT", "KILL", "TYPE", "normal") == 1
        assert await heard(stream) == b""


async def test_killed_server_is_gone_and_comes_back_empty_on_the_same_port(redis_server: RedisServer) -> None:
    await redis_server.command("SET", "key", "value")
    redis_server.kill()
    redis_server.kill()  # again does no harm
    assert not redis_server.alive
    with pytest.raises(OSError, match="refused"):
        await redis_server.command("PING")
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", redis_server.port)
    await redis_server.restart()
    assert await redis_server.command("GET", "key") is None
    async with await trio.open_tcp_stream("127.0.0.1", redis_server.port) as stream:
        assert await ping(stream) == PONG


async def test_restart_takes_options_for_this_time_and_keeps_the_first_ones() -> None:
    async with open_redis_server(binaries()["valkey"], "--maxclients", "77") as server:
        await server.restart("--requirepass", "x")
        assert await server.command("CONFIG", "GET", "maxclients") == [b"maxclients", b"77"]
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            assert (await ping(stream)).startswith(b"-NOAUTH")
        await server.restart()
        assert server.password is None
        assert await server.command("CONFIG", "GET", "requirepass") == [b"requirepass", b""]


async def test_stopped_server_is_silent_until_resumed(redis_server: RedisServer) -> None:
    redis_server.stop()
    redis_server.stop()
    assert redis_server.alive
    async with await trio.open_tcp_stream("127.0.0.1", redis_server.port) as stream:  # the kernel accepts
        await stream.send_all(PING)
        with trio.move_on_after(0.1):
            pytest.fail(f"answered {await stream.receive_some()!r}")
        redis_server.resume()
        assert await heard(stream) == PONG


async def test_stopped_server_can_be_killed_and_leaves_no_directory() -> None:
    async with open_redis_server(binaries()["valkey"]) as server:
        directory = trio.Path(server.unix_url.removeprefix("unix://")).parent
        assert await directory.is_dir()
        server.stop()
    assert not server.alive
    assert not await directory.exists()


async def test_server_that_does_not_come_up_shows_its_log() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)valkey-server does not come up.*no-such-option"):
        async with open_redis_server(binaries()["valkey"], "--no-such-option", "1"):
            pytest.fail("it came up")


async def test_port_can_be_chosen() -> None:
    async with open_redis_server(binaries()["valkey"], port=(port := free_port())) as server:
        assert server.port == port


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv on PATH; on Linux: install util-linux")
async def test_server_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    script = """if True:
        import trio
        from tests.backplane.redis.servers import binaries, open_redis_server

        async def main():
            async with open_redis_server(binaries()["valkey"]) as server:
                print(server.port, flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}  # nobody tidies up
    command = [sys.executable, "-c", script]
    run = partial(trio.run_process, command, env=environment, stdout=subprocess.PIPE, check=False)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        assert process.stdout
        async with process.stdout as stdout:
            async with await trio.open_tcp_stream("127.0.0.1", int(await heard(stdout))) as stream:
                assert await ping(stream) == PONG
                process.kill()
                assert await heard(stream) == b""


# -- several ---------------------------------------------------------------------------------------


async def test_cluster_is_formed_and_an_empty_slot_moves(cluster: Cluster) -> None:
    assert cluster.url == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    first, _, third = cluster.nodes
    slot = key_slot(b"bar")
    assert await cluster.owner(slot) is first
    assert await first.command("SET", "bar", 1) == b"OK"
    await first.command("DEL", "bar")
    await cluster.move_slot(slot, third)
    assert [await cluster.owner(slot, asked=node) for node in cluster.nodes] == [third] * 3
    assert await third.command("SET", "bar", 2) == b"OK"
    with pytest.raises(ResponseError, match=f"MOVED {slot} 127.0.0.1:{third.port}"):
        await first.command("GET", "bar")


async def test_replica_in_a_cluster_takes_over_when_its_master_is_killed() -> None:
    async with open_cluster(binaries()["valkey"], replicas=1) as cluster:
        assert len(cluster.replicas) == 3
        cluster.masters[0].kill()

        async def taken_over() -> bool:
            survivors = cluster.nodes[1:]
            return {await cluster.owner(0, asked=node) for node in survivors} == {cluster.replicas[0]}

        await until(taken_over, "a failover in the cluster")
        await cluster.masters[0].restart()  # knows the cluster from its nodes.conf, and is told of its new part

        async def follows() -> bool:
            return b"role:slave" in await cluster.masters[0].command("INFO", "replication")

        await until(follows, "the old master has become a replica")


async def test_sentinels_fail_over_when_the_master_is_killed(sentinels: Sentinels) -> None:
    assert sentinels.url.startswith("redis+sentinel://127.0.0.1:")
    assert sentinels.url.endswith(f":{sentinels.sentinels[2].port}/rooms")
    assert await sentinels.master_now() is sentinels.master
    with pytest.raises(ResponseError, match="READONLY"):
        await sentinels.replica.command("SET", "key", "value")
    sentinels.master.kill()

    async def failed_over() -> bool:
        return await sentinels.master_now() is sentinels.replica

    await until(failed_over, "a failover by the sentinels")
    assert await sentinels.replica.command("SET", "key", "value") == b"OK"


# -- the proxy -------------------------------------------------------------------------------------


async def test_proxy_forwards_both_ways_and_passes_on_a_close(valkey_server: RedisServer) -> None:
    async with open_proxy(valkey_server.port) as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert await ping(stream) == PONG
            assert proxy.connections == 1
            await valkey_server.command("CLIENT", "KILL", "TYPE", "normal")
            assert await heard(stream) == b""
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert await ping(stream) == PONG

        await until_all_are_gone(valkey_server)
        assert proxy.connections == 0


async def test_black_hole_takes_all_and_gives_nothing_and_healing_brings_back_new_connections_only(
    valkey_server: RedisServer,
) -> None:
    async with open_proxy(valkey_server.port) as proxy:
        async with (
            await trio.open_tcp_stream("127.0.0.1", proxy.port) as before,
            await trio.open_tcp_stream("127.0.0.1", proxy.port) as subscriber,
        ):
            assert await ping(before) == PONG
            await subscriber.send_all(b"SUBSCRIBE channel\r\n")
            assert b"subscribe" in await subscriber.receive_some()
            proxy.black_hole()
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as during:
                for stream in (before, during):
                    await stream.send_all(PING)
                assert await valkey_server.command("PUBLISH", "channel", "lost") == 1  # the server suspects nothing
                await wait_all_tasks_blocked(0.05)
                proxy.heal()
                async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as after:
                    assert await ping(after) == PONG
                for stream in (before, during, subscriber):
                    with trio.move_on_after(0.05):
                        pytest.fail(f"{await stream.receive_some()!r} came out of the black hole")


async def test_reset_drops_all_connections_at_both_ends(valkey_server: RedisServer) -> None:
    async with open_proxy(valkey_server.port) as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as dead:
            assert await ping(dead) == PONG
            proxy.black_hole()
            proxy.heal()
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as alive:
                assert await ping(alive) == PONG
                proxy.reset()
                for stream in (dead, alive):
                    with pytest.raises(trio.BrokenResourceError) as broken:
                        await heard(stream)
                    assert isinstance(broken.value.__cause__, ConnectionResetError)
        await until_all_are_gone(valkey_server)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert await ping(stream) == PONG


async def test_proxy_to_a_dead_server_resets(valkey_server: RedisServer) -> None:
    valkey_server.kill()
    async with open_proxy(valkey_server.port) as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await heard(stream)


async def test_proxy_terminates_tls(valkey_server: RedisServer) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with open_proxy(valkey_server.port, server_side) as proxy:
        async with await trio.open_ssl_over_tcp_stream("127.0.0.1", proxy.port, ssl_context=client_side) as stream:
            assert await ping(stream) == PONG
            await valkey_server.command("CLIENT", "KILL", "TYPE", "normal")
            assert await heard(stream) == b""  # a goodbye of TLS, or this would be an error
        async with await trio.open_ssl_over_tcp_stream("127.0.0.1", proxy.port, ssl_context=client_side) as stream:
            assert await ping(stream) == PONG
            proxy.reset()
            with pytest.raises(trio.BrokenResourceError):
                await heard(stream)
