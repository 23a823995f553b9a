//! A file of this machine as a source.
//!
//! Only [`Stream::open_file`](crate::Stream::open_file) makes one, from a path of the application. No URL leads here:
//! the client requests an `HttpUrl`, which has the scheme `http` or `https` by construction.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::Source;
use crate::error::{Error, ErrorKind};
use crate::media::{FirstBytes, MediaInfo};

/// A regular file. Read at positions, so that its readers share one descriptor.
pub(crate) struct LocalFile {
    path: PathBuf,
    file: File,
    media: MediaInfo,
}

impl LocalFile {
    /// Opens the file and detects the kind of media from its first bytes.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        // Checked before the file is opened: opening a named pipe blocks until another process writes to it.
        let metadata = fs::metadata(path).map_err(|error| failed("open", path, error))?;
        if !metadata.is_file() {
            let why = format!("can't open {}: it is not a regular file", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        let file = File::open(path).map_err(|error| failed("open", path, error))?;
        let mut local = Self { path: path.to_owned(), file, media: MediaInfo::default() };
        let mut first = vec![0; FirstBytes::MOST];
        let got = local.read_at(0, &mut first)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        local.media = MediaInfo::of_local_file(extension, &first[..got]);
        Ok(local)
    }
}

impl Source for LocalFile {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            // At a position, never at the file's own one: readers on other threads share the descriptor.
            match read_some(&self.file, buf, position) {
                // A stream never returns `Interrupted` for a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|error| failed("read", &self.path, error)),
            }
        }
    }

    /// The length now: another program may extend the file.
    fn len(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }

    fn media_info(&self) -> MediaInfo {
        self.media.clone()
    }
}

fn failed(what: &str, path: &Path, cause: io::Error) -> Error {
    let why = format!("can't {what} {}", path.display());
    Error::new(ErrorKind::Io(cause.kind()), why).with_cause(cause)
}

#[cfg(unix)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, at)
}

#[cfg(windows)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, at)
}
