use super::own_help;
use crate::screens::assert_screen;
use snapbox::str;

#[test]
fn pack() {
    assert_screen(
        own_help("pack"),
        str![[r#"
Pack directories and files into an image

Usage: volio pack [OPTIONS] [IMAGE] [SOURCE[:PATH]]...

Arguments:
  [IMAGE]
          The image to write: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]; by default DATA_TAG in the environment names it

  [SOURCE[:PATH]]...
          A directory or a file to pack, and its path in the image

Options:
  -h, --help
          Print help (see a summary with '-h')

Tree options:
      --exclude <PATTERN>
          Leave out paths that match this pattern, as in .gitignore

      --exclude-from <FILE>
          Leave out paths that match a pattern in this file, one a line; those of --exclude come
          after them

      --exclude-caches
          Leave out the contents of directories with a CACHEDIR.TAG, except for that file

      --one-file-system
          Do not cross mount points

      --skip-unreadable
          Leave out files that cannot be read, because of permissions or a failing disk or server,
          with a warning

      --on-change <WHAT>
          Fail, read again or leave out what changes while it is read
          
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
          Replace owners, times and most of the modes: 0:0, SOURCE_DATE_EPOCH or 1970, 0644 or 0755

      --compression <METHOD>
          Compress layers with zstd[:LEVEL] or gzip[:LEVEL], or do not: none
          
          [default: zstd:3]

      --layer-size <SIZE>
          Split the tree into layers of about this size; a file of more than twice that is a layer
          by itself
          
          [default: 512M]

      --wait-for-signal
          Wait for SIGTERM or Ctrl-C before anything is read, as a sidecar does; a second signal
          interrupts the command

Incremental options:
      --incremental
          Add only what changed to the image that IMAGE names now; without one, pack everything

      --base <IMAGE>
          Add only what changed to this image

      --checksum
          Compare the contents of all files, not only of those whose times prove nothing

      --max-layers <N>
          Pack everything if the image would have more layers
          
          [default: 64]

      --max-dead <PERCENT>
          Pack everything if more of the image's bytes would belong to files that are gone or
          replaced
          
          [default: 50]

      --max-shrink <PERCENT>
          Refuse a source that lost more of the files or bytes of the base, or of the last run by
          the schedule [default: 90, and 100, which refuses an empty source only, with --base]

      --allow-shrink
          Pack a source whatever it lost, also an empty one

      --dry-run
          Say what would be packed and sent, and write nothing

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

Signature options:
      --verify-key <FILE>
          Read images only if this public key has signed them; of several, any one [env:
          VOLIO_VERIFY_KEY]

      --policy <FILE>
          Read images only if they satisfy this policy, as in containers-policy.json(5)

      --sign-key <FILE>
          Sign the image with this private key, PKCS#8 in PEM; - reads standard input [env:
          VOLIO_SIGN_KEY]

      --sign-identity <HOST/REPOSITORY:TAG>
          Sign for this name; may be given several times [default: IMAGE, if it is in a registry]

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

Tag options:
      --tag <TAG>
          Give the image this tag too; may be given several times

      --tag-template <TEMPLATE>
          Give the image a tag of this form too, such as '{date}-{digest:.8}'; the --keep options
          look only at such tags

Retention options:
      --keep-last <N>
          Keep the newest N images; with unlimited, all

      --keep-hourly <N>
          Keep the newest image of each of the last N hours that have one

      --keep-daily <N>
          Keep the newest image of each of the last N days that have one

      --keep-weekly <N>
          Keep the newest image of each of the last N weeks that have one

      --keep-monthly <N>
          Keep the newest image of each of the last N months that have one

      --keep-yearly <N>
          Keep the newest image of each of the last N years that have one

      --keep-within <SPAN>
          Keep all images that are at most this much older than the newest: 1y6m, 14d, 36h; m stands
          for months

      --keep-within-hourly <SPAN>
          Keep the newest image of each hour within this span

      --keep-within-daily <SPAN>
          Keep the newest image of each day within this span

      --keep-within-weekly <SPAN>
          Keep the newest image of each week within this span

      --keep-within-monthly <SPAN>
          Keep the newest image of each month within this span

      --keep-within-yearly <SPAN>
          Keep the newest image of each year within this span

      --keep-tag <TAG>
          Keep the image with this tag in any case

Registry options:
  [as in volio cat]

Output options:
      --format <FORMAT>
          Print the result as text or as one JSON document; data-io packs an image as data-io made
          them. May be given twice
          
          [default: text]
          [possible values: text, json, data-io]

  -q, --quiet
          Print nothing on stderr but errors

      --digestfile <FILE>
          Write the digest of the image to this file

      --color <WHEN>
          Colour the output: on a terminal, unless NO_COLOR is set; always; or never
          
          [default: auto]
          [possible values: auto, always, never]

      --progress <FORM>
          Show progress: bars on a terminal and lines elsewhere; bars; lines; JSON objects; or
          nothing
          
          [default: auto]
          [possible values: auto, tty, plain, json, none]

Unattended options:
      --every <DURATION>
          Pack now, and again after each of these times, until SIGTERM: 90s, 15m, 6h, 1d

      --cron <LINE>
          Pack at these times, until SIGTERM: minute, hour, day, month, weekday, in the time zone
          TZ; or @daily

      --jitter <DURATION>
          Delay each run by a random time up to this
          
          [default: 0]

      --on-exit
          At SIGTERM, pack once more

      --grace <DURATION>
          The time between SIGTERM and SIGKILL here; a last pack that needs longer is interrupted
          
          [default: 30s]

      --max-failures <N>
          Give up after so many failures in a row

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
  volio pack registry.example/data:v1 /srv/data
  volio pack oci:backup:monday /srv/data              into a layout, which is created if it is
  missing
  volio pack docker-archive:data.tar:data:v1 public   for docker load: one platform, not compressed
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  tar c --format=posix --xattrs . | volio pack oci:backup:v1 -    a tar archive, also compressed
  volio pack --wait-for-signal registry.example/results:v1 /results   when a pod ends
  volio pack --incremental registry.example/data:nightly /srv/data     only what changed
  volio pack --format data-io registry.example/old:v1 /srv/data   for data-io to unpack
  volio pack --platform linux/arm64 --entrypoint '["/volio"]' registry.example/volio:v1 volio

SOURCE is a directory or a file, or - for a tar archive on standard input; PATH is absolute, and /
unless given. The contents of a directory are placed at PATH. A file is placed at PATH, or in PATH
under its own name if PATH ends with a slash.

A file .volioignore at the root of a SOURCE lists paths to leave out, in the syntax of .gitignore.
Without SOURCE on the command line, it is packed as an ordinary file. The rules of --exclude-from
are applied after it, and those of --exclude last; the last rule that matches decides.

The archive on standard input may be compressed with gzip or zstd. It is read as strictly as a
layer, kept in TMPDIR, and packed in the order of a directory: if the archive has all attributes of
the tree (--format=posix --xattrs), the image is the same as that of the directory. Of several
entries with the same path, the last one is packed.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images
are data and the same for all platforms.

Each file is packed as it was at one moment. A file counts as changed if its size, mtime or ctime
changed while it was read. A file that was modified within the last minute is read twice, and counts
as changed if the two reads differ. So does an entry that was moved into a directory after that
directory was read. With --on-change retry (the default), a changed file is read again up to three
times, and a large file together with its layer; then the command fails. With skip, files that keep
changing, such as a busy log, are left out, named in a warning and counted. With fail, the first
change is an error. To pack data that is written to all the time, pack a snapshot.

With --incremental or --base, the image has the layers of the base and further ones with what
changed. A file counts as unchanged if its type, size, mtime, mode, owner and extended attributes
are those in the base. Its content is compared too if it was modified within two seconds of the
newest file in the base, or later, or if the recorded time is not its own (--normalize,
SOURCE_DATE_EPOCH). If nothing changed, there is no new image. With --incremental, the command fails
(6) if another writer has changed the tag meanwhile.

Maps of owners have the syntax of podman, buildah and umoci: --uid-map 0:100000:65536 packs files of
the user 100000 as files of root. ACLs are translated too. An owner that is not in any range is an
error.

Without IMAGE and SOURCE, pack works as data-io does: DATA_TAG names the image, with REGISTRY as its
host if that is set, and /source, or VOLIO_SOURCE, is packed. REGISTRY_USERNAME and
REGISTRY_PASSWORD are the credentials. With NO_PUSH, the image is written to the layout
/var/lib/volio/store, or VOLIO_STORE. INCREMENTAL stands for --incremental. A file in /run/secrets
replaces the variable of the same name.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}
