use super::own_help;
use crate::screens::assert_screen;
use snapbox::str;

#[test]
fn diff() {
    assert_screen(
        own_help("diff"),
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

      --quick
          Compare a directory by metadata first: the content of a file counts as equal, and is not
          read, if its size and mtime are those of the image

      --platform <OS/ARCH>
          Take images for this platform [default: the host's]

      --any-media-type
          Recognise layers by their first bytes instead of their media types

  -h, --help
          Print help (see a summary with '-h')

Limits against hostile images:
  [as in volio cat]

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

Examples:
  volio diff registry.example/data:v1 /data              what has changed since it was unpacked?
  volio diff registry.example/data:v1 registry.example/data:v2
  volio diff --quick registry.example/data:v1 /data      files of equal size and mtime are not read
  volio diff --ignore owner,mtime oci:backup restored    restored by somebody who is not root

FIRST and SECOND are an image or a directory each. An argument is a directory if it begins with / or
., if the path exists, or if it has no registry, tag or digest. ./NAME is always a directory and
oci:NAME always an image. A directory is read as volio pack reads it.

Each difference is one line, in the order of paths:
  + PATH                         only SECOND has it
  - PATH                         only FIRST has it
  ~ PATH ATTRIBUTE FIRST SECOND  both have it, and not the same; - stands for what is not there

ATTRIBUTE is type, size, content (its SHA-256; of a file that volio stores in several chunks of at
most 4 MiB, that of the list of its chunks), target (of a symbolic link), device, mode, owner,
mtime, hardlink (the first name of the same file), or xattr with its name. Where the type differs,
nothing else is compared; where the size differs, the content is not mentioned. With --format json,
paths with spaces are unambiguous.

The exit code is 0 when nothing differs and 7 when something does.
-- exit 0

"#]],
    );
}
