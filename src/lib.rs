//! Streams media over HTTP into code that reads synchronously.

mod cancel;
mod client;
mod config;
mod downloader;
mod error;

pub use cancel::{CancelGuard, CancelReason, CancelToken};
pub use client::ByteRange;
pub use config::{ClientConfig, DownloaderConfig, FileConfig, ReadAhead, StorageConfig};
pub use downloader::Priority;
pub use error::{Error, ErrorKind};
