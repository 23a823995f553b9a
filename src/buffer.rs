//! Memory for the bytes of bodies, which goes back to the system when it is dropped.
//!
//! An allocator keeps freed memory of this size for itself: with glibc's, 445 of 512 MiB stayed resident after the file
//! in them was closed, since its threshold for mappings grows to the size of the first one that is freed. So each buffer
//! is an anonymous mapping of its own. Its pages become resident when they are first written.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::{MmapMut, MmapOptions};
use parking_lot::Mutex;

/// Bytes in a buffer: what a worker reads at once, and what storage keeps as one block.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Dropped buffers that are kept for new ones, 4 MiB in the process. To map and unmap one, and to fault its pages in, takes
/// about as long as to receive its bytes over loopback; a stream that keeps a window drops one for each new one.
const MAX_FREE: usize = 16;

static FREE: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());

/// A buffer for a part of a body. See [`Sink::write_block`](crate::downloader::Sink::write_block).
///
/// Its memory goes back to the system when it is dropped, but for a few buffers that the process keeps.
///
/// ```
/// use windway::downloader::Buffer;
///
/// let mut buffer = Buffer::from(b"bytes".to_vec());
/// let kept = std::mem::take(&mut buffer);
/// assert_eq!((&kept[..], buffer.len()), (&b"bytes"[..], 0));
/// ```
#[derive(Default)]
pub struct Buffer(Memory);

#[derive(Default)]
enum Memory {
    #[default]
    None,
    /// A buffer of [`BUFFER`] bytes.
    Mapped(MmapMut),
    Heap(Vec<u8>),
}

impl Buffer {
    /// A buffer of [`BUFFER`] bytes, with any content.
    pub(crate) fn new() -> Self {
        let free = FREE.lock().pop();
        free.map_or_else(Self::sparse, |free| Self(Memory::Mapped(free)))
    }

    /// A buffer of [`BUFFER`] bytes, with any content, all of which are about to be written. Where the system can, it makes all pages
    /// resident in one call, which takes half as long as a page fault for each.
    pub(crate) fn resident() -> Self {
        let free = FREE.lock().pop();
        let mapped = free.map_or_else(|| MmapOptions::new().len(BUFFER).populate().map_anon(), Ok);
        // The system may refuse another mapping where the allocator still has memory.
        Self(mapped.map_or_else(|_| Memory::Heap(vec![0; BUFFER]), Memory::Mapped))
    }

    /// A buffer of [`BUFFER`] zeros, of which a page becomes resident when it is first written. All pages of a kept buffer are.
    pub(crate) fn sparse() -> Self {
        // The system may refuse another mapping where the allocator still has memory.
        Self(MmapMut::map_anon(BUFFER).map_or_else(|_| Memory::Heap(vec![0; BUFFER]), Memory::Mapped))
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Memory::Heap(bytes))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::None => &[],
            Memory::Mapped(bytes) => bytes,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::None => &mut [],
            Memory::Mapped(bytes) => bytes,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A vector was allocated by someone else and has any size, so it is not kept.
        let Memory::Mapped(bytes) = std::mem::take(&mut self.0) else { return };
        let mut free = FREE.lock();
        if free.len() < MAX_FREE {
            free.push(bytes);
            return;
        }
        drop(free);
        // Not under the lock: to unmap takes the system a while.
        drop(bytes);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_is_written_and_is_empty_once_taken() {
        let mut buffer = Buffer::new();
        assert_eq!(buffer.len(), BUFFER);
        buffer[BUFFER - 5..].copy_from_slice(b"bytes");
        let kept = std::mem::take(&mut buffer);
        assert_eq!((buffer.len(), &kept[BUFFER - 5..]), (0, &b"bytes"[..]));
        assert_eq!(Buffer::from(vec![7; 3])[..], [7; 3]);
    }

    #[test]
    fn only_a_few_dropped_buffers_are_kept() {
        drop((0..3 * MAX_FREE).map(|_| Buffer::new()).collect::<Vec<_>>());
        assert!(FREE.lock().len() <= MAX_FREE);
    }
}
