//! The persistent cache: media on disk that outlives the process, shared by any number of processes. Needs the feature
//! `cache`.
//!
//! [`FileConfig::cache`](crate::FileConfig::cache) gives a [`Cache`] to a stream, and `HlsConfig::cache` to a presentation of
//! HLS. What the stream fetches is stored, in part or whole. The next stream of the same URL serves it without waiting for the
//! network, and fetches what is missing. A server that has a newer version ends the stream with
//! [`ErrorKind::Changed`](crate::ErrorKind::Changed), and opening the URL again plays the new one. What is stored and for how
//! long it is fresh follows RFC 9111.
//!
//! | stored entry | with network | offline |
//! |---|---|---|
//! | fresh (`max-age`, `Expires`) | no request for what is stored | plays |
//! | stale | plays at once, and is validated meanwhile | plays, up to [`CacheConfig::max_age`] |
//! | `no-cache`; stale and `must-revalidate`; older than `max_age` | validated by the first request | does not open |
//!
//! No URL, header or key is written to disk: names are digests. Bodies, media types, validators and the application's labels
//! are stored as they are, but for playlists of HLS, which lose the values of queries. The directory is for its user alone.
//! Encrypted media are stored as received.
//!
//! ## Why a crash can't make a wrong byte
//!
//! 1. A byte is served only if it agrees with a checksum: that of the filled part of its block, kept in the block's slot.
//! 2. The slot has a checksum of its own, seeded with the identity of the representation and the block's index. So a slot that
//!    was torn, or is of another block or file, is none.
//! 3. Both are checked by the first touch of a process. From then on only bytes that were checked, or that the process wrote
//!    itself, are served, until the entry is closed.
//! 4. So nothing depends on the order in which writes reach the disk, nor on whether they do: bytes without their slot, and a
//!    slot without its bytes, are a miss, with a probability of 1 − 2⁻⁶⁴. No read or write waits for a sync.
//! 5. The header is written before the file gets its name. One that a crash tore has a wrong checksum, and the entry is
//!    removed.
//! 6. The name contains the identity: key, validator and length. Processes that write the same file write equal bytes to equal
//!    offsets. If two write one slot, the last one counts: fewer bytes may have a checksum, never others.
//! 7. An entry is evicted only under an exclusive lock, and users hold a shared one. [`Cache::remove`] takes the name of one that
//!    is in use. So each stream that opens an entry asks whether the file still has its name; without one it is opened again.
//! 8. Another program may truncate a file that is open. A file that has become shorter is not written any more, so a hole never
//!    takes the place of bytes that were checked.
//!
//! ## Windows
//!
//! The same holds, with share modes of open files in the place of locks. What differs:
//!
//! - The directory has to lie in the profile of the user: below `USERPROFILE`, `LOCALAPPDATA` or `APPDATA`, where other users may
//!   not read by default. `%LOCALAPPDATA%` is the place for caches. [`Cache::open`] fails elsewhere.
//! - An entry takes room up to its last stored byte, since std can't make files with holes. After a read of the end of a long
//!   file its entry has the length of the file, and Windows fills what lies between with zeros.
//! - [`Cache::pin`] waits until the bytes are on the disk. The name is there as well on NTFS, which writes its journal with them.

mod config;
mod directory;
mod entry;
mod format;
mod freshness;
mod handle;
mod layer;
mod part;
mod quota;
mod store;
mod sys;
mod uses;

pub use config::{CacheConfig, CacheKey, SIGNING_FIELDS};
pub use handle::{Cache, CacheEntry};
pub use uses::CacheUse;

pub(crate) use format::{BLOCK, Header, KeyDigest, key_digest};
#[cfg(feature = "hls")]
pub(crate) use freshness::Policy;
pub(crate) use freshness::{Exchange, Use, seconds};
pub(crate) use part::{PartFile, PartReader};
pub(crate) use store::Entry;
