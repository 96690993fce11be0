//! The sockets on which engines connect to the plugin.

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

/// A listening socket of one driver.
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) driver: Driver,
    /// The path and inode of the socket, if it was created here; `None` if its creator removes it.
    made: Option<(PathBuf, u64)>,
}

impl Socket {
    /// Creates the socket of a driver, and its directory if that is missing, since the plugin may start before Docker.
    /// A socket that a killed plugin has left is removed: each attempt to use it costs Docker 15 seconds.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::error::Kind::Refused) if another plugin listens there, or the file is not a socket.
    pub fn make(directory: &Path, driver: Driver) -> Result<Self> {
        let path = directory.join(driver.name()).with_extension("sock");
        let io_error = |error: io::Error| Error::io(format!("cannot listen on {}", path.display()), error);
        fs::create_dir_all(directory).map_err(io_error)?;
        clear_away(&path)?;
        let (listener, inode) = bind_closed(directory, &path).map_err(io_error)?;
        Ok(Self { listener, driver, made: Some((path, inode)) })
    }

    /// Takes over a listening socket, as systemd passes them. Its file name is that of the driver.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Kind::Usage) if the name is not that of a driver.
    pub fn take_over(listener: UnixListener) -> Result<Self> {
        let address = listener.local_addr().map_err(|error| Error::io("cannot use the socket", error))?;
        let name = address.as_pathname().and_then(Path::file_stem).and_then(|name| name.to_str());
        let driver = [Driver::Volio, Driver::Volmex].into_iter().find(|driver| Some(driver.name()) == name);
        match driver {
            Some(driver) => Ok(Self { listener, driver, made: None }),
            None => Err(Error::usage(format!("the socket {address:?} is not a plugin's"))
                .with_hint("Docker knows a plugin by its socket: name it volio.sock or volmex.sock")),
        }
    }

    /// Returns the driver of the socket.
    pub fn driver(&self) -> Driver {
        self.driver
    }
}

/// Binds a socket to which no other user can connect at any moment, whatever the umask is: it is bound in a private
/// directory, and renamed. A client can make this user run commands. Returns its inode too.
fn bind_closed(directory: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    let closed = tempfile::Builder::new().prefix(".volio-").tempdir_in(directory)?;
    let new = closed.path().join("sock");
    // The address of a socket is limited to 108 bytes, so the directory is named by its descriptor.
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
        // Not a socket that was created there since.
        if fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket on which no process listens.
fn clear_away(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at {shown}"), error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::refused(format!("{shown} is there and is not a socket")));
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
