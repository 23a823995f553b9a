//! Where a reader's bytes come from: files over HTTP, and radio.
//!
//! A source decides what to fetch next and keeps what has come in [storage](crate::storage). The
//! [downloader](crate::downloader) fetches it.

pub(crate) mod file;
pub(crate) mod radio;
