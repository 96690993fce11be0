use crate::screens::{Place, assert_screen};
use snapbox::str;

#[test]
fn unpack() {
    assert_screen(
        Place::new().screen("unpack --help"),
        str![[r#"
Unpack an image into a directory

Usage: volio unpack [OPTIONS] [IMAGE] [DIR]

Arguments:
  [IMAGE]
          Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]; without one, what DATA_TAG in the environment says

  [DIR]
          The directory that the files shall be in

Options:
      --platform <OS/ARCH>
          Take the image for this platform [default: the host's]

  -h, --help
          Print help (see a summary with '-h')

Limits against hostile images:
      --max-entries <N>
          Refuse an image with more entries than this in all its layers together
          
          [default: 10000000]

      --max-names <SIZE>
          Refuse an image whose names, links and extended attributes take more memory than this
          
          [default: 134217728]

      --max-metadata <SIZE>
          Refuse an entry with larger headers and extended attributes than this
          
          [default: 1048576]

      --max-path <SIZE>
          Refuse a longer path than this
          
          [default: 4096]

      --max-depth <N>
          Refuse a path through more directories than this
          
          [default: 256]

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

      --as-is
          Take an image that data-io made as it is: its base, and a file data.tar.gz

      --any-media-type
          Read layers by their first bytes, whatever their media types say

      --artifact
          Unpack an artifact, such as a chart: archives, and files by the titles of their layers

      --group-access
          Let the group do what the owner may, and own what is made in directories later

      --no-devices
          Make no devices, as who is not root makes none

      --sparse <WHEN>
          Make holes of runs of zeros of 64 KiB and more, of all whole blocks, or of none
          
          [default: auto]
          [possible values: auto, always, never]

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

      --min-rate <SIZE>
          Give up a connection on which fewer bytes a second come for that time; 0 takes any number
          
          [default: 1000]

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
  volio unpack --artifact oci://registry.example/charts/app:1.0.0 chart

DIR is made when it is missing. It must be empty: what it holds would be mixed up with the image. A
lost+found of root's does not count, nor do empty directories for mounts.

What DIR holds is noted on it, in the attribute user.volio.image or in a file .volio.json. So the
same command completes what was interrupted, and does nothing when the image is there. Files that
were changed since are not noticed; --checksum looks at them.

Without IMAGE and DIR it is data-io's unpack: DATA_TAG (behind REGISTRY, where that is set) names
the image, and it is extracted over / each time. REGISTRY_USERNAME and REGISTRY_PASSWORD log in;
NO_PULL takes the image from the layout /var/lib/volio/store, or VOLIO_STORE. A version that is not
the one that is there is refused once, unless NO_CHECK is set. A file in /run/secrets counts as a
variable. VOLIO_TARGET takes the place of /.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}
