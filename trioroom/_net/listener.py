"""Listening sockets and the accept loop."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack

import trio

from trioroom._net.tcp import set_options
from trioroom.settings import Settings

log = logging.getLogger("trioroom.listener")
_SLICE = 64  # accepts between two checkpoints
_MAX_WAITING = 4_096  # accepts when listening stops, lest they who come meanwhile keep it up
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FULL_PAUSE = 0.1  # seconds until we look again whether a descriptor has come free


async def open_listeners(host: str, port: int, settings: Settings, *, reuse_port: bool = False) -> list[socket.socket]:
    """Non-blocking listening sockets, one for each address of ``host``; port 0 picks one for all.

    Args:
        reuse_port: share the port with other sockets that say so (SO_REUSEPORT); see `bind_sockets`.
    Raises:
        OSError: the name has no address, or the port is taken; no socket is left open.
    """
    with ExitStack() as opened:
        listeners = await bind_sockets(host, port, reuse_port=reuse_port)
        for listener in listeners:
            opened.enter_context(listener)
        for listener in listeners:
            set_options(listener, settings)
            listener.listen(settings.backlog)
            listener.setblocking(False)
        opened.pop_all()
        return listeners


async def bind_sockets(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Sockets that have an address and do not listen yet, one for each address of ``host``; port 0 picks one for all.

    Args:
        reuse_port: share the port with other sockets of this user that say so. Linux spreads new connections
            over those of them that listen; one that does not listen gets none, but keeps the kernel from giving
            the port away as a free one.
    Raises:
        OSError: as `open_listeners`.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AddressInfo.AI_PASSIVE)
    with ExitStack() as opened:
        bound: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            if bound and not port:
                address = (address[0], bound[0].getsockname()[1], *address[2:])
            sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:  # or an IPv4 socket on the same port would be refused
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            bound.append(sock)
        opened.pop_all()
        return bound


async def accept_until_cancelled(
    listeners: list[socket.socket], handle: Callable[[socket.socket, str], None], scope: trio.CancelScope
) -> None:
    """Give every connection that comes to ``handle``, non-blocking and with its address, until ``scope`` ends."""
    with scope:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(_accept, listener, handle)


def stop_accepting(
    listeners: list[socket.socket], handle: Callable[[socket.socket, str], None], scope: trio.CancelScope
) -> None:
    """Close ``listeners``; those whom the kernel has let in already go to ``handle``, or it would reset them.

    Args:
        scope: that of `accept_until_cancelled`.
    """
    scope.cancel()
    for listener in listeners:
        for _ in range(_MAX_WAITING):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError:  # one is gone already, or there is no descriptor left
                continue
            try:
                sock.setblocking(False)
                handle(sock, address[0])
            except OSError:
                sock.close()
        listener.close()


async def _accept(listener: socket.socket, handle: Callable[[socket.socket, str], None]) -> None:
    cannot_accept = _Shortage("cannot accept: %s; raise the limit of open files (ulimit -n)")
    cannot_serve = _Shortage("dropped a connection just accepted: %s")
    accepted = 0
    while True:
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            cannot_accept.over()  # not with the first one that gets in: descriptors come free one by one
            await trio.lowlevel.wait_readable(listener)
            continue
        except OSError as exc:
            if exc.errno in _FULL:
                await cannot_accept.wait(exc)
            else:  # the peer was gone before we came (accept(2): treat like EAGAIN)
                await trio.lowlevel.checkpoint()
            continue
        try:
            sock.setblocking(False)
            handle(sock, address[0])
        except OSError as exc:  # such as a bound of the kernel's on what an epoll may watch
            sock.close()
            await cannot_serve.wait(exc)
        else:
            cannot_serve.over()
        del sock  # it is another's now; kept here, it would outlive its connection until the next one comes
        accepted += 1
        if accepted % _SLICE == 0:
            await trio.lowlevel.checkpoint()


class _Shortage:
    """A time in which connections cannot be taken in: a line in the log when it begins and one when it is over."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._lasts = False

    async def wait(self, reason: OSError) -> None:
        """Until it is worth another try."""
        if not self._lasts:
            log.warning(self._message, reason)
        self._lasts = True
        await trio.sleep(_FULL_PAUSE)

    def over(self) -> None:
        """It is, if there was one."""
        if self._lasts:
            log.warning("accepting again")
        self._lasts = False
