//! The long help of the commands that have much to say.

use super::{Place, assert_screen};
use snapbox::str;

#[test]
fn pack() {
    assert_screen(
        Place::new().screen("pack --help"),
        str![[r#"
Pack directories and files into an image

Usage: volio pack [OPTIONS] <IMAGE> <SOURCE[:PATH]>...

Arguments:
  <IMAGE>
          Where the image shall be: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  <SOURCE[:PATH]>...
          What to pack, and where it lands in the image

Options:
  -h, --help
          Print help (see a summary with '-h')

Tree options:
      --exclude <PATTERN>
          Leave out what this pattern matches, as in .gitignore

      --one-file-system
          Do not cross mount points

      --skip-unreadable
          Leave out what may not be read; its name is told

      --on-change <WHAT>
          What to do when something changes while it is read
          
          [default: retry]
          [possible values: fail, retry, skip]

      --chown <UID:GID>
          Give everything this owner and group, by number

      --uid-map <CONTAINER:HOST:SIZE>
          Translate owners: HOST on disk is CONTAINER in the image. Groups too, unless --gid-map is
          given

      --gid-map <CONTAINER:HOST:SIZE>
          Translate groups in the same way

      --normalize
          Forget owners, times and most of the modes: 0:0, SOURCE_DATE_EPOCH or 1970, 0644 or 0755

      --compression <METHOD>
          Compress layers with zstd[:LEVEL] or gzip[:LEVEL], or do not: none
          
          [default: zstd:3]

Image options:
      --platform <OS/ARCH>
          Make the image for these platforms [default: linux/amd64,linux/arm64]

      --label <KEY=VALUE>
          Set a label in the image's configuration

      --annotation <KEY=VALUE>
          Set an annotation on the image's manifests and index

      --entrypoint <WORDS>
          The program that a container runs: one word, or a JSON array of words

      --cmd <WORDS>
          The program's arguments, written as --entrypoint

      --env <NAME=VALUE>
          Set an environment variable for containers

      --user <USER[:GROUP]>
          The user that containers run as

      --workdir <DIR>
          The directory that containers start in

Registry options:
      --authfile <FILE>
          Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]

      --plain-http
          Talk plain HTTP to every registry, not only to those on this machine

      --tls-verify[=<BOOL>]
          Encrypt also on this machine; with =false, trust whoever answers, which is for tests only
          
          [possible values: true, false]

      --ca-file <FILE>
          Trust also the authorities whose certificates are in this file

      --cert-dir <DIR>
          Take authorities (*.crt) and a certificate of ours (*.cert, *.key) from here, not from
          certs.d

      --retry <N>
          Try again this many times when the network or a registry fails
          
          [default: 5]

      --retry-delay <SECONDS>
          Wait this long before the first retry, and twice as long before each further one
          
          [default: 1]

      --connect-timeout <SECONDS>
          Give up connecting to a server after this time
          
          [default: 30]

      --stall-timeout <SECONDS>
          Give up a connection on which nothing at all has moved for this time
          
          [default: 60]

      --concurrency <N>
          Copy this many blobs at once; fetch a large one over this many connections
          
          [default: 3]

      --chunk-size <SIZE>
          Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants
          chunks

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

      --digestfile <FILE>
          Write the digest of the image to this file

Examples:
  volio pack registry.example/data:v1 /srv/data
  volio pack oci:backup:monday /srv/data              into a directory here, made when missing
  volio pack docker-archive:data.tar:data:v1 public   for docker load: one platform, not compressed
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  volio pack --platform linux/arm64 --entrypoint '["/volio"]' registry.example/volio:v1 volio

SOURCE is a directory or a file; PATH is absolute, and / unless given. A directory's contents land
at PATH. A file lands at PATH, or in it under its own name where PATH ends with a slash.

A file .volioignore at the root of a SOURCE names what to leave out, in the words of .gitignore.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images
are data and the same for all platforms.

A file has changed when its size, its mtime or its ctime differ between before and after it was
read. With --on-change retry (the default), it is read again up to three times, and a large file
with the whole layer; then the command fails. With skip, what still changes, such as a log that is
written to all the time, is left out, named in a warning and counted; with fail, the first change is
an error. What is in the image was never half old and half new. To pack what is written to all the
time, pack a snapshot.

Maps of owners are written as podman, buildah and umoci have them: --uid-map 0:100000:65536 packs
what belongs to 100000 here as root's. ACLs are translated too. An owner that is in no range is an
error.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}

#[test]
fn unpack() {
    assert_screen(
        Place::new().screen("unpack --help"),
        str![[r#"
Unpack an image into a directory

Usage: volio unpack [OPTIONS] <IMAGE> <DIR>

Arguments:
  <IMAGE>
          Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  <DIR>
          The directory that the files shall be in

Options:
      --platform <OS/ARCH>
          Take the image for this platform [default: the host's]

  -h, --help
          Print help (see a summary with '-h')

Target options:
      --merge
          Extract over what is in DIR: files give way, directories stay and take the image's
          attributes

      --force
          With --merge, directories give way to files too; with --atomic, all that is in DIR

      --keep
          Do nothing when DIR holds an image, whichever it is

      --checksum
          Where the image is in DIR already, write it once more, so that changed files are as they
          were

      --atomic
          All or nothing: fill a directory beside DIR, which then takes its place

      --no-sync
          Do not wait until everything is on the disk

Tree options:
      --subpath <PATH>
          Extract only what is at this path: a directory's contents, or a file under its own name

      --strip <N>
          Leave out this many names at the beginning of each path, and what has no more than those

      --owner <UID:GID>
          Give everything this owner

      --uid-map <IMAGE:HOST[:SIZE]>
          What numbers of users in the image mean here, and those of groups unless --gid-map says it

      --gid-map <IMAGE:HOST[:SIZE]>
          What numbers of groups in the image mean here, and those of users unless --uid-map says it

      --group-access
          Let the group do what the owner may, and own what is made in directories later

      --no-devices
          Make no devices, as who is not root makes none

      --sparse <WHEN>
          Make holes of long runs of zeros, or write them
          
          [default: auto]
          [possible values: auto, never]

Registry options:
      --authfile <FILE>
          Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]

      --plain-http
          Talk plain HTTP to every registry, not only to those on this machine

      --tls-verify[=<BOOL>]
          Encrypt also on this machine; with =false, trust whoever answers, which is for tests only
          
          [possible values: true, false]

      --ca-file <FILE>
          Trust also the authorities whose certificates are in this file

      --cert-dir <DIR>
          Take authorities (*.crt) and a certificate of ours (*.cert, *.key) from here, not from
          certs.d

      --retry <N>
          Try again this many times when the network or a registry fails
          
          [default: 5]

      --retry-delay <SECONDS>
          Wait this long before the first retry, and twice as long before each further one
          
          [default: 1]

      --connect-timeout <SECONDS>
          Give up connecting to a server after this time
          
          [default: 30]

      --stall-timeout <SECONDS>
          Give up a connection on which nothing at all has moved for this time
          
          [default: 60]

      --concurrency <N>
          Copy this many blobs at once; fetch a large one over this many connections
          
          [default: 3]

      --chunk-size <SIZE>
          Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants
          chunks

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

Examples:
  volio unpack registry.example/data:v1 /data
  volio unpack --keep registry.example/data:v1 /data     in an init container, which may be started
  again
  volio unpack --subpath /etc/nginx oci:backup:monday conf
  volio unpack --merge oci:patch:v2 /srv/site
  volio unpack --atomic --force registry.example/site:v2 /srv/site
  volio unpack --platform linux/arm64 registry.example/app:v1 rootfs

DIR is made when it is missing. It must be empty: what it holds would be mixed up with the image. A
lost+found of root's does not count, nor do empty directories for mounts.

What DIR holds is noted on it, in the attribute user.volio.image or in a file .volio.json. So the
same command completes what was interrupted, and does nothing when the image is there. Files that
were changed since are not noticed; --checksum looks at them.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}

#[test]
fn copy() {
    assert_screen(
        Place::new().screen("copy --help"),
        str![[r#"
Copy an image from one place to another

Usage: volio copy [OPTIONS] <FROM> <TO>

Arguments:
  <FROM>
          Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  <TO>
          Where it shall be too

Options:
  -h, --help
          Print help (see a summary with '-h')

Copy options:
      --platform <OS/ARCH>
          Copy the images for these platforms only [default: all]

      --all-tags
          Copy all tags of a repository or a layout

      --referrers
          Copy what refers to the image too, such as signatures

      --since <IMAGE>
          Leave out layers that this image has; may be given several times

Registry options:
      --authfile <FILE>
          Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]

      --plain-http
          Talk plain HTTP to every registry, not only to those on this machine

      --tls-verify[=<BOOL>]
          Encrypt also on this machine; with =false, trust whoever answers, which is for tests only
          
          [possible values: true, false]

      --ca-file <FILE>
          Trust also the authorities whose certificates are in this file

      --cert-dir <DIR>
          Take authorities (*.crt) and a certificate of ours (*.cert, *.key) from here, not from
          certs.d

      --retry <N>
          Try again this many times when the network or a registry fails
          
          [default: 5]

      --retry-delay <SECONDS>
          Wait this long before the first retry, and twice as long before each further one
          
          [default: 1]

      --connect-timeout <SECONDS>
          Give up connecting to a server after this time
          
          [default: 30]

      --stall-timeout <SECONDS>
          Give up a connection on which nothing at all has moved for this time
          
          [default: 60]

      --concurrency <N>
          Copy this many blobs at once; fetch a large one over this many connections
          
          [default: 3]

      --chunk-size <SIZE>
          Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants
          chunks

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

      --digestfile <FILE>
          Write the digest of the image to this file

Examples:
  volio copy registry.example/data:v1 mirror.example/data:v1
  volio copy registry.example/data:v1 oci:/media/stick:v1    for a place without a network
  volio copy oci:/media/stick:v1 inside.example/data:v1      and in that place
  volio copy registry.example/data:v1 docker-archive:data.tar:data:v1
  volio copy --since registry.example/data:v1 registry.example/data:v2 oci:/media/stick:v2
  volio copy --all-tags --referrers registry.example/data mirror.example/data

No byte changes, so the digest stays. What is there already is not sent again. Only with --platform
the digest is another one: that of the platform's manifest, or of a new index of those platforms.
And only a docker-archive holds neither several platforms nor compressed layers: one image is
copied, the host's unless --platform is given, and its layers are decompressed.

With --since, layers that the named images have are left out. What is then in TO can be inspected
and copied on to where those images are, and nothing else.

With --all-tags, FROM and TO are HOST/REPOSITORY, oci:DIR or an archive without a tag. A tag whose
image is damaged does not keep the others; the exit code says that it was there. Without
--referrers, signatures and the like are left behind.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}

#[test]
fn ls() {
    assert_screen(
        Place::new().screen("ls --help"),
        str![[r#"
List what is in an image

Usage: volio ls [OPTIONS] <IMAGE> [PATH]

Arguments:
  <IMAGE>
          Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  [PATH]
          List this and what is below it [default: /]

Options:
  -l, --long
          Show modes, owners, sizes, times and where links lead

      --platform <OS/ARCH>
          Take the image for this platform [default: the host's]

  -h, --help
          Print help (see a summary with '-h')

Registry options:
      --authfile <FILE>
          Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]

      --plain-http
          Talk plain HTTP to every registry, not only to those on this machine

      --tls-verify[=<BOOL>]
          Encrypt also on this machine; with =false, trust whoever answers, which is for tests only
          
          [possible values: true, false]

      --ca-file <FILE>
          Trust also the authorities whose certificates are in this file

      --cert-dir <DIR>
          Take authorities (*.crt) and a certificate of ours (*.cert, *.key) from here, not from
          certs.d

      --retry <N>
          Try again this many times when the network or a registry fails
          
          [default: 5]

      --retry-delay <SECONDS>
          Wait this long before the first retry, and twice as long before each further one
          
          [default: 1]

      --connect-timeout <SECONDS>
          Give up connecting to a server after this time
          
          [default: 30]

      --stall-timeout <SECONDS>
          Give up a connection on which nothing at all has moved for this time
          
          [default: 60]

      --concurrency <N>
          Copy this many blobs at once; fetch a large one over this many connections
          
          [default: 3]

      --chunk-size <SIZE>
          Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants
          chunks

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

Examples:
  volio ls registry.example/data:v1
  volio ls -l oci:backup:monday /etc
  volio ls --format json oci:backup:monday | jq -r '.entries[] | select(.size > 1000000) | .path'

What is listed is PATH, which is / unless given, and all that is below it, over all layers of the
image.
-- exit 0

"#]],
    );
}
