"""JetStream's interface: requests to subjects of the server, answered in JSON.

See https://docs.nats.io/reference/reference-protocols/nats_api_reference.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
import trio

from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.pending import Unanswered
from trioroom.errors import BackplaneError, BackplaneUnavailable

NANOSECONDS: Final = 1_000_000_000
"""Of a second: how the configuration of a stream has times."""
NAME_IN_USE: Final = 10058
"""The stream is there with another configuration."""
NOT_THERE: Final = 10059
"""There is no such stream."""
NO_MESSAGE: Final = 10037
"""There is none that was asked for."""
WRONG_LAST_SEQUENCE: Final = 10071
"""Something else has come to the subject since."""
# What came before, with the same Nats-Msg-Id or to the same subject, is on its way to the other servers of a cluster.
_UNDECIDED: Final = frozenset((10158, 10164))
_PAUSE: Final = 0.02  # seconds, until they have it
_LONG_PAUSE: Final = 0.1  # seconds, until a stream can be made
_NO_PEERS: Final = 10005  # for as many copies: a server is away, or one that has just come is not known for good yet
_NOT_FOR_THIS_ACCOUNT: Final = 10039
_NOT_AT_ALL: Final = 10076
_NO_JETSTREAM: Final = (
    "the NATS server runs without JetStream, which gives the publications of a room one order; start it with "
    "`nats-server -js`, or put jetstream {} into its configuration"
)
_NO_JETSTREAM_HERE: Final = (
    "the account that we log in to is without JetStream, which gives the publications of a room one order; put "
    "`jetstream: enabled` into it, or limits such as `--js-disk-storage` of `nsc edit account`"
)


class JetStreamUnavailable(BackplaneUnavailable):
    """It does not answer, or says that it cannot now; it will when the servers of a cluster have chosen who leads."""


class JetStreamError(BackplaneError):
    """The server has answered with an error, as it will again; ``err_code`` says which."""

    def __init__(self, description: str, err_code: int) -> None:
        super().__init__(description)
        self.err_code = err_code


def is_end(reply: Message) -> bool:
    """Whether it is the last one to a direct get of several messages, which has a status and is no message."""
    return reply.status is not None


def parse_answer(reply: Message) -> dict[str, Any]:
    """What JetStream answers, be it to a publication or to a request of its interface.

    Raises:
        JetStreamError: it refuses.
        JetStreamUnavailable: it cannot now, for want of a leader, say.
        BackplaneUnavailable: what came is no answer of JetStream.
    """
    try:
        answer: dict[str, Any] = msgspec.json.decode(reply.payload)  # a tenth of what json takes, for each publication
        error: dict[str, Any] | None = answer.get("error")
        if error is None:
            return answer
        code, err_code = int(error.get("code", 0)), int(error.get("err_code", 0))
        description = str(error.get("description", "no description"))
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError, msgspec.DecodeError) as exc:
        raise BackplaneUnavailable(f"the broker answered {reply.payload[:80]!r}, which is not JetStream's") from exc
    if err_code in (_NOT_FOR_THIS_ACCOUNT, _NOT_AT_ALL):
        raise JetStreamError(_NO_JETSTREAM if err_code == _NOT_AT_ALL else _NO_JETSTREAM_HERE, err_code)
    if code == 503 or err_code == _NO_PEERS:
        raise JetStreamUnavailable(f"JetStream cannot do it now: {description}; retry later")
    raise JetStreamError(f"JetStream refuses: {description}", err_code)


async def call_api(requests: Requests, name: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Ask ``$JS.API.<name>``; the answer.

    Raises:
        JetStreamError: the server refuses, or has no JetStream.
        BackplaneUnavailable: as `Requests.ask`; `JetStreamUnavailable` if it is JetStream that does not answer.
    """
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        return parse_answer(await requests.ask(f"$JS.API.{name}", payload))
    except NoResponders as exc:
        raise BackplaneUnavailable(_NO_JETSTREAM) from exc
    except Unanswered as exc:
        raise JetStreamUnavailable(
            f"JetStream has not answered within {requests.timeout:g} s; in a cluster more than half of the servers "
            "have to be up and to reach each other, or none of them leads"
        ) from exc


async def append(
    requests: Requests, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Publish to a stream; what it says of it, such as ``seq``, once it is as safe as the stream can make it.

    Raises:
        JetStreamError: the server refuses.
        BackplaneUnavailable: as `Requests.ask_served`, or JetStream cannot do it now.
    """
    return await ask_until_decided(partial(requests.ask_served, subject, payload, headers), requests.timeout)


async def ask_until_decided(ask: Callable[[], Awaitable[Message]], timeout: float) -> dict[str, Any]:
    """What a stream answers to ``ask``, which publishes to it; again while it cannot tell whether it may take that.

    Raises:
        JetStreamError: the server refuses, or cannot tell within ``timeout``.
        BackplaneUnavailable: as ``ask``, or JetStream cannot do it now.
    """
    deadline = trio.current_time() + timeout
    while True:
        try:
            return parse_answer(await ask())
        except JetStreamError as exc:
            if exc.err_code not in _UNDECIDED or trio.current_time() + _PAUSE > deadline:
                raise
        await trio.sleep(_PAUSE)


async def ensure_stream(requests: Requests, config: Mapping[str, object]) -> dict[str, Any]:
    """Have a stream of this configuration, made or updated if need be; what the server says of it.

    That is ``config``, ``created`` and ``state`` among others. ``config`` names all that matters, ``name`` included:
    what it leaves out becomes the server's default. Asked again while JetStream says that it cannot now.

    Raises:
        JetStreamError: the server refuses the configuration, or has no JetStream.
        BackplaneUnavailable: as `call_api`.
    """
    deadline = trio.current_time() + requests.timeout
    while True:
        try:
            return await _create_or_update(requests, config)
        except JetStreamUnavailable:
            if trio.current_time() + _LONG_PAUSE > deadline:
                raise
        await trio.sleep(_LONG_PAUSE)


async def _create_or_update(requests: Requests, config: Mapping[str, object]) -> dict[str, Any]:
    name = config["name"]
    try:
        return await call_api(requests, f"STREAM.CREATE.{name}", config)
    except JetStreamError as exc:
        if exc.err_code != NAME_IN_USE:
            raise
    return await call_api(requests, f"STREAM.UPDATE.{name}", config)
