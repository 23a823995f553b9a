//! The files that an entry lies in, as far as it reads and writes them: the place where tests put faulty ones.

use std::fmt;
use std::fs::File;
use std::io;

/// A file that is read and written at offsets.
pub(crate) trait FileLayer: fmt::Debug + Send + Sync {
    /// Reads some bytes. 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes some bytes, and makes the file longer if necessary.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Number of bytes up to the end of the file.
    fn len(&self) -> io::Result<u64>;
}

impl FileLayer for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, at)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, at)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        // On Windows this also moves the position of the file, which nothing here uses.
        std::os::windows::fs::FileExt::seek_read(self, buf, at)
    }

    #[cfg(windows)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(self, bytes, at)
    }
}

/// Fills as much of `buf` as the file has. Returns how much that is.
pub(crate) fn read_full(file: &dyn FileLayer, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], at + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            // EINTR, POSIX read(): a signal came before the first byte, so nothing was read.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes.
pub(crate) fn write_full(file: &dyn FileLayer, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            // A file that takes no byte without an error would make this loop endless.
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
