"""What this machine has, and what processes use of it, as far as the system tells: proc(5) on Linux."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import attrs

_TICKS = os.sysconf("SC_CLK_TCK")  # of a second, in which the kernel counts a process's time
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTEN = "0A"  # in /proc/net/tcp
_PROC = Path("/proc")
_DEFAULT_PORTS = (49_152, 65_535)  # RFC 6335 §6, where the system does not say


@attrs.frozen(kw_only=True)
class Machine:
    """What bounds a run."""

    open_files: int
    """That a process may have."""
    ports: int
    """For connections from one address to one port."""
    memory: int | None
    """Bytes that are free, or would be for the asking; None where the system does not tell."""
    cpus: int
    """That this process may run on."""
    description: str
    """For the reader of a report."""


def look_at_machine() -> Machine:
    """As it is now."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    low, high = _DEFAULT_PORTS
    if found := re.findall(r"\d+", _read("/proc/sys/net/ipv4/ip_local_port_range")):
        low, high = int(found[0]), int(found[1])
    available = re.search(r"MemAvailable:\s+(\d+)", _read("/proc/meminfo"))
    return Machine(
        open_files=sys.maxsize if files == resource.RLIM_INFINITY else files,
        ports=high - low + 1,
        memory=int(available[1]) * 1024 if available else None,
        cpus=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        description=f"{platform.platform()}, Python {platform.python_version()}",
    )


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process, this one unless told; where the system does not tell, the most it had, or 0 of others."""
    found = re.search(r"VmRSS:\s+(\d+) kB", _read(f"/proc/{pid or 'self'}/status"))
    if found is not None:
        return int(found[1]) * 1024
    if pid is not None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cpu_seconds(pid: int) -> float:
    """What a process has used, in user and kernel mode; 0 when it has ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def kernel_bytes() -> int:
    """What the kernel holds for sockets of the whole machine: buffers, and its own objects, which only grow with them
    while nothing else does much."""
    buffers = re.search(r"TCP: .* mem (\d+)", _read("/proc/net/sockstat"))
    objects = re.search(r"SUnreclaim:\s+(\d+)", _read("/proc/meminfo"))
    return (int(buffers[1]) * _PAGE if buffers else 0) + (int(objects[1]) * 1024 if objects else 0)


def listeners(ports: Collection[int]) -> tuple[int, ...]:
    """Processes of this machine that listen on one of these ports and that we may look at."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(ports)}
    if not wanted:
        return ()
    return tuple(sorted(pid for pid in _processes() if not wanted.isdisjoint(_open_files(pid))))


def _listening_inodes(ports: Collection[int]) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in _read(f"/proc/net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) in ports:
                yield fields[9]


def _processes() -> Iterable[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()] if _PROC.is_dir() else []


def _open_files(pid: int) -> Iterator[str]:
    try:
        for path in (_PROC / str(pid) / "fd").iterdir():
            yield os.readlink(path)
    except OSError:
        return  # it has ended, or is somebody else's


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
