//! The sockets on which engines find the plugin.

use super::Driver;
use crate::disk::directory::proc_path;
use crate::error::{Error, Result};
use rustix::fd::AsFd;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that an engine finds one driver on.
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) driver: Driver,
    /// Where it was made, with the number of its inode; `None` for one that somebody else made and will clean up.
    made: Option<(PathBuf, u64)>,
}

impl Socket {
    /// Makes the socket of a driver in the directory where engines look, and the directory where that is missing: after
    /// a start of the machine the plugin is there before Docker is. What a plugin that was killed has left is cleared
    /// away, since each look for it costs Docker 15 seconds.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when another plugin answers there, or what is there is no socket.
    pub fn make(directory: &Path, driver: Driver) -> Result<Self> {
        let path = directory.join(driver.name()).with_extension("sock");
        let trouble = |error: io::Error| Error::io(format!("cannot listen on {}", path.display()), error);
        fs::create_dir_all(directory).map_err(trouble)?;
        clear_away(&path)?;
        let (listener, inode) = bind_closed(directory, &path).map_err(trouble)?;
        Ok(Self { listener, driver, made: Some((path, inode)) })
    }

    /// Takes over a socket that is listening already, as systemd hands them out; its name says whose it is.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when its name is that of no driver.
    pub fn take_over(listener: UnixListener) -> Result<Self> {
        let address = listener.local_addr().map_err(|error| Error::io("cannot use the socket", error))?;
        let name = address.as_pathname().and_then(Path::file_stem).and_then(|name| name.to_str());
        let driver = [Driver::Volio, Driver::Volmex].into_iter().find(|driver| Some(driver.name()) == name);
        match driver {
            Some(driver) => Ok(Self { listener, driver, made: None }),
            None => Err(Error::usage(format!("the socket {address:?} is no plugin's"))
                .with_hint("Docker knows a plugin by its socket: name it volio.sock or volmex.sock")),
        }
    }

    /// The driver that is found on it.
    pub fn driver(&self) -> Driver {
        self.driver
    }
}

/// Binds a socket that nobody else can speak to at any moment, whatever the umask is: it is made in a directory that
/// nobody else can enter. Who can speak to it can have commands run as this user. Returns the number of its inode too.
fn bind_closed(directory: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    let closed = tempfile::Builder::new().prefix(".volio-").tempdir_in(directory)?;
    let new = closed.path().join("sock");
    // The address of a socket is short, and a path may be long.
    let fd = File::open(closed.path())?;
    let listener = UnixListener::bind(Path::new(&proc_path(fd.as_fd())).join("sock"))?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&new)?.ino();
    renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)?;
    Ok((listener, inode))
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some((path, inode)) = &self.made else { return };
        // Not one that somebody else has put there since.
        if fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket on which nobody answers.
fn clear_away(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at {shown}"), error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::refused(format!("{shown} is there and is no socket")));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::refused(format!("another plugin answers on {shown}")).with_hint("stop it first")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| Error::io(format!("cannot remove the stale socket {shown}"), error)),
        Err(error) => Err(Error::io(format!("cannot tell whether a plugin answers on {shown}"), error)),
    }
}
