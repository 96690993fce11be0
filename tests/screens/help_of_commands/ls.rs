use super::own_help;
use crate::screens::assert_screen;
use snapbox::str;

#[test]
fn ls() {
    assert_screen(
        own_help("ls"),
        str![[r#"
List what is in an image

Usage: volio ls [OPTIONS] <IMAGE> [PATH]

Arguments:
  <IMAGE>
          The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  [PATH]
          List the contents of this directory, or this file [default: /]

Options:
  -R, --recursive
          List the directory itself and all that is below it

      --tree
          Draw the directory and all that is below it as a tree; not with --format json

      --depth <N>
          With -R or --tree, show only N levels below PATH

  -l, --long
          Show modes, owners, sizes, times and the targets of links

      --platform <OS/ARCH>
          Take the image for this platform [default: the host's]

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
  volio ls registry.example/data:v1
  volio ls -l oci:backup:monday /etc
  volio ls --tree --depth 2 registry.example/data:v1
  volio ls -R --format json oci:backup:monday | jq -r '.entries[] | select(.size > 1000000) | .path'

The contents of PATH are listed, after all layers of the image were merged. The default of PATH is
/. With -R, PATH itself and everything below it are listed. Links are shown and not followed.

--tree draws PATH and everything below it as tree(1) does, and with -l the columns of -l before each
line. Its last line counts all that is below PATH, also what --depth leaves out. A file with several
names counts once in the size.

Of zstd layers that volio made, only the tables of contents are fetched. Other layers are read
completely, with a warning.
-- exit 0

"#]],
    );
}
