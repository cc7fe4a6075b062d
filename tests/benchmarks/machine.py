"""What a benchmark ran on, in a few words for its page."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """System, processor and cores."""
    return f"{platform.system()} {platform.release()}, {_processor()}, {os.cpu_count()} CPUs"


def _processor() -> str:
    """Its model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.machine())
