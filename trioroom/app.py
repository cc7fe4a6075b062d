"""`App`: which rooms there are, and what can be had done in them from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trioroom._core.routes import Routes
from trioroom._net.operator import ANSWER_TIMEOUT, Operator
from trioroom.closecodes import CloseCode
from trioroom.room import Room, check_abilities, check_limits

if TYPE_CHECKING:
    from trioroom._core.revocation import Revocation
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane
    from trioroom.identity import Authenticate


class App:
    """Which room class serves which names, and which files are served beside them.

    Args:
        authenticate: an async function that says who a peer is: it takes `trioroom.Credentials` and returns a
            `trioroom.Identity`, or None for a peer that may be anonymous, or raises `trioroom.AuthenticationRefused`.
            It is called for each opening handshake, and for each ``auth`` of v1. `trioroom.auth.JWTAuthenticator` is
            one for JSON Web Tokens. By default everybody comes in, and is anonymous.
    """

    def __init__(self, *, authenticate: Authenticate | None = None) -> None:
        if not (authenticate is None or callable(authenticate)):
            raise TypeError(f"authenticate={authenticate!r} must be an async function that takes Credentials")
        self._authenticate = authenticate
        self._routes: Routes[type[Room]] = Routes()
        self._static: list[tuple[str, Path]] = []
        self._backplane: Backplane | None = None
        self._operator: Operator | None = None  # of the server that runs it

    def route(self, pattern: str, room_class: type[Room]) -> None:
        """Serve rooms whose names match ``pattern``, such as ``chat/{name}``, with ``room_class``.

        The first pattern that matches wins. A plain connection names its room by the URL's path.

        Raises:
            TypeError: ``room_class`` is no subclass of `Room`, or one of its limits has the wrong type.
            ValueError: the pattern is malformed or taken, a limit is not positive, or a server runs this app on a
                backplane that cannot do what the class wants.
        """
        cls: object = room_class  # the type checker trusts its callers; we do not
        if not (isinstance(cls, type) and issubclass(cls, Room)):
            raise TypeError(f"route {pattern!r} needs a subclass of trioroom.Room, got {room_class!r}")
        check_limits(room_class)
        if self._backplane is not None:
            check_abilities(room_class, self._backplane)
        self._routes.add(pattern, room_class)

    def static(self, prefix: str, directory: str | Path) -> None:
        """Serve the files under ``directory`` at ``prefix``, with ``index.html`` for the prefix itself.

        Raises:
            ValueError: the prefix does not begin and end with a slash, or the directory is not there.
        """
        path = Path(directory).resolve()
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"static prefix {prefix!r} must begin and end with '/'; write /static/, for example")
        if not path.is_dir():
            raise ValueError(f"static directory {str(path)!r} is not there")
        self._static.append((prefix, path))

    async def publish(
        self, room: str, data: Data, *, key: str | None = None, publication_id: str | None = None
    ) -> None:
        """Send ``data`` to every member of ``room`` on every node, from outside of the room.

        Awaits while the room's fan-out on this node is behind, as `Room.publish` does.

        Args:
            key: as with `Room.publish`.
            publication_id: likewise.
        Raises:
            RuntimeError: no server runs this app now.
            TypeError: ``data`` is no text, bytes or JSON value.
            ValueError: no room may have that name, or ``publication_id`` is too short or too long.
            BackplaneUnavailable: the broker cannot be reached, or the room has been behind for ``publish_timeout``.
        """
        await self._running("publish").hub.publish(room, data, key, publication_id)

    async def disconnect(
        self,
        *,
        user: str | None = None,
        connection: str | None = None,
        reason: str = "",
        close_code: int = CloseCode.DISCONNECTED,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Revocation:
        """Close all connections of a user, or a single one, on all nodes that the backplane links.

        First see that ``authenticate`` or ``authorize`` refuses the user: who comes in at this moment may slip through.
        A node that is out of touch does it when it is back, within 300 s, to connections made meanwhile too.
        Cancelled, it may have happened anywhere.

        Args:
            user: that of the connection's identity, or `Member.user` in any of its rooms.
            connection: a `Member.id`; give this or ``user``.
            reason: text for the peer; a close frame has room for 123 bytes.
            close_code: one below 4100 has clients stay away.
            timeout: seconds that other nodes have to say what they did.
        Raises:
            RuntimeError: no server runs this app now.
            ValueError: neither or both of ``user`` and ``connection``, or a code or reason that cannot be sent.
            BackplaneUnavailable: it has happened on this node; the broker cannot be reached, so call it again.
        """
        return await self._running("disconnect").disconnect(user, connection, reason, close_code, timeout)

    async def kick(self, room: str, user: str, *, reason: str = "", timeout: float = ANSWER_TIMEOUT) -> Revocation:
        """Put a user out of one room on all nodes, as `Member.leave` does; the rest is as with `disconnect`."""
        return await self._running("kick").kick(room, user, reason, timeout)

    def _running(self, method: str) -> Operator:
        if self._operator is None:
            raise RuntimeError(f"app.{method} needs a running server; open one with trioroom.open_server(app)")
        return self._operator


def check_rooms(app: App, backplane: Backplane) -> None:
    """Raise ValueError if a room class of ``app`` asks for what ``backplane`` cannot do."""
    for room_class in app._routes.targets():
        check_abilities(room_class, backplane)
