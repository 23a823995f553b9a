//! Where the blocks of a resource lie: the interface to memory and files.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::error::Error;

/// The blocks of one resource. A store only finds places: it is called under the resource's lock, and does no I/O.
pub(super) trait BlockStore: fmt::Debug + Send {
    /// The place of the block of this index. Makes one if the block has none.
    fn entry(&mut self, index: u64) -> Arc<dyn Place>;

    /// The place of the block of this index, if it has one.
    fn get(&self, index: u64) -> Option<Arc<dyn Place>>;

    /// The indices within this range that have a place, in order.
    fn indices(&self, within: Range<u64>) -> Vec<u64>;

    /// Forgets a block. Its place is given to another block once no thread holds it.
    fn remove(&mut self, index: u64);

    /// Takes the memory of a whole block. False if blocks do not lie in memory; then nothing changes.
    fn keep(&mut self, _index: u64, _block: &mut Buffer) -> bool {
        false
    }

    /// True if no place waits for a disk.
    fn is_in_memory(&self) -> bool {
        false
    }

    /// Takes in that a write to `place`, that of the block of this index, has failed. `None` if there is no other way to store
    /// it. Otherwise the block is forgotten, and gets another place; the result is to be called with the error, without a lock.
    fn handle_failure(&mut self, _index: u64, _place: &Arc<dyn Place>) -> Option<OnFailure> {
        None
    }

    /// True if its drop takes the system long enough to be done on another thread.
    fn is_slow_to_drop(&self) -> bool {
        false
    }

    /// True if what is stored is of use when the resource is gone.
    fn outlives_resource(&self) -> bool {
        false
    }

    /// Bytes that others may have stored since the last call, each in a block that has a place now.
    #[cfg(feature = "cache")]
    fn poll_stored(&mut self) -> Vec<Range<u64>> {
        Vec::new()
    }

    /// The store that takes what this one can't. Nothing is in it, and this one is of no use afterwards. `None` if there is none.
    #[cfg(feature = "cache")]
    fn take_fallback(&mut self) -> Option<Box<dyn BlockStore>> {
        None
    }
}

/// Gets the error of a store that goes on without what has failed.
pub(crate) type OnFailure = Box<dyn FnOnce(Error) + Send>;

/// Where one block lies. It belongs to that block for as long as a thread holds it, also after the block was removed.
/// So bytes are read and written without the resource's lock, and never end up in another block.
pub(super) trait Place: fmt::Debug + Send + Sync {
    /// Fills `buf` with the block's bytes from the offset `within` on. False if they are lost, and have to be stored again.
    fn read(&self, within: u64, buf: &mut [u8]) -> Result<bool, Error>;

    /// Stores `bytes` at the offset `within` of the block.
    fn write(&self, within: u64, bytes: &[u8]) -> Result<(), Error>;
}
