"""What a server tells its operator: lines to read or, with ``--log-format json``, one JSON object for each record.

Whatever a line of standard error may come from is a record then: log calls, warnings, exceptions that nobody caught,
in threads and destructors too, and what `say` prints elsewhere. A record is one line and one write, so that the lines
of several processes in one pipe stay whole.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger("trioroom.server")

_NOT_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_OURS = ("time", "level", "logger", "exception", "stack")  # and those above, which `logging` itself refuses


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII, with what the call has given as ``extra`` for fields.

    ASCII, as standard error may have any encoding; and so a line holds no control character either, and nothing that
    some reader would take for the end of a line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._encoder = json.JSONEncoder(separators=(",", ":"))

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "time": time.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        for name, value in vars(record).items():
            if name not in _NOT_FIELDS and value is not None:
                fields[name + "_" if name in _OURS else name] = _plain(value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return self._encoder.encode(fields).replace("\x7f", "\\u007f")  # DEL is ASCII, and a control character


def _plain(value: object) -> object:
    """``value`` as JSON has it: what it has no word for is text."""
    match value:
        case None | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
    return str(value)


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes each record to ``stream`` at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of a call that cannot be logged, such as one with too few arguments, in a record of its own."""
        with suppress(Exception):  # if standard error takes nothing any more there is nobody to tell
            failed = logging.LogRecord(
                record.name, logging.ERROR, record.pathname, record.lineno,
                "a log call in %s, line %d, failed: %.1000r", (record.pathname, record.lineno, record.msg),
                sys.exc_info(),
            )  # fmt: skip
            self.stream.write(self.format(failed) + self.terminator)
            self.flush()


def log_as_json() -> None:
    """From now on, whatever this process tells is JSON on standard error; INFO and above unless `set_level` follows."""
    if logs_are_json():
        return
    logging.root.addHandler(JsonHandler(sys.stderr))
    logging.root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_uncaught_in_thread


def logs_are_json() -> bool:
    """Whether `log_as_json` was called, and the application has not put logs of its own in place of ours since."""
    return any(isinstance(handler, JsonHandler) for handler in logging.root.handlers)


def set_up(level: str, *, tells_process: bool) -> None:
    """Log what is of ``level``, as JSON or as text; nothing if the application has set up text logs of its own.

    Args:
        tells_process: lines of text have the process id; JSON has it always.
    """
    if logs_are_json():
        return logging.root.setLevel(level.upper())
    pid = " [%(process)d]" if tells_process else ""
    logging.basicConfig(level=level.upper(), format=f"%(asctime)s{pid} %(levelname)s %(name)s: %(message)s")


def say(message: str, **fields: object) -> None:
    """A line on standard output; where logs are JSON a record, for the two often end in one file."""
    if logs_are_json():
        log.info(message, extra=fields)
    else:
        with suppress(OSError):  # the terminal, or who reads the pipe, is gone; that is not to end us amid a drain
            click.echo(message)


def tell(logger: logging.Logger, message: str, text: str, field: str) -> None:
    """Log ``text`` of several lines: in JSON as a field of its own, else below the message."""
    if logs_are_json():
        logger.info(message, extra={field: text})
    else:
        logger.info("%s\n%s", message, text)


def raise_or_log(failure: click.ClickException | click.exceptions.Exit) -> None:
    """End the command as ``failure`` does, which click prints as text; where logs are JSON, it is a record."""
    if logs_are_json() and isinstance(failure, click.ClickException):
        log.error(failure.format_message(), extra={"exit_code": failure.exit_code})
        raise click.exceptions.Exit(failure.exit_code)
    raise failure


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("uncaught %s; the process ends", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:  # as Python's own hook
        return
    error = args.exc_value or args.exc_type()
    name = args.thread.name if args.thread is not None else "?"
    log.error("uncaught %s in thread %s", args.exc_type.__name__, name, exc_info=error)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value or unraisable.exc_type()
    log.error("%s %.200r", unraisable.err_msg or "exception ignored in", unraisable.object, exc_info=error)
