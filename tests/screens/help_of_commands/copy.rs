use super::own_help;
use crate::screens::assert_screen;
use snapbox::str;

#[test]
fn copy() {
    assert_screen(
        own_help("copy"),
        str![[r#"
Copy an image from one location to another

Usage: volio copy [OPTIONS] <FROM> <TO>

Arguments:
  <FROM>
          The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
          docker-archive:FILE[:REF]

  <TO>
          The image to write, in the same forms

Options:
  -h, --help
          Print help (see a summary with '-h')

Copy options:
      --platform <OS/ARCH>
          Copy the images for these platforms only [default: all]

      --all-tags
          Copy all tags of a repository or a layout

      --referrers
          Copy the image's referrers too, such as signatures, and the attachments that cosign named
          by tags, also those of its platforms

      --since <IMAGE>
          Leave out layers that this image has; may be given several times

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

Examples:
  volio copy registry.example/data:v1 mirror.example/data:v1
  volio copy registry.example/data:v1 oci:/media/stick:v1    for a site without a network
  volio copy oci:/media/stick:v1 inside.example/data:v1      and at that site
  volio copy registry.example/data:v1 docker-archive:data.tar:data:v1
  volio copy --since registry.example/data:v1 registry.example/data:v2 oci:/media/stick:v2
  volio copy --all-tags --referrers registry.example/data mirror.example/data

The copy has the same bytes and the same digest. Blobs that TO has already are not sent again. With
--platform, the digest is that of the platform's manifest, or of a new index of the selected
platforms. A docker-archive can hold one platform only, and no compressed layers: the image for the
host is copied, unless --platform is given, and its layers are decompressed.

With --since, layers that the named images have are left out. The copy in TO is incomplete: it can
be inspected, and copied to a location that has those images.

With --all-tags, FROM and TO are HOST/REPOSITORY, oci:DIR or an archive without a tag. If the image
of one tag is damaged, the other tags are copied, and the exit code reports the damage. Signatures
and other attachments are copied with --referrers only, once with the images that they belong to;
their tags are not images.

With --referrers, a tag of signatures or attestations (.sig, .att) that has others in TO is not
replaced, with a warning.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.
-- exit 0

"#]],
    );
}
