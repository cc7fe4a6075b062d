"""A terminal that a command has for itself while it runs: what it shows, which keys are pressed, how large it is.

Plain ANSI. What was there before comes back in the end, whatever ends it: a key, a signal, an error.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_UNKNOWN_SIZE = (80, 24)
_QUIT = (b"q", b"Q", b"\x03", b"\x04")  # with Ctrl-C and Ctrl-D, where those are no signals


class Screen:
    """Made by `open_screen`."""

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before = None if self._keys is None else termios.tcgetattr(self._keys)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return _UNKNOWN_SIZE
        return found if found.columns and found.lines else _UNKNOWN_SIZE  # some consoles say that they have none

    def draw(self, lines: Sequence[str]) -> None:
        """Show these instead of what is there."""
        body = f"{_REST_OF_LINE}\r\n".join(lines[: self.size[1]])
        _write(f"{_HOME}{body}{_REST_OF_LINE}{_REST_OF_SCREEN}")

    async def run_until_quit(self, redraw: Callable[[], None]) -> None:
        """Until a key or a signal says so; ``redraw`` is called when the size is another one."""
        async with trio.open_nursery() as nursery:

            async def heed_keys() -> None:
                await self._wait_for_quit_key()
                nursery.cancel_scope.cancel()

            nursery.start_soon(heed_keys)
            await self._heed_signals(redraw)
            nursery.cancel_scope.cancel()

    async def _wait_for_quit_key(self) -> None:
        if self._keys is None:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(self._keys)
            pressed = os.read(self._keys, 1024)
            if not pressed or any(key in pressed for key in _QUIT):
                return

    async def _heed_signals(self, redraw: Callable[[], None]) -> None:
        heeded = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP
        with trio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                if number == signal.SIGTSTP:  # Ctrl-Z: the shell is to find its screen, and we ours afterwards
                    self.leave()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self.enter()
                elif number != signal.SIGWINCH:
                    return
                redraw()

    def enter(self) -> None:
        """Take the terminal."""
        if self._keys is not None:
            tty.setcbreak(self._keys)
        _write(_ENTER)

    def leave(self) -> None:
        """Give it back as it was."""
        try:
            _write(_LEAVE)
            if self._keys is not None:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before or [])
        except (OSError, termios.error):
            pass  # its window has been closed: there is nobody to give it back to


@contextmanager
def open_screen() -> Iterator[Screen]:
    """The terminal of standard output, for as long as the context is open."""
    screen = Screen()
    screen.enter()
    try:
        yield screen
    finally:
        screen.leave()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
