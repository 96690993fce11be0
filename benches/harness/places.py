"""Directories to work in: temporary ones, new file systems to write to, and environments without the user's state."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .measuring import MIB
from .programs import say


def hide_host():
    """Enters a mount namespace that hides the host's container state: engines keep a cache of the locations of blobs
    in a directory that no option moves."""
    if os.geteuid() == 0 and "VOLIO_BENCH_NAMESPACE" not in os.environ:
        os.environ["VOLIO_BENCH_NAMESPACE"] = "own"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def make_places(stack):
    """Makes a directory on a disk and one in memory, which are removed when the stack is left."""
    work = Path(tempfile.mkdtemp(prefix="volio-bench.", dir="/var/tmp"))
    work.chmod(0o711)  # PostgreSQL works as another user
    stack.callback(remove, work)
    memory = Path(tempfile.mkdtemp(prefix="volio-bench.", dir="/dev/shm"))
    stack.callback(shutil.rmtree, memory, True)
    if os.geteuid() == 0:
        hidden = work / "hidden"
        hidden.mkdir()
        Path("/var/lib/containers").mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", hidden, "/var/lib/containers"], check=True)
    return work, memory


class Target:
    """The directory that is unpacked to: on a new ext4 in memory, or an existing directory."""

    def __init__(self, chosen, work, memory):
        self.memory = memory
        self.path = (chosen or work) / "volio-bench.out"
        self.is_new = chosen is None and os.geteuid() == 0

    def clear(self):
        """Makes it empty."""
        remove(self.path)
        self.path.mkdir()
        if self.is_new:
            self.mount_new()

    def mount_new(self):
        """Mounts a new ext4 in memory. After many files were deleted, an ext4 searches long
        for free inodes: making small files then took ten times as long (measured), with every tool."""
        image = self.memory / "target"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(6144 * MIB)
        try:
            subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, self.path], check=True)
            (self.path / "lost+found").rmdir()
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"no new file system can be made, so the one of {self.path} is used: {error}")
            self.is_new = False


def make_environment(state, host):
    """Makes an empty directory for the state of tools, and an environment without the user's caches and credentials.
    `host` is a registry without TLS."""
    remove(state)
    state.mkdir()
    (state / "tmp").mkdir()
    files = {
        "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{state}/root"\nrunroot = "{state}/run"\n',
        "registries.conf": f'[[registry]]\nlocation = "{host}"\ninsecure = true\n',
        "containers.conf": f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
                           f'tmp_dir = "{state}/libpod"\n',
        ".config/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
    }
    for name, text in files.items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(text)
    return {
        "PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(state), "TMPDIR": f"{state}/tmp",
        "CONTAINERS_CONF": f"{state}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{state}/storage.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{state}/registries.conf", "XDG_RUNTIME_DIR": f"{state}/tmp",
        "STATE": str(state),
    }


def remove(directory):
    """Unmounts everything in a directory and removes it."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        mounted = line.split()[1]
        if mounted == str(directory) or mounted.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", mounted], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def warm(memory, quick):
    """Touches the memory that will be used. A virtual machine gets memory from its host page by page, on the
    first use and after it was free for long: files then took five times as long to write (measured), with every tool."""
    path = memory / "warm"
    with path.open("wb") as file:
        for _ in range(256 if quick else 6144):
            file.write(bytes(MIB))
    path.unlink()
