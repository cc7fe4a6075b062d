"""How a child process ended, in words."""

from __future__ import annotations

import signal


def describe_exit(code: int) -> str:
    """``exit code 3``, or ``SIGKILL`` for -9: a return code as `subprocess` gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
