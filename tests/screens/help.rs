//! Help, completions and manual pages: all made from the same definitions.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

const COMMANDS: [&str; 20] = [
    "pack",
    "unpack",
    "copy",
    "push",
    "pull",
    "ls",
    "cat",
    "diff",
    "doctor",
    "inspect",
    "verify",
    "sign",
    "tags",
    "rm",
    "prune",
    "login",
    "logout",
    "plugin",
    "completions",
    "man",
];

#[test]
fn nothing_typed() {
    assert_screen(
        Workspace::new().screen(""),
        str![[r#"
-- stderr
Move directories in and out of OCI registries, without Docker

Usage: volio [OPTIONS] <COMMAND>

Commands:
  pack         Pack directories and files into an image
  unpack       Unpack an image into a directory
  copy         Copy an image from one location to another
  push         Copy an image into a registry
  pull         Copy an image out of a registry
  ls           List what is in an image
  cat          Write files of an image to standard output
  diff         Show what differs between two images, or an image and a directory
  inspect      Show what an image is made of: platforms, layers, base, history, signatures
  verify       Verify every blob of an image
  sign         Sign an image
  doctor       Examine an image or a registry: what will not work, why, and what to do
  tags         List the tags of a repository or a layout
  rm           Remove an image from a registry or a layout
  prune        Remove the images of a repository or a layout that no rule keeps
  login        Store a user name and a password for a registry, after checking them
  logout       Remove the user name and the password for a registry
  plugin       Serve volumes to Docker and Podman
  completions  Print completions for a shell
  man          Print the manual page, or write all of them
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help (see more with '--help')
  -V, --version  Print version

Output options:
      --color <WHEN>     Colour the output: on a terminal, unless NO_COLOR is set; always; or never
                         [default: auto] [possible values: auto, always, never]
      --progress <FORM>  Show progress: bars on a terminal and lines elsewhere; bars; lines; JSON
                         objects; or nothing [default: auto] [possible values: auto, tty, plain,
                         json, none]
-- exit 2

"#]],
    );
}

#[test]
fn the_program() {
    assert_screen(
        Workspace::new().screen("--help"),
        str![[r#"
Move directories in and out of OCI registries, without Docker

A directory becomes an image whose layers hold its files, and comes back as it was. The image is an
ordinary one: Kubernetes mounts it as an image volume; docker, podman and containerd pull it. No
daemon, no socket, no root.

Usage: volio [OPTIONS] <COMMAND>

Commands:
  pack         Pack directories and files into an image
  unpack       Unpack an image into a directory
  copy         Copy an image from one location to another
  push         Copy an image into a registry
  pull         Copy an image out of a registry
  ls           List what is in an image
  cat          Write files of an image to standard output
  diff         Show what differs between two images, or an image and a directory
  inspect      Show what an image is made of: platforms, layers, base, history, signatures
  verify       Verify every blob of an image
  sign         Sign an image
  doctor       Examine an image or a registry: what will not work, why, and what to do
  tags         List the tags of a repository or a layout
  rm           Remove an image from a registry or a layout
  prune        Remove the images of a repository or a layout that no rule keeps
  login        Store a user name and a password for a registry, after checking them
  logout       Remove the user name and the password for a registry
  plugin       Serve volumes to Docker and Podman
  completions  Print completions for a shell
  man          Print the manual page, or write all of them
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help
          Print help (see a summary with '-h')

  -V, --version
          Print version

Output options:
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
  volio pack oci:backup:monday /srv/data       a directory into an image layout
  volio pack registry.example/data:v1 .        a directory into a registry, without a copy on disk
  volio unpack registry.example/data:v1 /data  and back into a directory
  volio copy oci:backup:monday registry.example/backup:monday

Locations:
  HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]  an image in a registry; docker:// or oci:// may stand
  before it
  oci:DIR[:TAG], oci:DIR@DIGEST          an image in an OCI image layout, a directory
  oci-archive:FILE[:TAG]                 an image in such a layout in a tar file
  docker-archive:FILE[:REF]              an image in a tar file for docker load, called REF there

Environment:
  REGISTRY_AUTH_FILE  a file with credentials, as --authfile
  DOCKER_AUTH_CONFIG  credentials themselves: JSON like Docker's config.json
  DOCKER_CONFIG       a directory with Docker's config.json
  CONTAINERS_REGISTRIES_CONF  a file with mirrors, in place of registries.conf
  SSL_CERT_FILE       certificates of authorities, in place of the machine's; SSL_CERT_DIR likewise
  HTTPS_PROXY         a proxy for encrypted connections; HTTP_PROXY, NO_PROXY and ALL_PROXY likewise
  SOURCE_DATE_EPOCH   seconds since 1970: no time in an image is later
  NO_COLOR            when set, no colours without --color; CLICOLOR and CLICOLOR_FORCE likewise
  VOLIO_OPTION        the value of --option of any command, such as VOLIO_AUTHFILE; or
  VOLIO_OPTION_FILE   a file with it

Exit codes:
    0  done
    1  failed: a network, a disk, a server
    2  usage: the arguments are invalid
    3  integrity: the data is not what its digest, size or format says
    4  not found
    5  denied: credentials or permissions do not suffice
    6  refused: the target holds something that would be lost
    7  differs: volio diff has found something
  130  interrupted; 143 by SIGTERM
-- exit 0

"#]],
    );
}

#[test]
fn every_command_has_short_and_long_help_that_fits_the_screen() {
    let place = Workspace::new();
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
        Workspace::new().screen("upnack"),
        str![[r#"
-- stderr
error: unrecognized subcommand 'upnack'

  tip: some similar subcommands exist: 'pack', 'unpack'

Usage: volio [OPTIONS] <COMMAND>

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn a_flag_that_does_not_exist() {
    assert_screen(
        Workspace::new().screen("pack --plattform linux/amd64 oci:layout tree"),
        str![[r#"
-- stderr
error: unexpected argument '--plattform' found

  tip: a similar argument exists: '--platform'

Usage: volio pack --platform <OS/ARCH> [IMAGE] [SOURCE[:PATH]]...

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn completions_know_every_command() {
    let place = Workspace::new();
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
    let place = Workspace::new();
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
