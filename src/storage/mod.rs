//! The stored bytes of one file. Sinks write them, readers read them and block until they arrive.
//!
//! ```text
//!   loading       reads that never wait for a disk
//!   background    what the disk thread does for a resource
//!   resource      which bytes are stored, and the threads that wait for them: one mutex, one condvar
//!   disk          the thread for file I/O
//!   write_behind  blocks that are not written yet, held in memory
//!   block_cache   blocks of a file on disk, held in memory
//!   store         trait BlockStore: memory | temp_file | cached
//!   layout        how bytes are divided into blocks
//!   ranges        a set of byte ranges
//! ```
//!
//! Each row uses the rows below it only.

mod background;
mod block_cache;
#[cfg(feature = "cache")]
mod cached;
mod disk;
mod layout;
mod loading;
mod memory;
mod ranges;
mod resource;
mod store;
mod temp_file;
mod write_behind;

pub(crate) use loading::TryStored;
pub(crate) use ranges::RangeSet;
pub(crate) use resource::Resource;

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of windows, some of one")]
mod tests;
