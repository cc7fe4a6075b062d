"""Where one link's server is: at a fixed place, or where the sentinels say."""

from __future__ import annotations

from typing import Protocol

import trio

from trioroom.backplane.redis.location import Endpoint, Location
from trioroom.backplane.redis.resp import RedisConnection, open_connection, reading_reply
from trioroom.backplane.supervision import LinkLost


class Source(Protocol):
    """What a link asks before and while it uses a server. Each raises `LinkLost` for no."""

    async def locate(self) -> Endpoint:
        """Where the server is now."""
        ...

    async def check(self, connection: RedisConnection) -> None:
        """Whether it is what it should be, before it is used."""
        ...

    async def watch(self, endpoint: Endpoint) -> None:
        """Until cancelled: whether it still is."""
        ...


class FixedSource:
    """A server that stays where it is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def locate(self) -> Endpoint:
        """Known from the start."""
        return self._endpoint

    async def check(self, connection: RedisConnection) -> None:
        """Any will do."""

    async def watch(self, endpoint: Endpoint) -> None:
        """Nothing else could say that it is the wrong one."""
        await trio.sleep_forever()


class SentinelSource:
    """The master of a name, asked of the sentinels in turn.

    See https://redis.io/docs/latest/develop/reference/sentinel-clients/.
    """

    def __init__(self, location: Location) -> None:
        self._location = location

    async def locate(self) -> Endpoint:
        """What the first sentinel that answers says."""
        failures: list[str] = []
        for endpoint in self._location.endpoints:
            try:
                return await self._ask(endpoint)
            except LinkLost as exc:
                failures.append(f"{endpoint}: {exc}")
        raise LinkLost(f"no sentinel tells where {self._location.master!r} is ({'; '.join(failures)})")

    async def check(self, connection: RedisConnection) -> None:
        """Sentinels may lag behind: what is published to a replica is not heard at the master."""
        reply = await connection.call("ROLE")
        with reading_reply("ROLE"):
            role: str = reply[0].decode()
        if role != "master":
            raise LinkLost(f"it is a {role} and not the master; a failover is under way")

    async def watch(self, endpoint: Endpoint) -> None:
        """Ask again each ``probe_interval``: a master that was cut off and replaced does not know it."""
        while True:
            await trio.sleep(self._location.settings.probe_interval)
            try:
                master = await self.locate()
            except LinkLost:
                continue  # no sentinel, no news
            if master != endpoint:
                raise LinkLost(f"the sentinels say that {master} is the master now")

    async def _ask(self, endpoint: Endpoint) -> Endpoint:
        location = self._location
        timeout = location.settings.connect_timeout
        opening = open_connection(endpoint, location.sentinel_login, location.tls, timeout)
        with trio.move_on_after(timeout):
            async with opening as sentinel:
                address = await sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", location.master)
                if address is None:
                    raise LinkLost(f"it knows no master called {location.master!r}")
                with reading_reply("SENTINEL GET-MASTER-ADDR-BY-NAME"):
                    host, port = address
                    return Endpoint(host.decode(), int(port))
        raise LinkLost(f"no answer within {timeout:g} s")
