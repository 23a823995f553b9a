//! Blocks in an unnamed temporary file, in the order in which they arrive. The system deletes the file with its last
//! handle, also after a crash.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::BLOCK;
use super::store::{BlockStore, Place};
use crate::error::{Error, ErrorKind};

/// The file system is asked for this many bytes in advance at most: 4 MiB. More is no faster, and what is left over is small.
const RESERVATION: u64 = 16 * BLOCK;

/// The close of a file with this many blocks, 32 MiB, takes the system about 2 ms.
const SLOW: u64 = 128;

/// All blocks of a resource, in one file.
#[derive(Debug)]
pub(super) struct TempFileStore {
    file: Arc<ReservedFile>,
    /// Slots by the index of their block.
    slots: BTreeMap<u64, Arc<Slot>>,
    /// Slots of removed blocks. One that a thread still reads or writes is not given to another block.
    free: Vec<Arc<Slot>>,
    /// Slots ever used: the file's maximum length, in blocks.
    used: u64,
}

/// A file whose space is reserved before it is written. ext4 then takes 40 % less of the processor's time for a write: it does
/// not look for space page by page.
#[derive(Debug)]
struct ReservedFile {
    file: File,
    /// Where it was made. It has no name.
    directory: PathBuf,
    /// Bytes from the start of the file that were reserved, or could not be. Only grows.
    reserved: AtomicU64,
}

/// Where a block lies in the file.
#[derive(Debug)]
struct Slot {
    file: Arc<ReservedFile>,
    /// Offset in the file, in blocks.
    number: u64,
}

impl TempFileStore {
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Error> {
        let directory = directory.map_or_else(std::env::temp_dir, Path::to_owned);
        let file = tempfile::tempfile_in(&directory);
        let file = file.map_err(|error| storage_error(&directory, "can't be made", error))?;
        Ok(Self::over(file, directory))
    }

    pub(super) fn over(file: File, directory: PathBuf) -> Self {
        let file = ReservedFile { file, directory, reserved: AtomicU64::new(0) };
        Self { file: Arc::new(file), slots: BTreeMap::new(), free: Vec::new(), used: 0 }
    }

    /// A slot that no thread holds.
    fn free_slot(&mut self) -> Arc<Slot> {
        // No thread can get hold of a slot that is in `free`, so the count can't rise after this look. The last one's pages are the
        // likeliest to be in the processor's cache.
        let unheld = self.free.iter().rposition(|slot| Arc::strong_count(slot) == 1);
        unheld.map(|at| self.free.swap_remove(at)).unwrap_or_else(|| {
            self.used += 1;
            Arc::new(Slot { file: Arc::clone(&self.file), number: self.used - 1 })
        })
    }
}

impl BlockStore for TempFileStore {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        if let Some(slot) = self.slots.get(&index) {
            return Arc::clone(slot) as Arc<dyn Place>;
        }
        let slot = self.free_slot();
        self.slots.insert(index, Arc::clone(&slot));
        slot
    }

    fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        self.slots.get(&index).map(|slot| Arc::clone(slot) as Arc<dyn Place>)
    }

    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.slots.range(within).map(|(index, _)| *index).collect()
    }

    fn remove(&mut self, index: u64) {
        self.free.extend(self.slots.remove(&index));
    }

    fn is_slow_to_drop(&self) -> bool {
        self.used >= SLOW
    }
}

impl ReservedFile {
    /// Reserves space up to `end`, and somewhat more. Only a hint: where it can't be had, writes find space or say why not.
    fn reserve(&self, end: u64) {
        // Relaxed: no other memory is read on the strength of it. A thread that writes beside this one may find nothing
        // reserved yet.
        let reserved = self.reserved.load(Ordering::Relaxed);
        if end <= reserved {
            return;
        }
        // As much as there is, so that a short file does not take 4 MiB: in a file system in memory that is memory.
        let until = end + reserved.min(RESERVATION);
        let from = self.reserved.fetch_max(until, Ordering::Relaxed);
        if from < until {
            reserve(&self.file, from..until);
        }
    }
}

