"""Runs of scripts, and their costs."""

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


class Failed(Exception):
    """A script failed; with the end of its output."""


@dataclass
class Cost:
    """The cost of one run: seconds, seconds of all cores, and bytes. `read` are the bytes of all system calls that read
    files or pipes (`rchar` of /proc/PID/io), from the page cache or from the disk; `recv` of sockets is not among them."""
    wall: float
    cpu: float
    memory: int
    disk: int
    read: int | None = None
    wire: int | None = None


def run(script, environment, log):
    """Runs a script and returns its cost with that of all its processes. The largest process counts as its
    memory; writes to files that are not in memory count as its disk."""
    begin = time.monotonic()
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], env=environment, cwd=environment["STATE"],
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - begin
    read = bytes_read(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(Path(log.name).read_text(errors="replace")[-400:].strip())
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, usage.ru_oublock * 512, read)


def bytes_read(process):
    """Returns the bytes that a process and its children that ended have read; None where the kernel does not count them."""
    try:
        for line in Path(f"/proc/{process}/io").read_text().splitlines():
            if line.startswith("rchar: "):
                return int(line.split()[1])
    except OSError:
        pass
    return None


def median(costs):
    """Returns the median of each figure."""
    def middle(field):
        values = [getattr(cost, field) for cost in costs]
        return None if None in values else statistics.median(values)
    return Cost(*(middle(field) for field in ("wall", "cpu", "memory", "disk", "read", "wire")))
