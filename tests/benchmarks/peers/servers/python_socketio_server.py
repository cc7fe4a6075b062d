"""Socket.IO events ``all`` and ``echo``, on python-socketio and aiohttp: ``python python_socketio_server.py PORT``."""

from __future__ import annotations

import asyncio
import sys

import socketio
from aiohttp import web

NO_HEARTBEAT = 3_600
"""Seconds between two pings: they cannot be switched off, and other servers here send none."""

server = socketio.AsyncServer(
    async_mode="aiohttp", transports=["websocket"], http_compression=False, ping_interval=NO_HEARTBEAT
)


async def publish(member: str, message: str) -> None:
    """To everybody."""
    await server.emit("all", message)


async def echo(member: str, message: str) -> None:
    """Straight back."""
    await server.emit("echo", message, to=member)


async def main(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    server.attach(app)
    server.on("all", publish)
    server.on("echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
