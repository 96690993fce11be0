//! `volio plugin`: errors at its start. The service is tested in `plugin/`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

#[test]
fn a_storage_that_is_not_there() {
    assert_screen(
        Workspace::new().screen("plugin --storage nowhere --sockets sockets"),
        str![[r#"
-- stderr
error: cannot open the storage nowhere: No such file or directory (os error 2)
hint: make the directory, or mount the disk that it is on
-- exit 4

"#]],
    );
}

#[test]
fn a_list_of_volumes_that_cannot_be_understood() {
    let place = Workspace::new();
    fs::create_dir(place.path().join("storage")).unwrap();
    fs::write(place.path().join("storage/volumes.json"), "{\"a\":").unwrap();
    let screen = place.screen("plugin --storage storage --sockets sockets");
    assert!(screen.contains("storage/volumes.json cannot be understood: EOF"), "{screen}");
    assert!(screen.contains("hint: repair the file") && screen.ends_with("-- exit 3\n"), "{screen}");
    assert!(!place.path().join("sockets").exists(), "no engine finds it");
}

#[test]
fn something_else_where_the_socket_shall_be() {
    let place = Workspace::new();
    fs::create_dir_all(place.path().join("sockets/volio.sock")).unwrap();
    fs::create_dir(place.path().join("storage")).unwrap();
    assert_screen(
        place.screen("plugin --storage storage --sockets sockets"),
        str![[r#"
-- stderr
error: sockets/volio.sock is there and is not a socket
-- exit 6

"#]],
    );
}
