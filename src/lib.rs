//! Streams media over HTTP into code that reads synchronously.

mod bandwidth;
mod cancel;
mod client;
mod config;
mod downloader;
mod error;
mod event;
mod file;
mod media;
mod storage;
mod stream;

pub use cancel::{CancelGuard, CancelReason, CancelToken};
pub use client::{ByteRange, Head, Validator};
pub use config::{ClientConfig, DownloaderConfig, FileConfig, ReadAhead, StorageConfig};
pub use downloader::{
    Downloader, Fetch, Flow, Next, Outcome, Peer, PeerHandle, Priority, RequestId, Response, Sink, Stats,
    Waker,
};
pub use error::{Error, ErrorKind};
pub use event::{Event, Subscriber};
pub use file::StreamStats;
pub use media::{AudioCodec, ContainerFormat, HintSource, MediaInfo};
pub use stream::{Stream, StreamHandle, open};
