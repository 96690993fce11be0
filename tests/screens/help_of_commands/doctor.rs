//! `volio doctor --help`.

use super::super::assert_screen;
use super::own_help;
use snapbox::str;

#[test]
fn doctor() {
    assert_screen(
        own_help("doctor"),
        str![[r#"
Examine an image or a registry: what will not work, why, and what to do

Usage: volio doctor [OPTIONS] <IMAGE|HOST[/REPOSITORY]>

Arguments:
  <IMAGE|HOST[/REPOSITORY]>
          An image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]; or a registry: HOST[:PORT][/REPOSITORY]

Options:
      --registry
          Examine a registry, also if the name could be that of an image

      --write-test
          Begin uploads and cancel them, mount a blob where it is, delete an image that does not
          exist: nothing is stored or deleted

      --engine <NAME=VERSION>
          An engine that will use the image, such as docker=20.10; the names are kubernetes,
          containerd, cri-o, docker, podman and composefs-rs

      --deep
          Read all layers of the image, also those without a table of contents

  -v, --verbose
          Show also the checks that passed, and the sources of all claims

  -h, --help
          Print help (see a summary with '-h')

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
  volio doctor registry.example/data:v1
  volio doctor registry.example
  volio doctor --write-test registry.example/data
  volio doctor --engine docker=20.10 --engine kubernetes=1.34 registry.example/data:v1
  volio doctor --format json oci:backup:monday | jq '.findings[] | select(.severity == "error")'

A name with a tag or a digest, and a layout or an archive, is an image. HOST and HOST/REPOSITORY
without a tag are a registry; --registry says so of a host without a dot, such as myhost:5000, which
would be an image of Docker Hub.

Each finding says what does not work, where, why, and what to do. Without --verbose, checks that
passed are only counted. Of an image, the documents, the tables of contents and one byte of each
layer are read; --deep and volio verify read all content. Of a registry, only answers to GET and
HEAD requests are read unless --write-test is given.

The exit code is 0 if there are no errors, also with warnings, and 1 if there are errors.
-- exit 0

"#]],
    );
}
