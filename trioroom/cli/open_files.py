"""How many files the command may open: each connection is one."""

from __future__ import annotations

import resource


def raise_limit_of_open_files() -> None:
    """From the soft limit to the hard one, as far as the system lets us; children inherit it.

    The soft limit is mostly 1,024 for the sake of programs that use select(2), which trioroom does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass  # macOS: the hard limit is infinite, and the kernel's own bound is somewhere below
