"""Programs that read images of volio. Each makes a directory of an image."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile

from trees import Failed, run

REGISTRY = os.environ["VOLIO_TEST_REGISTRY"]
TREE = os.environ.get("VOLIO_TEST_DEBIAN13", "")
NEWER = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"], "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF"):
    NEWER[name] = os.environ.get(f"{name}_13", "")


class Host:
    """The programs of this system, or those of Debian 13 by chroot."""

    def __init__(self, is_newer):
        self.is_newer = is_newer
        self.label = "Debian 13" if is_newer else "Debian 12"

    def run(self, *arguments, **options):
        if self.is_newer:
            return run(["chroot", TREE, *arguments], env=NEWER, **options)
        return run(arguments, **options)

    def pull(self, *command, image):
        """Runs a command of podman or buildah whose last argument is an image."""
        if image["kind"] != "oci" or self.is_newer:
            return self.run(*command, reference(image))
        # The older ones make a name of the place, and refuse one with capitals.
        directory, name = os.path.split(image["place"])
        return self.run(*command, f"oci:{name}", cwd=directory)

    def sees(self, path):
        """The place, for this script, of what the programs mount or write at a path."""
        return f"{TREE}{path}" if self.is_newer else path

    def has(self, program):
        return bool(shutil.which(program, path=f"{TREE}/usr/bin:{TREE}/usr/sbin:{TREE}/bin" if self.is_newer else None))


def reference(image):
    """The image as skopeo, podman and buildah name it."""
    kind, place = image["kind"], image["place"]
    return f"docker://{place}" if kind == "registry" else f"{kind}:{place}"


def blob_of(layout, descriptor):
    return os.path.join(layout, "blobs", *descriptor["digest"].split(":"))


def manifest_of(layout):
    """The manifest of the image for linux/amd64 in a layout."""
    document = json.load(open(os.path.join(layout, "index.json")))
    while "manifests" in document:
        of_platform = [found for found in document["manifests"]
                       if found.get("platform", {}).get("architecture", "amd64") == "amd64"]
        document = json.load(open(blob_of(layout, of_platform[0])))
    return document


def layers_of(layout):
    """The layers of the image for linux/amd64 in a layout: pairs of media type and file."""
    return [(layer["mediaType"], blob_of(layout, layer)) for layer in manifest_of(layout)["layers"]]


def untarred(archive, work):
    """The layout in an oci-archive."""
    os.makedirs(f"{work}/untarred")
    run(["tar", "-xf", archive, "-C", f"{work}/untarred"])
    return f"{work}/untarred"


def archive_layers(archive, work):
    """The layers of an archive of docker save, lowest first."""
    unpacked = os.path.join(work, "saved")
    os.makedirs(unpacked)
    run(["tar", "-xf", archive, "-C", unpacked])
    [image] = json.load(open(os.path.join(unpacked, "manifest.json")))
    return [("tar", os.path.join(unpacked, layer)) for layer in image["Layers"]]


def apply(layers, work, extract):
    """Extracts layers one after the other, as the specification says: whiteouts of a layer first."""
    root = os.path.join(work, "root")
    os.makedirs(root)
    for number, (media_type, blob) in enumerate(layers):
        plain = os.path.join(work, f"layer-{number}.tar")
        with open(plain, "wb") as to:
            if media_type.endswith("zstd"):
                subprocess.run(["zstd", "-dcq", blob], stdout=to, check=True)
            elif media_type.endswith("gzip"):
                shutil.copyfileobj(gzip.open(blob), to)
            else:
                shutil.copyfileobj(open(blob, "rb"), to)
        with tarfile.open(plain) as archive:
            for member in archive:
                directory, name = os.path.split(member.name)
                if name.startswith(".wh."):
                    hidden = os.path.join(root, directory, name[4:])
                    if os.path.isdir(hidden) and not os.path.islink(hidden):
                        shutil.rmtree(hidden)
                    elif os.path.lexists(hidden):
                        os.remove(hidden)
                elif not member.isdir() and os.path.isdir(os.path.join(root, member.name)):
                    shutil.rmtree(os.path.join(root, member.name))
                elif member.isdir() and os.path.isfile(os.path.join(root, member.name)):
                    os.remove(os.path.join(root, member.name))
        extract(plain, root)
        for directory, _, files in os.walk(root):
            for name in files:
                if name.startswith(".wh."):
                    os.remove(os.path.join(directory, name))
    # What this function did between layers has touched directories; the last layer that names one decides its times.
    for number in range(len(layers)) if len(layers) > 1 else ():
        with tarfile.open(os.path.join(work, f"layer-{number}.tar")) as archive:
            for member in archive:
                place = os.path.join(root, member.name)
                if member.isdir() and os.path.isdir(place):
                    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
                    nanoseconds = int(seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))
                    os.utime(place, ns=(nanoseconds, nanoseconds))
    return root


def gnu_tar(archive, root):
    run(["tar", "-xf", archive, "-C", root, "--xattrs", "--xattrs-include=*", "--same-owner", "-p"])


class Reader:
    """A reader: `kinds` are the places that it reads from, `read` returns the directory that it made."""

    kinds = ("registry", "oci-archive", "docker-archive", "oci")

    def __init__(self, name, version, host=None):
        self.name, self.version, self.host = name, version.split("+")[0].split("~")[0].removeprefix("v"), host

    def clean(self):
        """Removes what read() left."""


class Docker(Reader):
    kinds = ("registry", "docker-archive")

    def __init__(self, host, socket):
        self.socket = socket
        self.docker = lambda *words: host.run("docker", "--host", socket, *words)
        super().__init__("docker", self.docker("version", "--format", "{{.Server.Version}}"), host)

    def read(self, image, work):
        if image["kind"] == "registry":
            self.docker("pull", "--quiet", image["place"])
            name = image["place"]
        else:
            name = self.docker("load", "--quiet", "--input", image["place"]).split(": ", 1)[1]
        try:
            driver = json.loads(self.docker("image", "inspect", "--format", "{{json .GraphDriver}}", name))
            mounted = os.path.join(work, "mounted")
            os.makedirs(mounted)
            if driver["Name"] == "overlay2":
                data = driver["Data"]
                lowers = ":".join(part for part in (data["UpperDir"], data.get("LowerDir")) if part)
                if ":" not in lowers:
                    run(["cp", "-a", "--sparse=auto", f"{lowers}/.", mounted])
                else:
                    run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={lowers}", "overlay", mounted])
                    os.makedirs(f"{work}/copied")
                    try:
                        run(["cp", "-a", "--sparse=auto", f"{mounted}/.", f"{work}/copied"])
                    finally:
                        run(["umount", mounted])
                    return f"{work}/copied"
                return mounted
            container = self.docker("create", name)
            with open(f"{work}/copied.tar", "wb") as to:
                command = ["docker", "--host", self.socket, "cp", f"{container}:/srv", "-"]
                subprocess.run(command, stdout=to, check=True)
            self.docker("rm", container)
            gnu_tar(f"{work}/copied.tar", mounted)
            return mounted
        finally:
            self.docker("rmi", "--force", name)


class Podman(Reader):
    def __init__(self, host):
        super().__init__("podman", host.run("podman", "version", "--format", "{{.Client.Version}}"), host)

    def read(self, image, work):
        self.image = self.host.pull("podman", "pull", "--quiet", "--tls-verify=false", image=image).splitlines()[-1]
        return self.host.sees(self.host.run("podman", "image", "mount", self.image))

    def clean(self):
        self.host.run("podman", "image", "umount", "--all", expect=(0, 125))
        self.host.run("podman", "rmi", "--all", "--force", expect=(0, 1, 125))


class Buildah(Reader):
    def __init__(self, host):
        super().__init__("buildah", host.run("buildah", "--version").split()[2], host)

    def read(self, image, work):
        container = self.host.pull("buildah", "from", "--quiet", "--tls-verify=false", image=image)
        return self.host.sees(self.host.run("buildah", "mount", container.splitlines()[-1]))

    def clean(self):
        self.host.run("buildah", "rm", "--all", expect=(0, 1, 125))
        self.host.run("buildah", "rmi", "--all", "--force", expect=(0, 1, 125))


class Skopeo(Reader):
    def __init__(self, host):
        super().__init__("skopeo", host.run("skopeo", "--version").split()[2], host)

    def read(self, image, work):
        archive = os.path.join(work, "copied.tar")
        self.host.run("skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", reference(image),
                      f"docker-archive:{archive}")
        return apply(archive_layers(archive, work), work, gnu_tar)


class Umoci(Reader):
    def __init__(self, host):
        super().__init__("umoci", host.run("umoci", "--version").split()[2], host)

    def read(self, image, work):
        self.host.run("umoci", "unpack", "--image", f"{image['layout of one platform']}:tag", f"{work}/bundle")
        return f"{work}/bundle/rootfs"


class Containerd(Reader):
    kinds = ("registry", "oci-archive", "docker-archive")

    def __init__(self, host, socket):
        self.ctr = lambda *words: host.run("ctr", "--address", socket, "--namespace", "volio", *words)
        version = self.ctr("version").split("Server:")[1].split()[1]
        super().__init__("containerd (`ctr`)", version, host)

    def read(self, image, work):
        if image["kind"] == "registry":
            name = image["place"]
            self.ctr("images", "pull", "--plain-http", "--snapshotter", "native", name)
        else:
            name = image["name"]
            self.ctr("images", "import", "--snapshotter", "native", image["place"])
        self.name_of_image, self.mounted = name, f"{work}/mounted"
        os.makedirs(self.mounted)
        self.ctr("images", "mount", "--snapshotter", "native", name, self.mounted)
        return self.host.sees(self.mounted)

    def clean(self):
        try:
            self.ctr("images", "unmount", "--rm", self.mounted)
            self.ctr("images", "rm", "--sync", self.name_of_image)
        except (Failed, AttributeError):
            pass


class Oras(Reader):
    kinds = ("registry", "oci")

    def __init__(self, host):
        super().__init__("oras", host.run("oras", "version").split()[1].split("+")[0], host)

    def read(self, image, work):
        source = ["--from-plain-http"] if image["kind"] == "registry" else ["--from-oci-layout"]
        self.host.run("oras", "cp", "--no-tty", *source, "--to-oci-layout", image["place"], f"{work}/layout:tag")
        return apply(layers_of(f"{work}/layout"), work, gnu_tar)


class Crane(Reader):
    kinds = ("registry",)

    def read(self, image, work):
        run(["crane", "export", "--insecure", image["place"], f"{work}/exported.tar"])
        os.makedirs(f"{work}/root")
        gnu_tar(f"{work}/exported.tar", f"{work}/root")
        return f"{work}/root"


class Regctl(Reader):
    kinds = ("registry",)

    def read(self, image, work):
        run(["regctl", "image", "copy", "--host", f"reg={REGISTRY},tls=disabled", image["place"],
             f"ocidir://{work}/layout:tag"])
        return apply(layers_of(f"{work}/layout"), work, gnu_tar)


class Composefs(Reader):
    """The crate composefs-oci, given the layers of a layout, and the kernel, which mounts what it has made of them."""

    kinds = ("registry", "oci", "oci-archive")

    def __init__(self, program):
        self.program = program
        super().__init__("`composefs-oci`, a crate", run([program, "--version"]))

    def read(self, image, work):
        layout = untarred(image["place"], work) if image["kind"] == "oci-archive" else image["layout of one platform"]
        manifest, self.mounted = manifest_of(layout), f"{work}/mounted"
        config = json.load(open(blob_of(layout, manifest["config"])))
        layers = zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
        os.makedirs(self.mounted)
        run([self.program, f"{work}/repository", self.mounted,
             *(word for layer, diff_id in layers for word in (layer["mediaType"], diff_id, blob_of(layout, layer)))])
        return self.mounted

    def clean(self):
        run(["umount", self.mounted])


class Layers(Reader):
    """A program for tar archives, given the layers of a layout one by one."""

    kinds = ("registry", "oci", "oci-archive", "docker-archive")

    def __init__(self, name, version, host, extract):
        super().__init__(name, version, host)
        self.extract = extract

    def read(self, image, work):
        if image["kind"] == "docker-archive":
            layers = archive_layers(image["place"], work)
        elif image["kind"] == "oci-archive":
            layers = layers_of(untarred(image["place"], work))
        else:
            layers = layers_of(image["layout of one platform"])
        return apply(layers, work, self.extract)


def tar_programs(host):
    def version(*words):
        return host.run(*words).splitlines()[0]

    python = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], **({'filter': 'fully_trusted'} " \
        "if hasattr(tarfile, 'data_filter') else {}), numeric_owner=True)"
    commands = {
        "tar": (lambda: version("tar", "--version").split()[3],
                None if not host.is_newer else lambda archive, root: host.run(
                    "tar", "-xf", archive, "-C", root, "--xattrs", "--xattrs-include=*", "--same-owner", "-p")),
        "bsdtar": (lambda: version("bsdtar", "--version").split()[1],
                   lambda archive, root: host.run("bsdtar", "-xpf", archive, "-C", root)),
        "busybox": (lambda: version("busybox").split()[1],
                    lambda archive, root: host.run("busybox", "tar", "-xpf", archive, "-C", root)),
        "python3": (lambda: version("/usr/bin/python3", "--version").split()[1],
                    lambda archive, root: host.run("/usr/bin/python3", "-c", python, archive, root)),
    }
    names = {"tar": "GNU tar", "busybox": "busybox tar", "python3": "Python's tarfile"}
    for program, (version_of, extract) in commands.items():
        if host.has(program):
            yield lambda p=program, v=version_of, e=extract: Layers(names.get(p, p), v(), host, e or gnu_tar)


def version_of_crane():
    """The version of crane, if it was built with one."""
    version = run(["crane", "version"]).strip()
    return version if " " not in version else "unknown"


def all_readers():
    """Returns pairs of a label and a function that makes the reader, or None if it is not there."""
    older, newer = Host(False), Host(True)
    environment = os.environ.get
    for host, docker, containerd in [
        (older, environment("VOLIO_TEST_DOCKER_HOST"), environment("VOLIO_TEST_CONTAINERD")),
        (newer, environment("VOLIO_TEST_DOCKER_HOST_13"), environment("VOLIO_TEST_CONTAINERD_13")),
    ]:
        if host.is_newer and not TREE:
            continue
        yield f"docker, {host.label}", docker and (lambda h=host, d=docker: Docker(h, d))
        yield f"containerd, {host.label}", containerd and (lambda h=host, c=containerd: Containerd(h, c))
        for program, reader in [("podman", Podman), ("buildah", Buildah), ("skopeo", Skopeo), ("umoci", Umoci), ("oras", Oras)]:
            if host.has(program):
                yield f"{program}, {host.label}", lambda r=reader, h=host: r(h)
        for reader in tar_programs(host):
            yield f"tar programs, {host.label}", reader
    crane = shutil.which("crane") and (lambda: Crane("crane", version_of_crane()))
    regctl = shutil.which("regctl") and (lambda: Regctl("regctl", run(["regctl", "version", "--format", "{{.VCSTag}}"])))
    yield "crane", crane
    yield "regctl", regctl
    composefs = environment("VOLIO_TEST_COMPOSEFS_READER")
    yield "composefs-oci", composefs and (lambda: Composefs(composefs))
