"""Registries with their blobs in memory."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

from .programs import build

READY_SECONDS = 60  # the time for a service to become ready; only a broken one takes that long


class Registry:
    """A running registry with its blobs in memory."""

    def __init__(self, name, host, directory, process):
        self.name, self.host, self.directory, self.process = name, host, directory, process

    def get(self, path, method="GET", data=None):
        accept = ", ".join((
            "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",  # what crane pushes
        ))
        request = urllib.request.Request(f"http://{self.host}{path}", data, {"accept": accept}, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.headers, answer.read()

    def traffic(self):
        """Returns the bytes transferred so far; None if the registry does not count them."""
        if self.name != "fast":
            return None
        return sum(json.loads(self.get("/-/traffic")[1]).values())

    def mark(self):
        """Remembers the images of now for rewind()."""
        self.get("/-/mark", "POST", b"")

    def rewind(self):
        """Forgets the images that came after mark(), so that the same change can be sent again."""
        self.get("/-/rewind", "POST", b"")

    def clear(self):
        """Deletes everything, so that the next pack has to send all blobs."""
        if self.name == "fast":
            self.get("/-/blobs", "DELETE")
        else:
            shutil.rmtree(self.directory / "docker", ignore_errors=True)

    def manifest(self, repository, tag="v1"):
        """Returns the manifest of an image, the first one if there are several."""
        document = json.loads(self.get(f"/v2/{repository}/manifests/{tag}")[1])
        if "manifests" in document:
            digest = document["manifests"][0]["digest"]
            document = json.loads(self.get(f"/v2/{repository}/manifests/{digest}")[1])
        return document

    def layers(self, repository):
        """Returns the digests of the layers of an image."""
        return [layer["digest"] for layer in self.manifest(repository)["layers"]]

    def address_for(self, digest):
        """Returns the URL for the upload of a blob to the repository `bare`."""
        headers, _ = self.get("/v2/bare/blobs/uploads/", "POST", b"")
        location = headers["location"]
        address = location if "://" in location else f"http://{self.host}{location}"
        return f"{address}{'&' if '?' in address else '?'}digest={digest}"


def start_registry(name, command, pattern, directory, logs):
    """Starts a registry and waits until it prints its address."""
    path = logs / f"registry-{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, path.read_text(errors="replace")):
            return Registry(name, found[1], directory, process)
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the registry {name} does not start: {path.read_text(errors='replace')[-500:]}")


def start_fast(memory, state, logs):
    """Starts the registry that is not the bottleneck."""
    directory = memory / "fast"
    return start_registry("fast", [build_registry(state), str(directory)], r"^(127\.\S+)\n", directory, logs)


def start_debian(memory, state, logs):
    """Starts Debian's registry."""
    directory = memory / "debian"
    config = state / "registry.yml"
    config.write_text("version: 0.1\nlog: {level: info}\nhttp: {addr: '127.0.0.1:0'}\n"
                      f"storage: {{filesystem: {{rootdirectory: {directory}}}, delete: {{enabled: true}}}}\n")
    return start_registry("debian", ["docker-registry", "serve", str(config)],
                          r"listening on (127\.0\.0\.1:\d+)", directory, logs)


def build_registry(directory):
    build(["rustc", "--edition", "2024", "-C", "opt-level=3", "-o", directory / "registry", "benches/registry.rs"])
    return str(directory / "registry")
