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
//! | `windway-sequential` | 1 for each stream of a server without ranges | as long as its body |
//! | `windway-disk` | 1 for all streams that [`Stream::try_read`] has asked for what lies in a temporary file | until the last of them is dropped |
//! | `windway-radio` | 1 for each radio | until its [`Radio`] is dropped, or has ended for good |
//! | `windway-hls` | 1 for each live HLS stream | until the stream ends, or its `Hls` is dropped |
//!
//! All of them sleep while there is nothing to do.
//!
//! ## Callbacks
//!
//! | your code | runs on |
//! |---|---|
//! | [`Peer::next_fetch`](downloader::Peer::next_fetch) | a worker |
//! | [`Sink`](downloader::Sink): `accepted`, `head`, `write`, `write_block`, `retrying`, `detached` | a worker |
//! | [`Sink::finish`](downloader::Sink::finish) | a worker or the scheduler's thread; never inside another callback |
//! | [`Fetch::validate`] | a worker; the caller of `execute`; for a body that is asked for again, its reader |
//! | [`Epoch::on_cancel`](downloader::Epoch::on_cancel) | the thread that cancels, or stops, or drops the last handle |
//! | [`HangPolicy::on_hang`](config::HangPolicy::on_hang) | the watchdog's thread |
//! | the drop of a peer, a sink, a closure, or the cause of an [`Error`] | any of these, and whoever drops the last handle or error |
//!
//! windway holds no lock while it runs a callback, so a callback may make all calls that do not block. A call that blocks could
//! wait for the thread that the callback runs on. The rule is the same in every callback, for calls to any downloader, and also
//! when the call would not have to wait this time:
//!
//! | in a callback | |
//! |---|---|
//! | [`PeerHandle::execute`](downloader::PeerHandle::execute), the answers of a [`Batch`](downloader::Batch), [`open`], [`Downloader::open`], `open_with` | [`ErrorKind::WouldDeadlock`] |
//! | `read` of a [`Stream`] or a [`Radio`]; [`Stream`]'s `seek` from an end that is not known yet | [`ErrorKind::WouldDeadlock`] |
//! | `wait_buffered`, `wait_range` of a [`StreamHandle`] or a [`RadioHandle`](radio::RadioHandle) | [`ErrorKind::WouldDeadlock`] |
//! | [`Downloader::stop`]; the drop of the last handle, of a [`Stream`] or of a [`Radio`] | takes effect, and does not wait for the threads |
//! | [`Subscriber::recv`](event::Subscriber::recv), `recv_timeout`, `recv_deadline` | do not wait: as [`Subscriber::try_recv`](event::Subscriber::try_recv) |
//! | `read` of a [`Response`] | allowed: it waits for its own connection and nothing else. On a worker it keeps that worker. |
//! | all others, such as [`Stream::try_read`], [`PeerHandle::wake`](downloader::PeerHandle::wake), [`Epoch::cancel`](downloader::Epoch::cancel), [`Downloader::register`], [`Downloader::open_later`], [`Downloader::open_radio`] | allowed |
//!
//! A callback that panics fails its fetch, or ends its peer, with [`ErrorKind::Panicked`]. A panic in the drop of a value is
//! caught and logged. As always in Rust, a drop that panics while another panic unwinds aborts the process.
//!
//! ## Secrets
//!
//! No error, event, log line or `Debug` output of windway shows a password, the values of a URL's query, or a header's value: see
//! [`SafeUrl`]. ureq, which speaks HTTP for windway, logs whole URLs and what goes over the wire at the level `Trace` of the
//! target `ureq`, and hides secrets at every other level.

#[cfg(feature = "hls")]
pub mod abr;
mod bandwidth;
mod cancel;
mod client;
pub mod config;
pub mod downloader;
mod error;
pub mod event;
mod foreign;
pub mod media;
mod origin;
mod phase;
mod safe_url;
mod source;
mod storage;
pub mod stream;
mod types;

/// Internet radio: Icecast, SHOUTcast and other endless bodies. [`Downloader::open_radio`] opens a station.
pub mod radio {
    pub use crate::source::radio::{Radio, RadioEvent, RadioHandle, RadioInfo, RadioStats, Title};
}

pub use config::{ClientConfig, DownloaderConfig, FileConfig, RadioConfig};
pub use downloader::{Downloader, Fetch, Response};
pub use error::{Error, ErrorKind};
pub use radio::Radio;
pub use safe_url::SafeUrl;
pub use stream::{Stream, StreamHandle, open};
pub use types::{ByteRange, Priority};

/// HTTP Live Streaming. Needs the feature `hls`.
#[cfg(feature = "hls")]
pub mod hls {
    pub use crate::source::hls::playlist::{
        ContentSteering, DateRange, Key, KeyMethod, Map, MediaPlaylist, MediaType, MultivariantPlaylist,
        Part, Playlist, PlaylistError, PlaylistProblem, PlaylistType, PreloadHint, Rendition,
        RenditionReport, Segment, ServerControl, SessionData, Start, Uri, Variant,
    };
    pub use crate::source::hls::{
        Discontinuity, Hls, HlsConfig, HlsHandle, HlsKind, LevelInfo, Quality, Section, SectionInfo,
    };

    /// For this crate's tests and benches.
    #[doc(hidden)]
    pub use crate::source::hls::demux::{Demuxer, Format, Frame, MediaTime, Output};
}
