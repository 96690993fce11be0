"""Programs: those of Debian, which are installed where they are missing, and volio, which is built."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def say(text):
    print(f"benches/{Path(sys.argv[0]).name}: {text}", file=sys.stderr)


def build(command):
    """Runs a program of the Rust toolchain and returns its output."""
    command = ["bash", "-c", '. tests/toolchain; "$@"', "-", *command]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def build_volio():
    messages = build(["cargo", "build", "--release", "--locked", "--bin", "volio",
                      "--message-format=json-render-diagnostics"])
    return next(found[1] for found in re.finditer(r'"executable":"([^"]+/volio)"', messages))


def describe_machine(volio, packages):
    """Describes the processor, the kernel, the load, and the versions of volio and of these packages in one line."""
    version = lambda *command: subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = sorted(set(packages)) if shutil.which("dpkg-query") else []
    versions = version("dpkg-query", "--show", "--showformat", "${Package} ${Version}, ", *packages) if packages else ""
    return (f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
            f"Linux {platform.release()}; load before: {os.getloadavg()[0]:.1f}. "
            f"{version(volio, '--version').strip()}, {versions.rstrip(', ')}.")


def install(packages):
    """Installs the packages of missing programs. `packages` has their names by the names of the programs."""
    missing = sorted({package for program, package in packages.items() if not present(program)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say(f"not installed, because that takes root and Debian: {', '.join(missing)}")
        return
    say(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Servers in the packages must not start on the host.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "--no-remove", *missing]):
            subprocess.run(["apt-get", "--quiet=2", *command], env=environment, check=False, stdout=sys.stderr)
    finally:
        if ours:
            policy.unlink()


def present(program):
    return shutil.which(program) or (program == "pgbench" and any(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
