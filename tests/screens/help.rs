//! Help, completions and manual pages: all made from the same definitions.

use super::{Place, assert_screen};
use snapbox::str;
use std::fs;

const COMMANDS: [&str; 11] =
    ["pack", "unpack", "copy", "push", "pull", "ls", "inspect", "login", "logout", "completions", "man"];

#[test]
fn nothing_typed() {
    assert_screen(
        Place::new().screen(""),
        str![[r#"
-- stderr
Move data in and out of OCI registries without Docker

Usage: volio <COMMAND>

Commands:
  pack         Pack directories and files into an image
  unpack       Unpack an image into a directory
  copy         Copy an image from one place to another
  push         Copy an image into a registry
  pull         Copy an image out of a registry
  ls           List what is in an image
  inspect      Show what an image says about itself
  login        Keep a name and a password for a registry, after trying them
  logout       Forget the name and the password for a registry
  completions  Print completions for a shell
  man          Print the manual page, or write all of them
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help (see more with '--help')
  -V, --version  Print version
-- exit 2

"#]],
    );
}

#[test]
fn the_program() {
    assert_screen(
        Place::new().screen("--help"),
        str![[r#"
Move data in and out of OCI registries without Docker

A directory becomes an image whose layers hold its files, and comes back as it was. The image is an
ordinary one: Kubernetes mounts it as an image volume; docker, podman and containerd pull it. No
daemon, no socket, no root.

Usage: volio <COMMAND>

Commands:
  pack         Pack directories and files into an image
  unpack       Unpack an image into a directory
  copy         Copy an image from one place to another
  push         Copy an image into a registry
  pull         Copy an image out of a registry
  ls           List what is in an image
  inspect      Show what an image says about itself
  login        Keep a name and a password for a registry, after trying them
  logout       Forget the name and the password for a registry
  completions  Print completions for a shell
  man          Print the manual page, or write all of them
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help
          Print help (see a summary with '-h')

  -V, --version
          Print version

Examples:
  volio pack oci:backup:monday /srv/data       a directory into an image layout
  volio pack registry.example/data:v1 .        a directory into a registry, without a copy on disk
  volio unpack registry.example/data:v1 /data  and back into a directory
  volio copy oci:backup:monday registry.example/backup:monday

Places:
  HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]  an image in a registry; docker:// may stand before it
  oci:DIR[:TAG], oci:DIR@DIGEST          an image in an OCI image layout, a directory

Environment:
  REGISTRY_AUTH_FILE  a file with credentials, as --authfile
  DOCKER_AUTH_CONFIG  credentials themselves: JSON like Docker's config.json
  DOCKER_CONFIG       a directory with Docker's config.json
  CONTAINERS_REGISTRIES_CONF  a file with mirrors, in place of registries.conf
  SSL_CERT_FILE       certificates of authorities, in place of the machine's; SSL_CERT_DIR likewise
  HTTPS_PROXY         a proxy for encrypted connections; HTTP_PROXY, NO_PROXY and ALL_PROXY likewise
  SOURCE_DATE_EPOCH   seconds since 1970: no time in an image is later
  NO_COLOR            when set, no colour

Exit codes:
    0  done
    1  failed: a network, a disk, a server
    2  usage: asking differently helps
    3  integrity: the data is not what its digest, size or format says
    4  not found
    5  denied: credentials or permissions do not suffice
    6  refused: the target holds something that would be lost
  130  interrupted
-- exit 0

"#]],
    );
}

#[test]
fn pack() {
    assert_screen(
        Place::new().screen("pack --help"),
        str![[r#"
Pack directories and files into an image

Usage: volio pack [OPTIONS] <IMAGE> <SOURCE[:PATH]>...

Arguments:
  <IMAGE>
          Where the image shall be: HOST/REPOSITORY:TAG or oci:DIR[:TAG]

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
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  volio pack --platform linux/arm64 --entrypoint '["/volio"]' registry.example/volio:v1 volio

SOURCE is a directory or a file; PATH is absolute, and / unless given. A directory's contents land
at PATH. A file lands at PATH, or in it under its own name where PATH ends with a slash.

A file .volioignore at the root of a SOURCE names what to leave out, in the words of .gitignore.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images
are data and the same for all platforms.

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
          Where the image is: HOST/REPOSITORY:TAG or oci:DIR[:TAG]

  <DIR>
          The directory that the files shall be in

Options:
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

Output options:
      --format <FORMAT>
          Print the result for people, or as one JSON document
          
          [default: text]
          [possible values: text, json]

  -q, --quiet
          Print nothing on stderr but errors

Examples:
  volio unpack registry.example/data:v1 /data
  volio unpack oci:backup:monday restored
  volio unpack --platform linux/arm64 registry.example/app:v1 rootfs

DIR is made when it is missing. It must be empty: what it holds would be mixed up with the image.

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
          Where the image is: HOST/REPOSITORY:TAG or oci:DIR[:TAG]

  <TO>
          Where it shall be too

Options:
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

No byte changes, so the digest stays. What is there already is not sent again.

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
          Where the image is: HOST/REPOSITORY:TAG or oci:DIR[:TAG]

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

#[test]
fn every_command_has_short_and_long_help_that_fits_the_screen() {
    let place = Place::new();
    for command in COMMANDS {
        let [short, long] = ["-h", "--help"].map(|flag| place.screen(&format!("{command} {flag}")));
        assert!(short.ends_with("-- exit 0\n") && long.ends_with("-- exit 0\n"), "{command}");
        assert!(long.contains("\nExamples:\n") && !short.contains("\nExamples:\n"), "{command}");
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn a_command_that_does_not_exist() {
    assert_screen(
        Place::new().screen("upnack"),
        str![[r#"
-- stderr
error: unrecognized subcommand 'upnack'

  tip: some similar subcommands exist: 'pack', 'unpack'

Usage: volio <COMMAND>

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn a_flag_that_does_not_exist() {
    assert_screen(
        Place::new().screen("pack --plattform linux/amd64 oci:layout tree"),
        str![[r#"
-- stderr
error: unexpected argument '--plattform' found

  tip: a similar argument exists: '--platform'

Usage: volio pack --platform <OS/ARCH> <IMAGE> <SOURCE[:PATH]>...

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn completions_know_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.screen(&format!("completions {shell}"));
        assert!(script.ends_with("-- exit 0\n"), "{script}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn manual_pages_are_one_for_each_command() {
    let place = Place::new();
    let one = place.screen("man");
    assert!(one.contains(".TH volio 1") && one.contains(".SH \"EXIT CODES\""), "{one}");
    assert_screen(
        place.screen("man --dir new/man1"),
        str![[r#"
-- exit 0

"#]],
    );
    let mut pages: Vec<String> = fs::read_dir(place.path().join("new/man1"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let mut expected: Vec<String> = COMMANDS.iter().map(|command| format!("volio-{command}.1")).collect();
    expected.push("volio.1".to_owned());
    expected.sort();
    assert_eq!(pages, expected);
}
