use crate::screens::{Place, assert_screen};
use snapbox::str;

#[test]
fn diff() {
    assert_screen(
        Place::new().screen("diff --help"),
        str![[r#"
Show what differs between two images, or an image and a directory

Usage: volio diff [OPTIONS] <FIRST> <SECOND>

Arguments:
  <FIRST>
          An image (HOST/REPOSITORY:TAG, oci:DIR[:TAG], …) or a directory

  <SECOND>
          Another one

Options:
      --ignore <ATTRIBUTE>
          Do not compare these attributes
          
          [possible values: content, mode, owner, mtime, hardlink, xattr]

      --platform <OS/ARCH>
          Take images for this platform [default: the host's]

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

      --max-content <SIZE>
          Refuse more content than this, plain, in all layers together [default: 1G, and 1000 times
          what is stored]

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

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

Examples:
  volio diff registry.example/data:v1 /data              what has changed since it was unpacked?
  volio diff registry.example/data:v1 registry.example/data:v2
  volio diff --ignore owner,mtime oci:backup restored    restored by somebody who is not root

FIRST and SECOND are an image or a directory each. A name that begins with / or ., or of something
that is there, is a directory, and so is a word without a registry, a tag and a digest; ./NAME and
oci:NAME are never mistaken. A directory is looked at as volio pack would.

Each difference is one line, in the order of paths:
  + PATH                         only SECOND has it
  - PATH                         only FIRST has it
  ~ PATH ATTRIBUTE FIRST SECOND  both have it, and not the same; - stands for what is not there

ATTRIBUTE is type, size, content (its SHA-256, for which blocks of 64 KiB of zeros count as holes),
target (of a symbolic link), device, mode, owner, mtime, hardlink (the first name of the same file),
or xattr with its name. Where the type differs, nothing else is compared; where the size differs,
the content is not mentioned. --format json has the same without any doubt about spaces.

The exit code is 0 when nothing differs and 7 when something does.
-- exit 0

"#]],
    );
}
