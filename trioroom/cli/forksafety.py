"""Whether workers may be forks of a process that has imported the application."""

from __future__ import annotations

import os
import stat

_STDIO = 3  # descriptors that are not the application's: standard input, output and error


def reason_of_system() -> str | None:
    """Why workers must be new interpreters on this system, as the end of a sentence; None if there forks may do."""
    if not _has_pidfds():
        return "this system has no pidfds"  # macOS neither, where a fork without exec breaks libraries of the system
    if not os.path.isdir("/proc/self/fd"):
        return "without /proc nobody knows what threads and sockets importing the application has left"
    return None


def reason_against_forks() -> str | None:
    """Why this process, which has imported the application, must not fork; None if it may.

    Call it where Trio does not run: Trio has threads and sockets of its own.
    """
    if (reason := reason_of_system()) is not None:
        return reason
    if len(os.listdir("/proc/self/task")) > 1:  # those of C libraries too, of which `threading` knows nothing
        return "importing the application has started threads"
    if _has_sockets():
        return "importing the application has opened sockets"
    return None


def _has_pidfds() -> bool:
    """Linux has had them since 5.3; some sandboxes have not."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _has_sockets() -> bool:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if descriptor >= _STDIO and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return True
        except OSError:
            continue  # the one that listed them
    return False
