"""How workers of one port reach each other: by Unix sockets in a directory of their parent that nobody else may enter.

The parent notes there which worker is which process, as symbolic links from numbers to process ids, and each worker
listens on a socket that is called after its own. A question is a line, the path of what is asked for; the answer is
its length in a line, and that many bytes. Only what servers have put at a path can be had (`Siblings.serve`), and all
of it is to be read by whoever may read our files anyway.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from trioroom._net.siblings import Answer

log = logging.getLogger("trioroom.workers")

ROSTER_VARIABLE = "_TRIOROOM_ROSTER"
"""The environment variable by which workers get the directory, be they forks or new interpreters."""
_TIMEOUT = 1.0  # seconds a sibling may take: one that is stopped or stuck is told as down
_MAX_QUESTION_BYTES = 256
_MAX_ANSWER_BYTES = 16 << 20  # a scrape is some 30 KB
_READ_BYTES = 65_536
_BACKLOG = 16
_PREFIX = "trioroom-workers-"
_LOCK = "parent"  # a file that the parent holds locked as long as it lives

# -- the parent's side -----------------------------------------------------------------------------


@attrs.frozen
class Roster:
    """Who the workers are, in ``directory``; None is nowhere, as there was no place for it."""

    directory: Path | None

    def note(self, number: int, pid: int) -> None:
        """Worker ``number`` is this process from now on."""
        if self.directory is not None:
            new, link = self.directory / "new", self.directory / str(number)
            with suppress(OSError):  # there was none before
                os.unlink(_socket_of(self.directory, int(os.readlink(link))))  # one that was killed has left it
            with suppress(OSError):  # a full disk: then it is not asked
                new.unlink(missing_ok=True)
                new.symlink_to(str(pid))
                new.replace(link)  # at once: there is no moment without one


NO_ROSTER = Roster(None)


@contextmanager
def open_roster() -> Iterator[Roster]:
    """An empty one while the context is open, in which our environment tells processes that we start where it is."""
    with ExitStack() as stack:
        try:
            _remove_old_rosters()
            temporary = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            directory = stack.enter_context(temporary)
            stack.enter_context(_locked(Path(directory)))
        except OSError as exc:
            log.warning("each worker tells its own metrics only: no directory for the others: %s", exc)
            yield NO_ROSTER
            return
        os.environ[ROSTER_VARIABLE] = directory
        stack.callback(os.environ.pop, ROSTER_VARIABLE, None)
        yield Roster(Path(directory))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """As long as we live, however we end: the kernel lets go of the lock then."""
    unfinished = directory / "new"
    with open(unfinished, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unfinished.rename(directory / _LOCK)  # so there is never one that is not locked
        yield


def _remove_old_rosters() -> None:
    """Those of parents that were killed and could not."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # such as of one that lives
            if path.parent.lstat().st_uid != os.getuid():
                continue  # anybody may make one, with a FIFO that holds up whoever opens it
            with open(path, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent)


# -- a worker's side -------------------------------------------------------------------------------


class UnixSiblings:
    """The other workers in ``directory``, as the one with this ``pid`` sees them; made by `open_siblings`."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._pid = pid
        self._answers: dict[str, Answer] = {}

    @property
    def number(self) -> int:
        """Which of them we are; 0 while we are not noted, or not any more."""
        return next((number for number, pid in self._workers().items() if pid == self._pid), 0)

    def serve(self, path: str, answer: Answer) -> None:
        """See `trioroom._net.siblings.Siblings.serve`."""
        self._answers[path] = answer

    async def ask(self, path: str) -> dict[int, bytes | None]:
        """See `trioroom._net.siblings.Siblings.ask`."""
        others = {number: pid for number, pid in self._workers().items() if pid != self._pid}
        answers: dict[int, bytes | None] = dict.fromkeys(others)

        async def ask_one(number: int, pid: int) -> None:
            with trio.move_on_after(_TIMEOUT), suppress(OSError, trio.BrokenResourceError, ValueError):
                answers[number] = await _ask(_socket_of(self._directory, pid), path)

        async with trio.open_nursery() as nursery:
            for number, pid in others.items():
                nursery.start_soon(ask_one, number, pid)
        return answers

    def _workers(self) -> dict[int, int]:
        """Their process ids by their numbers."""
        try:
            links = [entry for entry in os.scandir(self._directory) if entry.name.isdigit()]
            pids = {int(link.name): int(os.readlink(link.path)) for link in links}
        except OSError:  # the parent is about to end
            return {}
        return dict(sorted(pids.items()))

    async def run(self, listener: trio.SocketListener) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(self._answer, [listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(_TIMEOUT):
                path = await _read_question(stream)
                if (answer := self._answers.get(path)) is not None:
                    told = await answer()
                    await stream.send_all(b"%d\n%b" % (len(told), told))
        except trio.BrokenResourceError:
            pass  # who asked has not waited
        except Exception:
            log.exception("no answer for another worker; please report this")


async def _read_question(stream: trio.SocketStream) -> str:
    question = bytearray()
    while not question.endswith(b"\n") and len(question) <= _MAX_QUESTION_BYTES:
        if not (more := await stream.receive_some(_MAX_QUESTION_BYTES)):
            break
        question += more
    return question.decode(errors="replace").removesuffix("\n")


def _socket_of(directory: Path, pid: int) -> str:
    return str(directory / f"{pid}.socket")


async def _ask(address: str, path: str) -> bytes:
    """The answer; OSError or ValueError if there is none."""
    async with await trio.open_unix_socket(address) as stream:
        await stream.send_all(path.encode() + b"\n")
        received = bytearray()
        while more := await stream.receive_some(_READ_BYTES):
            received += more
            if len(received) > _MAX_ANSWER_BYTES:
                raise ValueError("the answer is too long")
    length, _, answer = bytes(received).partition(b"\n")
    if int(length) != len(answer):
        raise ValueError("the answer is cut off")
    return answer


@asynccontextmanager
async def open_siblings() -> AsyncIterator[UnixSiblings | None]:
    """Those that our parent has noted, while the context is open; None if it has no roster."""
    directory = os.environ.get(ROSTER_VARIABLE)
    if directory is None:
        yield None
        return
    siblings, address = UnixSiblings(Path(directory), os.getpid()), _socket_of(Path(directory), os.getpid())
    try:
        listener = await _listen(address)
    except OSError as exc:
        log.warning("the other workers cannot ask this one for its metrics: %s", exc)
        yield siblings
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(siblings.run, listener)
            yield siblings
            nursery.cancel_scope.cancel()
    finally:
        with suppress(OSError):
            os.unlink(address)


async def _listen(address: str) -> trio.SocketListener:
    with suppress(FileNotFoundError):
        os.unlink(address)  # of a worker that was killed and had our process id
    sock = trio.socket.socket(socket.AF_UNIX)
    try:
        await sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)
