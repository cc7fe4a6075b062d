"""A room at ``/all`` and an echo at ``/echo``, on aiohttp: ``python aiohttp_server.py PORT [uvloop]``."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

members: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Each gets its own."""
    connection = web.WebSocketResponse(compress=False)
    await connection.prepare(request)
    async for message in connection:
        await connection.send_str(message.data)
    return connection


async def room(request: web.Request) -> web.WebSocketResponse:
    """Everybody gets everything; sending awaits only when a member's buffer is full."""
    connection = web.WebSocketResponse(compress=False)
    await connection.prepare(request)
    members.add(connection)
    try:
        async for message in connection:
            for member in list(members):
                if not member.closed:
                    await member.send_str(message.data)
    finally:
        members.discard(connection)
    return connection


async def main(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/all", room)
    app.router.add_get("/echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if "uvloop" in sys.argv[2:]:
        import uvloop

        uvloop.run(main(int(sys.argv[1])))
    else:
        asyncio.run(main(int(sys.argv[1])))
