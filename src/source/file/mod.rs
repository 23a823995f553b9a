//! Progressive files: a source that fetches what its readers need, in pieces, and keeps it in storage.
//!
//! A read is served from storage. If the bytes are not stored, the read registers what it needs, wakes the file's peer
//! and blocks. When a worker is free, the peer asks the [plan] for the next fetch. A [piece] writes the bytes into
//! storage, which wakes the reader. If the server has no ranges, a thread of the file reads the body [from start to
//! end](sequential).

mod acceptance;
mod adopted;
mod alignment;
#[cfg(feature = "cache")]
mod backing;
mod bisection;
mod blocking;
#[cfg(feature = "cache")]
mod cached;
#[cfg(feature = "cache")]
mod caching;
#[cfg(feature = "cache")]
mod download;
mod failure;
mod http_file;
mod limits;
mod mode;
mod network;
mod one_body;
mod outage;
mod overlap;
mod peer;
mod piece;
mod plan;
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of stored ranges, some of one")]
mod plan_tests;
mod planning;
mod pool;
mod probe;
mod reader;
mod reader_id;
mod reader_view;
mod sequential;
mod shared;
mod state;
mod suffix;
mod suffix_sink;
mod upcoming;
mod urgency;
mod windows;

pub(crate) use self::adopted::adopt;
pub(crate) use self::http_file::HttpFile;
pub(crate) use self::plan::OPENING;
pub(crate) use self::reader::FileReader;
