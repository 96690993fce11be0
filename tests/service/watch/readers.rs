//! Programs that hold directories and files of a version open while other versions are published and old ones removed.

use super::{Lab, link};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex};
use volio::service::publish::Publication;

/// A program that has opened a directory and its file `version`.
struct Reader {
    directory: OwnedFd,
    file: File,
}

impl Reader {
    fn open(directory: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, directory, flags, Mode::empty()).unwrap();
        let file = open_version(&directory).unwrap();
        Self { directory, file }
    }

    /// Returns the content of the file that is open.
    fn content_of_open_file(&mut self) -> String {
        self.file.rewind().unwrap();
        text(&self.file)
    }

    /// Opens the file again in the directory that is open.
    fn reopen(&self) -> Result<String, Errno> {
        open_version(&self.directory).map(|file| text(&file))
    }

    /// Returns the number of entries of the directory that is open.
    fn entries(&self) -> usize {
        let names =
            Dir::read_from(&self.directory).unwrap().map(|entry| entry.unwrap().file_name().to_owned());
        names.filter(|name| !name.to_bytes().starts_with(b".")).count()
    }
}

fn open_version(directory: &OwnedFd) -> Result<File, Errno> {
    openat(directory, "version", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

fn text(mut file: &File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

type Readers = Arc<Mutex<Vec<Reader>>>;

/// git-sync#692, git-sync#856 and git-sync#827: the old tree was removed under a reader, or a handle became stale.
#[test]
fn a_directory_that_is_held_open_is_readable_while_it_is_kept_and_does_not_keep_old_versions_from_removal() {
    let lab = Lab::new();
    lab.push("1");
    let readers = Readers::default();
    let [first, second, third, last] = [(); 4].map(|()| Arc::clone(&readers));
    let run = lab.run(14).before_poll(1, move |lab| {
        first.lock().unwrap().push(Reader::open(&lab.at("target/current")));
        lab.push("2");
    });
    let run = run.before_poll(3, move |lab| {
        let mut readers = second.lock().unwrap();
        assert_eq!(lab.published("current"), "2");
        assert_eq!(readers[0].reopen().as_deref(), Ok("1"), "--keep-previous keeps it");
        assert_eq!(readers[0].content_of_open_file(), "1");
        readers.push(Reader::open(&lab.at("target/current")));
        lab.push("3");
    });
    let run = run.before_poll(6, move |lab| {
        let mut readers = third.lock().unwrap();
        assert_eq!(
            lab.published("current"),
            "3",
            "a reader that resolves the link again has the present version"
        );
        assert_eq!((readers[0].reopen(), readers[0].entries()), (Err(Errno::NOENT), 0), "it was removed");
        assert_eq!(readers[0].content_of_open_file(), "1", "a file that is open stays as it is");
        assert_eq!(readers[1].reopen().as_deref(), Ok("2"));
        lab.push("4");
    });
    run.before_poll(9, move |lab| {
        let mut readers = last.lock().unwrap();
        assert_eq!(readers[1].reopen(), Err(Errno::NOENT));
        assert_eq!(readers[1].content_of_open_file(), "2");
        readers.push(Reader::open(&lab.at("target/current")));
        assert_eq!(readers[2].reopen().as_deref(), Ok("4"));
    })
    .go()
    .unwrap();
    // Two versions, the link and the private directory.
    assert_eq!(fs::read_dir(lab.at("target")).unwrap().count(), 4);
    assert_eq!(fs::read_dir(lab.at("target/.volio.watch")).unwrap().count(), 1);
    assert!(!lab.log().has("stays"), "{:?}", lab.log().all());
}

/// git-sync#799
#[test]
fn a_directory_that_is_held_open_shows_each_version_in_place_and_its_open_files_stay_whole() {
    let lab = Lab::new();
    lab.push("1");
    let reader = Readers::default();
    let (open, look) = (Arc::clone(&reader), Arc::clone(&reader));
    let run = lab.run(6).with(|options| options.publication = Publication::InPlace);
    let run = run.before_poll(1, move |lab| {
        open.lock().unwrap().push(Reader::open(&lab.at("target")));
        lab.push("2, which is longer");
    });
    run.before_poll(3, move |_| {
        let mut readers = look.lock().unwrap();
        assert_eq!(readers[0].reopen().as_deref(), Ok("2, which is longer"));
        assert_eq!(readers[0].content_of_open_file(), "1");
    })
    .go()
    .unwrap();
    assert_eq!(reader.lock().unwrap().len(), 1);
}

/// git-sync#827: what a watch itself holds open is gone after a file server was restarted, or a volume mounted again.
#[test]
fn a_watch_whose_directories_were_replaced_opens_them_again_and_publishes_there() {
    for publication in [link(), Publication::InPlace] {
        let lab = Lab::new();
        lab.push("1");
        let name = if publication == Publication::InPlace { "" } else { "current" };
        let run = lab.run(12).with(|options| options.publication = publication.clone());
        let run = run.before_poll(2, move |lab| {
            assert_eq!(lab.published(name), "1");
            fs::rename(lab.at("target"), lab.at("gone")).unwrap();
            fs::create_dir(lab.at("target")).unwrap();
        });
        let run = run.before_poll(4, move |lab| {
            assert_eq!(lab.published(name), "1", "the same version, in the new directory");
            fs::remove_dir_all(lab.at("target/.volio.watch")).unwrap();
            lab.push("2");
        });
        run.go().unwrap();
        assert_eq!(lab.published(name), "2");
        let old = lab.at("gone").join(name).join("version");
        assert_eq!(fs::read_to_string(old).unwrap(), "1", "nothing is written to the old one");
    }
}
