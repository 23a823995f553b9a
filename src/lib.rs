#![doc = include_str!("../README.md")]
//!
//! ## Threads
//!
//! | thread | how many | lives |
//! |---|---|---|
//! | `windway-fetch-N` | `max_concurrent` | from the first registered peer to the downloader's end |
//! | `windway-scheduler` | 1 | likewise |
//! | `windway-watchdog` | 1 | likewise |
//! | `windway-lookup` | up to 4 | while names are being looked up |
//! | `windway-dial` | up to 2 | while connections are opened ahead of their use |
//! | `windway-connect` | 1 for each address that is tried | until it has answered, or another one has |
//! | `windway-race` | 1 for each request that its connection leaves unanswered for a second | until a head is there |
//! | `windway-linear` | 1 for each stream of a server without ranges | as long as its body |
//! | `windway-radio` | 1 for each radio | until its [`Radio`] is dropped, or has ended for good |
//!
//! All of them sleep while nothing changes.
//!
//! ## Secrets
//!
//! No error, event, log line or `Debug` of windway's shows a password, the values of a URL's query, or a header's value: see
//! [`SafeUrl`]. ureq, which speaks HTTP for windway, logs whole URLs and what goes over the wire at the level `Trace` of the
//! target `ureq`, and hides secrets at every other level.

mod bandwidth;
mod cancel;
mod client;
mod config;
mod downloader;
mod error;
mod event;
mod file;
mod foreign;
mod media;
mod radio;
mod safe_url;
mod storage;
mod stream;

pub use cancel::{CancelGuard, CancelReason};
pub use client::{ByteRange, Head, Validator};
pub use config::{
    AfterPause, AtSeam, Auth, ClientConfig, DownloaderConfig, FileConfig, HangPolicy, OnHang, RadioConfig,
    ReadAhead, StorageConfig,
};
pub use downloader::{
    Downloader, Epoch, Fetch, Flow, Next, Outcome, Peer, PeerHandle, Priority, RequestId, Response, Sink,
    Stats, Totals, Waker,
};
pub use error::{Error, ErrorKind};
pub use event::{Event, Hang, HangCause, Subscriber};
pub use file::{Pending, Phase, StreamStats, TryRead};
pub use media::{AudioCodec, ContainerFormat, HintSource, MediaInfo};
pub use radio::{Radio, RadioEvent, RadioHandle, RadioInfo, RadioStats, Title};
pub use safe_url::SafeUrl;
pub use stream::{Stream, StreamHandle, open};
