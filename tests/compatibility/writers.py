"""Programs that write images, which volio reads. Each writes again what it read from a registry: two layers, with whiteouts."""

import os
import shutil

import readers
import trees
from readers import REGISTRY, Host


def docker(host, socket):
    def write(image, work):
        host.run("docker", "--host", socket, "pull", "--quiet", image["place"])
        host.run("docker", "--host", socket, "save", "--output", f"{work}/saved.tar", image["place"])
        host.run("docker", "--host", socket, "rmi", "--force", image["place"])
        return f"docker-archive:{work}/saved.tar"
    return write


def podman(host, compression):
    def write(image, work):
        to = f"{REGISTRY}/written:podman-{compression.replace(':', '-')}-{'13' if host.is_newer else '12'}"
        pulled = host.run("podman", "pull", "--quiet", "--tls-verify=false", f"docker://{image['place']}").splitlines()[-1]
        host.run("podman", "push", "--quiet", "--tls-verify=false", "--compression-format", compression, pulled, f"docker://{to}")
        host.run("podman", "rmi", "--all", "--force", expect=(0, 1, 125))
        return to
    return write


def podman_save(host):
    def write(image, work):
        pulled = host.run("podman", "pull", "--quiet", "--tls-verify=false", f"docker://{image['place']}").splitlines()[-1]
        host.run("podman", "save", "--quiet", "--format", "oci-archive", "--output", f"{work}/saved.tar", pulled)
        host.run("podman", "rmi", "--all", "--force", expect=(0, 1, 125))
        return f"oci-archive:{work}/saved.tar"
    return write


def buildah(host):
    def write(image, work):
        container = host.run("buildah", "from", "--quiet", "--tls-verify=false", f"docker://{image['place']}").splitlines()[-1]
        mounted = host.sees(host.run("buildah", "mount", container))
        with open(f"{mounted}/srv/data/written", "w") as file:
            file.write("by buildah\n")
        os.remove(f"{mounted}/srv/data/new")
        image["source"] = f"{work}/expected"
        trees.run(["cp", "-a", f"{mounted}/srv/data", image["source"]])
        host.run("buildah", "commit", "--quiet", container, f"oci:{work}/layout:tag")
        host.run("buildah", "rm", "--all", expect=(0, 1, 125))
        host.run("buildah", "rmi", "--all", "--force", expect=(0, 1, 125))
        return f"oci:{work}/layout:tag"
    return write


def skopeo(host, to, *options):
    def write(image, work):
        place = f"{to}:{work}/copied" + (":tag" if to == "oci" else "")
        host.run("skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", *options,
                 f"docker://{image['place']}", place)
        return place
    return write


def umoci(host):
    def write(image, work):
        shutil.copytree(image["layout of one platform"], f"{work}/layout")
        host.run("umoci", "unpack", "--image", f"{work}/layout:tag", f"{work}/bundle")
        with open(f"{work}/bundle/rootfs/srv/data/written", "w") as file:
            file.write("by umoci\n")
        os.remove(f"{work}/bundle/rootfs/srv/data/new")
        host.run("umoci", "repack", "--image", f"{work}/layout:tag", f"{work}/bundle")
        image["source"] = f"{work}/bundle/rootfs/srv/data"
        return f"oci:{work}/layout:tag"
    return write


def oras(host):
    def write(image, work):
        host.run("oras", "cp", "--no-tty", "--from-plain-http", "--to-oci-layout", image["place"], f"{work}/layout:tag")
        return f"oci:{work}/layout:tag"
    return write


def crane_flatten(image, work):
    trees.run(["crane", "flatten", "--insecure", "--platform", "linux/amd64", "--tag", f"{REGISTRY}/written:crane", image["place"]])
    return f"{REGISTRY}/written:crane"


def all_writers():
    """Returns triples of a name, a host, and a function that writes an image and returns its name for volio."""
    older, newer = Host(False), Host(True)
    for host, socket in [(older, os.environ.get("VOLIO_TEST_DOCKER_HOST")), (newer, os.environ.get("VOLIO_TEST_DOCKER_HOST_13"))]:
        if host.is_newer and not readers.TREE:
            continue
        if socket:
            yield "`docker save`", host, docker(host, socket)
        if host.has("podman"):
            yield "`podman push`, gzip", host, podman(host, "gzip")
            if host.is_newer:
                yield "`podman push`, zstd", host, podman(host, "zstd")
                yield "`podman push`, zstd:chunked", host, podman(host, "zstd:chunked")
            yield "`podman save`, oci-archive", host, podman_save(host)
        if host.has("buildah"):
            yield "`buildah commit`", host, buildah(host)
        if host.has("skopeo"):
            yield "`skopeo copy` to oci, zstd", host, skopeo(host, "oci", "--dest-compress", "--dest-compress-format", "zstd")
            yield "`skopeo copy` to docker-archive", host, skopeo(host, "docker-archive")
        if host.has("umoci"):
            yield "`umoci repack`", host, umoci(host)
        if host.has("oras"):
            yield "`oras cp`", host, oras(host)
    if shutil.which("crane"):
        yield "`crane flatten`", None, crane_flatten


def judge(volio, image, place, work):
    """What each command of volio makes of the image: pairs of answer and remark, by the name of the command."""
    expected = trees.survey(image["source"])
    target = f"{work}/target"

    def unpack():
        volio("unpack", "--quiet", "--platform", "linux/amd64", place, target)
        return trees.differences(expected, trees.survey(f"{target}/srv/data"))

    def listing():
        listed = volio("ls", "-R", "--quiet", "--platform", "linux/amd64", place).splitlines()
        count = sum(1 for line in listed if line.startswith("/srv/data"))
        return (None if count == len(expected) else f"{count} entries instead of {len(expected)}"), []

    def cat():
        content = volio("cat", "--quiet", "--platform", "linux/amd64", place, "/srv/data/directory/text")
        wanted = open(f"{image['source']}/directory/text").read().strip()
        return (None if content == wanted else "another content"), []

    def diff():
        volio("diff", "--quiet", "--platform", "linux/amd64", place, target)
        return None, []

    def verify():
        volio("verify", "--quiet", place)
        return None, []

    for name, check in [("unpack", unpack), ("ls", listing), ("cat", cat), ("diff", diff), ("verify", verify)]:
        try:
            wrong, lost = check()
        except trees.Failed as error:
            wrong, lost = str(error), []
        yield name, ("no", wrong) if wrong else ("yes", f"without {', '.join(lost)}" if lost else None)
