"""The data sets: a PostgreSQL directory, small files, and one file that does not compress."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from .measuring import MIB
from .programs import say


def make_random(directory, quick):
    """Makes a file that does not compress."""
    noise = random.Random(7)
    with (directory / "noise").open("wb") as file:
        for _ in range(64 if quick else 1024):
            file.write(noise.randbytes(MIB))


def make_files(directory, quick):
    """Makes small files: the first ones of /usr, in the order of their names."""
    left = 2_000 if quick else 20_000
    for above, directories, names in os.walk("/usr"):
        directories.sort()
        for name in sorted(names):
            source = Path(above, name)
            if source.is_symlink() or not source.is_file() or source.stat().st_size > 256 << 10:
                continue
            target = directory / source.relative_to("/usr")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            left -= 1
            if left == 0:
                return


def make_pg(directory, quick):
    """Makes a PostgreSQL data directory with pgbench, and shuts it down cleanly."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    data = directory / "data"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    postgres = lambda *command: subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, cwd="/",
                                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    postgres(f"{binaries}/initdb", "--pgdata", data, "--no-sync")
    # A separate socket and no port, so that a running server is not affected.
    socket = tempfile.mkdtemp(prefix="volio-pg.")
    shutil.chown(socket, "postgres", "postgres")
    server = f"-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off"
    postgres(f"{binaries}/pg_ctl", "--pgdata", data, "--wait", "--log", f"{socket}/log", "--options", server, "start")
    try:
        postgres(f"{binaries}/pgbench", "-i", "-q", "-s", "4" if quick else "40", "-h", socket, "postgres")
    finally:
        postgres(f"{binaries}/pg_ctl", "--pgdata", data, "--wait", "stop")
        shutil.rmtree(socket)


SETS = {
    "pg": ("PostgreSQL data directory", make_pg),
    "files": ("small files", make_files),
    "random": ("incompressible file", make_random),
}


def make_set(name, parent, quick, sets=SETS):
    """Makes a data set of `sets`, or takes an existing one, and reads all of it into the page cache."""
    directory = parent / (f"{name}-quick" if quick else name)
    ready = directory.with_name(directory.name + ".ready")
    if not ready.exists():
        say(f"making the data set {directory.name}")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        sets[name][1](directory, quick)
        subprocess.run(["sync", "--file-system", directory], check=True)
        ready.touch()
    subprocess.run(["tar", "-cf", "/dev/zero", directory], check=True, stderr=subprocess.DEVNULL)
    files = [path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return directory, f"{sets[name][0]} ({len(files)} files, {sum(files) / MIB:.0f} MiB)"