impl Slot {
    fn error(&self, what: &str, cause: io::Error) -> Error {
        storage_error(&self.file.directory, what, cause)
    }
}

impl Place for Slot {
    fn read(&self, within: u64, mut buf: &mut [u8]) -> Result<bool, Error> {
        let mut at = self.number * BLOCK + within;
        while !buf.is_empty() {
            match read_some(&self.file.file, buf, at) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(self.error("was truncated", error));
                }
                Ok(got) => {
                    buf = &mut buf[got..];
                    at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("can't be read", error)),
            }
        }
        Ok(true)
    }

    fn write(&self, within: u64, mut bytes: &[u8]) -> Result<(), Error> {
        let mut at = self.number * BLOCK + within;
        self.file.reserve((self.number + 1) * BLOCK);
        while !bytes.is_empty() {
            match write_some(&self.file.file, bytes, at) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(self.error("accepts no more bytes", error));
                }
                Ok(written) => {
                    bytes = &bytes[written..];
                    at += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("can't be written", error)),
            }
        }
        Ok(())
    }
}

/// An error whose text names the directory, whose disk may be full, and the reason.
fn storage_error(directory: &Path, what: &str, cause: io::Error) -> Error {
    let why = format!("a temporary file in {} {what}: {cause}", directory.display());
    Error::new(ErrorKind::Storage, why).with_cause(cause)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn reserve(file: &File, bytes: Range<u64>) {
    use rustix::fs::{FallocateFlags, fallocate};

    // The length stays that of what is written: a read beyond it still finds the end of the file.
    let reserved = fallocate(file, FallocateFlags::KEEP_SIZE, bytes.start, bytes.end - bytes.start);
    if let Err(error) = reserved {
        log::trace!("space for a temporary file can't be reserved: {error}");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reserve(_file: &File, _bytes: Range<u64>) {}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, at)
}

#[cfg(unix)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, at)
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, at)
}

#[cfg(windows)]
fn read_some(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    // Unlike a positioned read of Unix it moves the cursor of the file, which nothing here uses.
    std::os::windows::fs::FileExt::seek_read(file, buf, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_still_held_is_not_given_to_another_block() {
        let mut store = TempFileStore::new(None).unwrap();
        let held = store.entry(7);
        held.write(0, b"seven").unwrap();
        store.remove(7);
        let other = store.entry(8);
        other.write(0, b"eight").unwrap();
        let mut read = [0; 5];
        held.read(0, &mut read).unwrap();
        assert_eq!(&read, b"seven");
        assert!(store.get(7).is_none() && Arc::ptr_eq(&store.get(8).unwrap(), &other));
        drop(held);
        store.entry(9).write(0, b"nine!").unwrap();
        assert_eq!(store.used, 2);
    }

    #[test]
    fn reserved_space_does_not_make_the_file_longer_than_what_is_written() {
        let mut store = TempFileStore::new(None).unwrap();
        let slot = store.entry(0);
        slot.write(0, b"first").unwrap();
        assert_eq!(store.file.reserved.load(Ordering::Relaxed), BLOCK);
        assert_eq!(store.file.file.metadata().unwrap().len(), 5);
        assert_eq!(slot.read(0, &mut [0; 6]).unwrap_err().kind(), ErrorKind::Storage);
    }

    #[test]
    fn reserved_space_is_no_more_than_what_is_written_and_at_most_4_mib() {
        let mut store = TempFileStore::new(None).unwrap();
        for index in 0..64 {
            store.entry(index).write(0, b"bytes").unwrap();
            let (written, reserved) = ((index + 1) * BLOCK, store.file.reserved.load(Ordering::Relaxed));
            assert!(reserved >= written && reserved - written <= written.min(RESERVATION), "{reserved}");
        }
    }
}
