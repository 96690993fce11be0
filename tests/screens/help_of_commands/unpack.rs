use super::own_help;
use crate::screens::assert_screen;
use snapbox::str;

#[test]
fn unpack() {
    assert_screen(
        own_help("unpack"),
        str![[r#"
Unpack an image into a directory

Usage: volio unpack [OPTIONS] [IMAGE] [DIR]

Arguments:
  [IMAGE]
          The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]; by default DATA_TAG in the environment names it

  [DIR]
          The directory for the files; - writes a tar archive to standard output

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
          Extract over the contents of DIR: files are replaced, directories stay and get the image's
          attributes

      --sync
          Make DIR identical to the image: fetch and write what differs, and remove everything else

      --dry-run
          With --sync, print what would be done, and change nothing

      --force
          With --merge, replace directories by files too; with --atomic, replace a DIR that is not
          empty; with --sync, a DIR that volio did not fill

      --keep
          Do nothing if DIR holds any complete image

      --checksum
          If DIR holds this image already, write it again, which restores changed files; with
          --sync, compare the contents of all files

      --atomic
          Fill a directory beside DIR, and replace DIR by it at the end: all or nothing

      --no-sync
          Do not wait until all data is on the disk

      --file-threads <N>
          Write small files with this many threads besides the one that creates them [default: one
          for each core but one, at most 4; none on one or two cores]

Tree options:
      --subpath <PATH>
          Extract this path only: the contents of a directory, or a file under its own name

      --strip <N>
          Remove this many names from the beginning of each path, and leave out shorter paths

      --owner <UID:GID>
          Give everything this owner

      --uid-map <IMAGE:HOST[:SIZE]>
          Translate users: IMAGE in the image is HOST on disk. Groups too, unless --gid-map is given

      --gid-map <IMAGE:HOST[:SIZE]>
          Translate groups. Users too, unless --uid-map is given

      --as-is
          Unpack an image of data-io without unpacking its archive: its base, and a file data.tar.gz

      --any-media-type
          Recognise layers by their first bytes instead of their media types

      --artifact
          Unpack an artifact, such as a chart: archives, and files by the titles of their layers

      --group-access
          Give the group the owner's permissions, and make directories setgid

      --no-devices
          Leave out devices, as an unprivileged user has to

      --sparse <WHEN>
          Make holes from runs of zeros of 64 KiB and more, from all whole blocks, or from none
          
          [default: auto]
          [possible values: auto, always, never]

Signature options:
  [as in volio cat]

Registry options:
  [as in volio cat]

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

      --color <WHEN>
          Colour the output: on a terminal, unless NO_COLOR is set; always; or never
          
          [default: auto]
          [possible values: auto, always, never]

      --progress <FORM>
          Show progress: bars on a terminal and lines elsewhere; bars; lines; JSON objects; or
          nothing
          
          [default: auto]
          [possible values: auto, tty, plain, json, none]

Watch options:
      --watch <PERIOD>
          Look each PERIOD whether the tag means another image, and publish it in DIR, with --sync
          or --link; until SIGTERM

      --link <NAME>
          Unpack each version into a directory of its own in DIR, and let the symbolic link DIR/NAME
          lead to it

      --keep-previous <N>
          With --link, keep this many old versions for programs that still read them
          
          [default: 1]

      --before-publish <COMMAND>
          With --link, run this in the new version before it is published; if it fails, the version
          before stays

      --on-change <COMMAND>
          Run this in the new version after it was published, until it succeeds

      --on-change-attempts <N>
          Give up --on-change for a version after so many failures
          
          [default: 10]

      --init-failures <N>
          Give up after so many failures in a row before the first version is published [default:
          never]

      --max-failures <N>
          Give up after so many failures in a row after that [default: never]

Unattended options:
      --before <COMMAND>
          Run this before the work: a command line for sh -c, or a JSON array of words; if it fails,
          there is no work

      --after <COMMAND>
          Run this after the work, also if it failed, and at the next start if volio was killed

      --on-error <COMMAND>
          Run this after a failure

      --hook-timeout <DURATION>
          End a command of these, with all its processes, after this time
          
          [default: 5m]

      --listen <ADDRESS:PORT>
          Serve /healthz, /readyz and /metrics on this address; :PORT is all addresses

      --log <FORMAT>
          Print lines on stderr as text, or each as a JSON object
          
          [default: text]
          [possible values: text, json]

      --termination-log <FILE>
          Write the error to this file at the end, such as /dev/termination-log

      --state <DIR>
          Note here which runs have begun and succeeded [default: volio in XDG_STATE_HOME or
          ~/.local/state]

Examples:
  volio unpack registry.example/data:v1 /data
  volio unpack --keep registry.example/data:v1 /data     in an init container, which may be started
  again
  volio unpack --subpath /etc/nginx oci:backup:monday conf
  volio unpack --merge oci:patch:v2 /srv/site
  volio unpack registry.example/data:v1 - | ssh there tar -x -C /data
  volio unpack --atomic --force registry.example/site:v2 /srv/site
  volio unpack --sync registry.example/site:v3 /srv/site     fetches and writes only what differs
  volio unpack --watch 30s --link current registry.example/site:stable /srv     follows the tag,
  until SIGTERM
  volio unpack --platform linux/arm64 registry.example/app:v1 rootfs
  volio unpack --artifact oci://registry.example/charts/app:1.0.0 chart

DIR is created if it is missing. Otherwise it must be empty, except for a lost+found of root and
empty mount points: its files would be mixed with those of the image.

volio records the image in DIR, in the attribute user.volio.image or in a file .volio.json. So the
same command completes an interrupted unpack, and does nothing if DIR has the image already. It does
not notice files that were changed since; --checksum restores them.

With --sync, DIR becomes identical to the image, also if it holds another version or was changed
since: everything else in it is removed. DIR must have been filled by volio with the same options,
or --force is given. A file that kept its size and its mtime although another program changed it is
noticed if that was after the last unpack, and always with --checksum. Mount points in DIR stay; the
exit code is 6 if the image does not have them.

With --watch, DIR follows the tag. With --sync it is changed in place; with --link NAME, each
version is unpacked into a directory of its own in DIR, named after its digest, and the symbolic
link DIR/NAME is replaced atomically. Whatever fails, the last version stays.

With - as DIR, the image is written to standard output as an uncompressed tar archive, of verified
bytes only. If verification fails, the archive is left without its end, and the exit code is 3. The
line with the digest goes to stderr.

Without IMAGE and DIR, unpack works as data-io does: DATA_TAG names the image, with REGISTRY as its
host if that is set, and the image is extracted over / each time, or over VOLIO_TARGET.
REGISTRY_USERNAME and REGISTRY_PASSWORD are the credentials. With NO_PULL, the image is read from
the layout /var/lib/volio/store, or VOLIO_STORE. A version other than the one in the target is
refused once, unless NO_CHECK is set. INCREMENTAL stands for --sync where VOLIO_TARGET holds nothing
but what volio has unpacked there. A file in /run/secrets replaces the variable of the same name.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}
