"""Copies of a data set in which something changed, as a tool finds them at its second run."""

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4 << 10  # bytes that a change of a file replaces; fewer in a smaller file
BLOCKS = 10  # of the largest file


@dataclass(frozen=True)
class Change:
    """A change of a tree. `apply` gets the tree and a source of random numbers, and returns the paths with new content.
    The data sets are those for which it is measured unless others are asked for."""
    title: str
    apply: object
    sets: tuple


def regular_files(tree):
    """Returns the regular files of a tree in the order of their names."""
    found = []
    for above, _, names in os.walk(tree):
        found += [path for name in names if (path := Path(above, name)).is_file() and not path.is_symlink()]
    return sorted(found)


def largest_file(tree):
    return max(regular_files(tree), key=lambda path: path.stat().st_size)


def sample(tree, share, numbers):
    """Returns this share of the files; of few files the largest one."""
    files = regular_files(tree)
    count = round(len(files) * share)
    return numbers.sample(files, count) if count else [largest_file(tree)]


def replace_block(path, numbers):
    """Replaces a block at a random place with noise. An empty file gets some bytes."""
    size = path.stat().st_size
    length = min(BLOCK, size) or 100
    with path.open("r+b") as file:
        file.seek(numbers.randrange(max(1, size - length + 1)))
        file.write(numbers.randbytes(length))


def change_files(share):
    def apply(tree, numbers):
        chosen = sample(tree, share, numbers)
        for path in chosen:
            replace_block(path, numbers)
        return chosen
    return apply


def change_blocks(tree, numbers):
    """Replaces ten blocks of the largest file."""
    largest = largest_file(tree)
    for _ in range(BLOCKS):
        replace_block(largest, numbers)
    return [largest]


def add_files(tree, numbers):
    """Adds one per cent of files. Each has the content of another one backwards, so that it compresses as well."""
    added = []
    for number, path in enumerate(sample(tree, 0.01, numbers)):
        added.append(path.with_name(f"added-{number}"))
        added[-1].write_bytes(path.read_bytes()[::-1])
    return added


def rename_files(tree, numbers):
    """Moves one per cent of the files to another directory. An archive has their content once more."""
    directory = tree / "renamed"
    directory.mkdir()
    return [path.rename(directory / f"{number}-{path.name}")
            for number, path in enumerate(sample(tree, 0.01, numbers))]


def delete_files(tree, numbers):
    for path in sample(tree, 0.01, numbers):
        path.unlink()
    return []


CHANGES = {
    "0": Change("0 % of the files changed", lambda tree, numbers: [], ("files", "pg", "random", "many")),
    "1": Change("1 % of the files changed", change_files(0.01), ("files", "pg", "many")),
    "10": Change("10 % of the files changed", change_files(0.10), ("files", "pg")),
    "blocks": Change("ten blocks of 4 KiB changed", change_blocks, ("random",)),
    "added": Change("1 % of files added", add_files, ("files",)),
    "renamed": Change("1 % of the files moved", rename_files, ("files", "random")),
    "deleted": Change("1 % of the files deleted", delete_files, ("files",)),
}


def make_many(directory, quick):
    """Makes 250 000 files of some bytes in 2500 directories. Their mtimes are a second apart: those of the last two seconds
    prove nothing, and such files would be read."""
    for number in range(25_000 if quick else 250_000):
        if number % 100 == 0:
            below = directory / f"{number // 10_000:02}" / f"directory-{number // 100 % 100:02}"
            below.mkdir(parents=True)
        path = below / f"file-{number}"
        path.write_text(f"the content of the file {number}\n")
        os.utime(path, (1_600_000_000 + number,) * 2)


def make_changed(source, name, parent):
    """Returns a copy of a tree with this change, and the number and size of the files with new content, also as
    `tar | zstd -3` compresses them alone. The same source and name give the same changes."""
    tree = parent / f"{source.name}-{name}"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", source, tree], check=True)
    changed = CHANGES[name].apply(tree, random.Random(f"{source.name} {name}"))
    names = b"".join(os.fsencode(path.relative_to(tree)) + b"\0" for path in changed)
    archive = subprocess.run(["bash", "-o", "pipefail", "-c", f"tar -cf - -C '{tree}' --null -T - | zstd -q -3 | wc -c"],
                             input=names, stdout=subprocess.PIPE, check=True)
    return tree, {
        "files": len(changed), "bytes": sum(path.stat().st_size for path in changed),
        "compressed": int(archive.stdout) if changed else 0,
    }
