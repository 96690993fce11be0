"""The tree that images are made of, and the comparison of what a reader makes of it. Nothing here uses volio."""

import hashlib
import os
import random
import shutil
import stat
import subprocess

TIME_NS = 1_577_934_245_123_456_789
CAPABILITY = bytes([1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])


def settle(root):
    """Sets the mtime of everything, of directories after their contents."""
    for directory, directories, files in os.walk(root, topdown=False):
        for name in directories + files:
            os.utime(os.path.join(directory, name), ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    os.utime(root, ns=(TIME_NS, TIME_NS))


def make(root):
    """Makes a tree with every kind of entry and attribute, and a file of several chunks."""
    def at(*names):
        return os.path.join(root, *names)

    def write(name, content, mode=0o644):
        os.makedirs(os.path.dirname(at(name)), exist_ok=True)
        with open(at(name), "wb") as file:
            file.write(content)
        os.chmod(at(name), mode)

    noise = random.Random(1)
    write("file", b"a small file\n", 0o640)
    write("setuid", b"#!/bin/true\n", 0o4755)
    write("empty-file", b"")
    write("goes", b"the delta removes it\n")
    write("directory/goes/too", b"the delta removes its directory\n")
    write("directory/big", noise.randbytes(10 << 20))
    write("directory/text", b"a line that is compressed well\n" * 200_000)
    write("links/first", b"three names\n")
    write("n" * 255, b"the longest name\n")
    write("/".join(["directory", *["d" * 120] * 3, "leaf"]), b"a path longer than the fields of a tar header\n")
    write("spaces and 'quotes'", b"odd\n")
    write("ünïcödé ☃", b"more than ASCII\n")
    with open(os.fsencode(root) + b"/not-utf8-\xff", "wb") as file:
        file.write(b"a name that is not UTF-8\n")
    with open(at("sparse"), "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"between two holes")
    os.makedirs(at("empty"))
    os.makedirs(at("links/other"))
    os.link(at("links/first"), at("links/second"))
    os.link(at("links/first"), at("links/other/third"))
    for target, name in [("../file", "relative"), ("/nowhere/at all", "absolute"), (".", "itself")]:
        os.symlink(target, at("links", name))
    os.mkfifo(at("fifo"), 0o640)
    os.mknod(at("device"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(at("device"), 0o666)
    for name, mode in [("empty", 0o1777), ("links/other", 0o2775), ("links", 0o711), ("", 0o750)]:
        os.chmod(at(name), mode)
    for name, user, group in [("file", 1000, 1001), ("empty", 65534, 0), ("links/relative", 7, 8),
                              ("directory/text", 4_000_000, 5_000_000)]:
        os.chown(at(name), user, group, follow_symlinks=False)
    os.setxattr(at("file"), "user.test", b"\0binary\n=\xff")
    os.setxattr(at("empty"), "user.test", b"on a directory")
    os.setxattr(at("setuid"), "security.capability", CAPABILITY)
    settle(root)


def change(root):
    """Changes a tree of make(): removes, replaces, and adds."""
    os.remove(os.path.join(root, "goes"))
    shutil.rmtree(os.path.join(root, "directory/goes"))
    os.remove(os.path.join(root, "empty-file"))
    os.mkdir(os.path.join(root, "empty-file"))
    for name, content in [("file", b"changed\n"), ("new", b"new\n")]:
        with open(os.path.join(root, name), "wb") as file:
            file.write(content)
    settle(root)


def survey(root):
    """Returns all attributes of all entries: a dictionary by the paths in bytes."""
    root = os.fsencode(root)
    paths = [b""]
    for directory, directories, files in os.walk(root):
        paths += [os.path.relpath(os.path.join(directory, name), root) for name in directories + files]
    entries, first_names = {}, {}
    for path in sorted(paths):
        full = os.path.join(root, path) if path else root
        found = os.lstat(full)
        entry = {
            "kind": stat.S_IFMT(found.st_mode), "modes": stat.S_IMODE(found.st_mode),
            "owners": (found.st_uid, found.st_gid), "time": found.st_mtime_ns,
            "device": found.st_rdev if stat.S_ISCHR(found.st_mode) else 0,
            "xattrs": {}, "content": None, "hard links": None, "is_sparse": False,
        }
        if not stat.S_ISLNK(found.st_mode):
            for name in os.listxattr(full):
                if not name.startswith(("trusted.overlay.", "security.selinux")):
                    entry["xattrs"][name] = os.getxattr(full, name)
        if stat.S_ISREG(found.st_mode):
            with open(full, "rb") as file:
                entry["content"] = hashlib.file_digest(file, "sha256").digest()
            entry["is_sparse"] = found.st_blocks * 512 < found.st_size // 2
            entry["hard links"] = first_names.setdefault((found.st_dev, found.st_ino), path)
        elif stat.S_ISLNK(found.st_mode):
            entry["content"] = os.readlink(full)
        entries[path] = entry
    return entries


def differences(expected, actual):
    """Returns (what is wrong, what is lost): a text if names, kinds or contents differ, and the list of attributes that
    were not kept."""
    missing, extra = sorted(expected.keys() - actual.keys()), sorted(actual.keys() - expected.keys())
    special = [path for path in missing if expected[path]["kind"] in (stat.S_IFCHR, stat.S_IFIFO)]
    lost = set()
    if special:
        lost.add("devices and fifos")
    missing = [path for path in missing if path not in special]
    if missing or extra:
        names = [f"{os.fsdecode(path)[:40]!r}" for path in (missing or extra)]
        return f"{len(names)} entries {'are missing' if missing else 'too many'}: {', '.join(names[:2])}", []
    for path in expected.keys() & actual.keys():
        old, new = expected[path], actual[path]
        if (old["kind"], old["content"], old["device"]) != (new["kind"], new["content"], new["device"]):
            return f"{os.fsdecode(path)[:40]!r} has another kind or content", []
        lost |= {name for name in ("modes", "owners", "hard links") if old[name] != new[name]}
        if old["time"] // 10**9 != new["time"] // 10**9:
            link, directory = old["kind"] == stat.S_IFLNK, old["kind"] == stat.S_IFDIR
            lost.add("times of links" if link else "times of directories" if directory else "times")
        elif old["time"] != new["time"]:
            lost.add("fractions of seconds")
        if old["is_sparse"] and not new["is_sparse"]:
            lost.add("holes")
        for name in old["xattrs"].keys() | new["xattrs"].keys():
            if old["xattrs"].get(name) != new["xattrs"].get(name):
                lost.add("capabilities" if name == "security.capability" else f"xattrs `{name.split('.')[0]}.*`")
    return None, sorted(lost)


class Failed(Exception):
    """A program that failed, with the end of what it said."""


def run(arguments, expect=(0,), **options):
    """Runs a program. Returns its standard output."""
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, **options)
    if ended.returncode not in expect:
        said = (ended.stderr or ended.stdout).decode(errors="replace").strip().splitlines()
        raise Failed(said[-1] if said else f"exit code {ended.returncode}")
    return ended.stdout.decode(errors="surrogateescape").strip()
