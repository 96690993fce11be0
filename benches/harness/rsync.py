"""An rsync daemon on the loopback interface."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

from .measuring import bytes_read

READY_SECONDS = 60  # the time for the daemon to become ready, and for its children to end


class Daemon:
    """A daemon with the modules `trees`, which is read-only, and `to`."""

    def __init__(self, work, trees, to):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        owner = "" if os.geteuid() else "uid = root\ngid = root\n"
        config = work / "rsyncd.conf"
        config.write_text(f"{owner}use chroot = no\nhosts allow = 127.0.0.1\n"
                          f"[trees]\npath = {trees}\nread only = yes\n[to]\npath = {to}\nread only = no\n")
        self.address = f"rsync://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={config}",
             f"--log-file={work / 'rsyncd.log'}"], stdin=subprocess.DEVNULL)
        self.wait_until(lambda: subprocess.run(["rsync", f"{self.address}/"], capture_output=True, check=False).returncode == 0)

    def wait_until(self, condition):
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the rsync daemon does not start or does not end a transfer")
            time.sleep(0.01)

    def usage(self):
        """Returns the CPU seconds and the bytes read by all transfers so far. Waits until the last one has ended."""
        process = self.process.pid
        self.wait_until(lambda: not Path(f"/proc/{process}/task/{process}/children").read_text().strip())
        times = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:15]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), bytes_read(process) or 0

    @staticmethod
    def transferred(statistics):
        """Returns the bytes of both directions from the output of `rsync --stats`."""
        found = re.findall(r"^Total bytes (?:sent|received): ([\d,.]+)", statistics, re.MULTILINE)
        return sum(int(re.sub(r"\D", "", number)) for number in found) if found else None

    def stop(self):
        self.process.terminate()
        self.process.wait()
