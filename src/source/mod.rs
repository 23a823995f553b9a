//! The sources of a reader's bytes: files over HTTP, and radio.
//!
//! A source decides what to fetch next and keeps the received bytes in [storage](crate::storage). The
//! [downloader](crate::downloader) runs the fetches.

pub(crate) mod file;
pub(crate) mod radio;
