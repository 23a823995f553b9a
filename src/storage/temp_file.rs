//! Blocks in an unnamed temporary file: in order of arrival, found by a map. The file is gone with its last handle,
//! also after a crash.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::BLOCK;
use crate::error::{Error, ErrorKind};

/// Where each block lies in the file. Bytes are read and written by whoever looked it up, without this being locked.
#[derive(Debug)]
pub(super) struct FileBlocks {
    file: Arc<File>,
    /// Slot in the file, by the block's index.
    slots: BTreeMap<u64, Arc<Slot>>,
    /// Slots of blocks that were let go. One that somebody still reads or writes is not given to another block.
    free: Vec<Arc<Slot>>,
    /// Slots ever used; the file is no longer than that.
    used: u64,
}

/// Where a block lies in the file, in blocks.
#[derive(Debug)]
struct Slot(u64);

/// A place in the file, held for as long as it is read or written.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: Arc<File>,
    slot: Arc<Slot>,
}

impl FileBlocks {
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Error> {
        let file = match directory {
            Some(directory) => tempfile::tempfile_in(directory),
            None => tempfile::tempfile(),
        };
        let file = file.map_err(|error| storage_error("a temporary file can't be made", error))?;
        Ok(Self::over(file))
    }

    pub(super) fn over(file: File) -> Self {
        Self { file: Arc::new(file), slots: BTreeMap::new(), free: Vec::new(), used: 0 }
    }

    /// How long the file is at most, in blocks.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.used
    }

    /// The place of the block of this index; given one if it has none.
    pub(super) fn entry(&mut self, index: u64) -> Place {
        let (free, used) = (&mut self.free, &mut self.used);
        let slot = self.slots.entry(index).or_insert_with(|| {
            let unheld = free.iter().position(|slot| Arc::strong_count(slot) == 1);
            unheld.map(|free_at| free.swap_remove(free_at)).unwrap_or_else(|| {
                *used += 1;
                Arc::new(Slot(*used - 1))
            })
        });
        Place { file: Arc::clone(&self.file), slot: Arc::clone(slot) }
    }

    pub(super) fn get(&self, index: u64) -> Option<Place> {
        let slot = Arc::clone(self.slots.get(&index)?);
        Some(Place { file: Arc::clone(&self.file), slot })
    }

    pub(super) fn is_current(&self, index: u64, place: &Place) -> bool {
        self.slots.get(&index).is_some_and(|slot| Arc::ptr_eq(slot, &place.slot))
    }

    /// The blocks of these indices that are there.
    pub(super) fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.slots.range(within).map(|(index, _)| *index).collect()
    }

    /// Frees a block's slot for another block.
    pub(super) fn remove(&mut self, index: u64) {
        self.free.extend(self.slots.remove(&index));
    }
}

impl Place {
    pub(super) fn write(&self, within: u64, mut bytes: &[u8]) -> Result<(), Error> {
        let mut at = self.slot.0 * BLOCK + within;
        while !bytes.is_empty() {
            match write_some(&self.file, bytes, at) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(storage_error("the temporary file accepts no more bytes", error));
                }
                Ok(written) => {
                    bytes = &bytes[written..];
                    at += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(storage_error("the temporary file can't be written", error)),
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, within: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        let mut at = self.slot.0 * BLOCK + within;
        while !buf.is_empty() {
            match read_some(&self.file, buf, at) {
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(storage_error("the temporary file was truncated", error));
                }
                Ok(got) => {
                    buf = &mut buf[got..];
                    at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(storage_error("the temporary file can't be read", error)),
            }
        }
        Ok(())
    }
}

fn storage_error(what: &str, cause: io::Error) -> Error {
    Error::new(ErrorKind::Storage, what).with_cause(cause)
}

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
    std::os::windows::fs::FileExt::seek_read(file, buf, at)
}
