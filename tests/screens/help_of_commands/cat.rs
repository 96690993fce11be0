use crate::screens::{Workspace, assert_screen};
use snapbox::str;

#[test]
fn cat() {
    assert_screen(
        Workspace::new().screen("cat --help"),
        str![[r#"
Write files of an image to standard output

Usage: volio cat [OPTIONS] <IMAGE> <PATH>...

Arguments:
  <IMAGE>
          The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  <PATH>...
          Write the content of these files, in this order

Options:
      --platform <OS/ARCH>
          Take the image for this platform [default: the host's]

      --any-media-type
          Recognise layers by their first bytes instead of their media types

  -h, --help
          Print help (see a summary with '-h')

Output options:
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

      --max-content <SIZE>
          Refuse more content than this, plain, in all layers together [default: 1G, and 1000 times
          what is stored]

Signature options:
      --verify-key <FILE>
          Read images only if this public key has signed them; of several, any one [env:
          VOLIO_VERIFY_KEY]

      --policy <FILE>
          Read images only if they satisfy this policy, as in containers-policy.json(5)

Registry options:
      --authfile <FILE>
          Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]

      --plain-http
          Talk plain HTTP to every registry, not only to those on this machine

      --tls-verify[=<BOOL>]
          Encrypt also on this machine; with =false, accept any certificate, which is for tests only
          
          [possible values: true, false]

      --ca-file <FILE>
          Trust also the authorities with certificates in this file

      --cert-dir <DIR>
          Take authorities (*.crt) and a client certificate (*.cert, *.key) from here, not from
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

Examples:
  volio cat registry.example/data:v1 /etc/nginx/nginx.conf
  volio cat oci:backup:monday /var/log/app.log /var/log/app.log.1 | grep ERROR
  volio cat registry.example/site:v2 /dump.sql.gz > dump.sql.gz

Symbolic links are followed inside of the image. Bytes are written unchanged, after they were
verified against a digest.

Of zstd layers that volio made, only the table of contents and the content itself are fetched. Other
layers are read completely, and twice, with a warning.
-- exit 0

"#]],
    );
}
