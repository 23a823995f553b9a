#![doc = include_str!("../README.md")]
//!
//! ## Where to find what
//!
//! | module | for |
//! |---|---|
//! | crate root | opening and reading: [`open`](open()), [`open_any`], [`Stream`], [`Radio`], [`Downloader`], their configurations, [`Error`] |
//! | [`stream`] | what a stream returns, and the trait for sources of your own |
//! | [`radio`] | titles, events and counters of a radio |
//! | [`media`] | the detected format |
//! | [`config`] | all options |
//! | [`downloader`] | fetches of your own: peers, sinks, priorities, cancellation |
//! | [`event`] | events of fetches, and how to receive them |
//! | [`guide`] | whole programs: rodio, symphonia, kira, C decoders, audio callbacks, windows, radio, storage, troubleshooting |
//! | `cache` | media on disk that outlive the process, with the feature `cache` |
//! | `download` | downloads to named files, with the feature `cache` |
//! | `queue` | playlists of tracks, and queues that prefetch the next one, with the feature `queue` |
//! | `hls`, `abr` | HTTP Live Streaming and adaptive bitrate, with the feature `hls` |
//!
//! ## Threads
//!
//! | thread | number | lives |
//! |---|---|---|
//! | `windway-fetch-N` | `max_concurrent` | from the first stream, radio or peer to the downloader's end |
//! | `windway-scheduler` | 1 | the same |
//! | `windway-watchdog` | 1; up to 8 more while callbacks on them block | the same |
//! | `windway-lookup` | up to 4; up to 32 while some are slow | while names are looked up |
//! | `windway-connect` | 1 for each address that is tried | until it or another address has answered |
//! | `windway-dial` | up to 2; up to 8 while some are slow | while connections are preconnected |
//! | `windway-idle` | 1 | while there are idle connections, which it closes after `max_idle_age` |
//! | `windway-hedge` | 1 | while requests wait for their response, and 5 s longer; it decides when to hedge one |
//! | `windway-hedged` | 1 for each hedged request | until one of the responses has arrived |
//! | `windway-opening` | 1 for each file that [`open_any`] opened | until 256 KiB have arrived |
//! | `windway-sequential` | 1 for each stream of a server without ranges | as long as the response body |
//! | `windway-disk` | 1 for the process | from the first file I/O for a temporary file until the last stream with one is dropped, and it has closed the file |
//! | `windway-cache` | 1 for each opened `Cache` | while the entries of its directory are counted, and evicted down to its limit |
//! | `windway-download` | 1 for each download to a file | until the file is whole, or the download has failed or was cancelled |
//! | `windway-radio` | 1 for each radio | until its [`Radio`] is dropped, or has ended permanently |
//! | `windway-hls-open` | 1 for each presentation that `open_hls_later` opens | until its playlists are there |
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
//! | [`Sink::finish`](downloader::Sink::finish) | a worker; the watchdog's thread if the fetch is cancelled while it waits; never inside another callback |
//! | [`Fetch::validate`] | a worker; the caller of `execute`; the reader of a [`Response`] that requests the rest of a broken body |
//! | [`Epoch::on_cancel`](downloader::Epoch::on_cancel) | the thread that cancels, stops, or drops the last handle |
//! | [`HangPolicy::on_hang`](config::HangPolicy::on_hang) | the watchdog's thread |
//! | [`RequestHook`](config::RequestHook), [`CookieJar`](config::CookieJar) | the thread that sends the request: a worker, the caller of `execute`, a blocked reader, `windway-hedged` |
//! | [`Source`](stream::Source) | the thread that calls the [`Stream`] or its handle; this is not a callback in the sense below |
//! | the drop of a peer, a sink, a closure, or the cause of an [`Error`] | any of these threads, and the one that drops the last handle or error |
//!
//! windway holds no lock while it runs a callback, so a callback may make all calls that do not block. A call that blocks
//! could wait for the thread that the callback runs on. So it fails in every callback, for every downloader, and also if it
//! would not have to wait this time:
//!
//! | in a callback | |
//! |---|---|
//! | [`PeerHandle::execute`](downloader::PeerHandle::execute) | [`ErrorKind::WouldDeadlock`]; in a method of a [`RequestHook`](config::RequestHook) allowed: it runs on the hook's thread |
//! | the responses of a [`Batch`](downloader::Batch), [`open`](open()), [`open_any`], [`Downloader::open`], `open_with`, `open_any`, `open_any_with` | [`ErrorKind::WouldDeadlock`] |
//! | `read` of a [`Stream`] over HTTP or of a [`Radio`]; `seek` from an end that is not known yet | [`ErrorKind::WouldDeadlock`] |
//! | `next` of a `Queue` | [`ErrorKind::WouldDeadlock`] |
//! | `wait_buffered` and `wait_range` of a [`StreamHandle`] over HTTP or a [`RadioHandle`](radio::RadioHandle) | [`ErrorKind::WouldDeadlock`] |
//! | [`Downloader::stop`]; the drop of the last handle, of a [`Stream`] or of a [`Radio`] | takes effect, and does not wait for the threads |
//! | [`Subscriber::recv`](event::Subscriber::recv), `recv_timeout`, `recv_deadline` | do not wait: the same as [`Subscriber::try_recv`](event::Subscriber::try_recv) |
//! | `read` of a [`Response`] | allowed: it waits for its own connection only. On a worker it keeps that worker busy. |
//! | `read` of a [`Stream`] over a local file or memory | allowed |
//! | all others, such as [`Stream::try_read`], [`PeerHandle::wake`](downloader::PeerHandle::wake), [`Epoch::cancel`](downloader::Epoch::cancel), [`Downloader::register`], [`Downloader::open_later`], [`Downloader::open_radio`] | allowed |
//!
//! A callback that panics fails its fetch, or ends its peer, with [`ErrorKind::Panicked`]. A panic of a
//! [hook](config::RequestHook) or in the drop of a value is caught and logged. As always in Rust, a drop that panics while
//! another panic unwinds aborts the process.
//!
//! An audio callback is not a callback of windway, but must not block either: decode on another thread and hand the samples
//! over in a ring buffer. [`guide::audio_callback`] shows how, and why [`Stream::try_read`] is not enough there.
//!
//! ## Secrets
//!
//! No error, event, log line or `Debug` output of windway shows a password, the values of a URL's query, or a header's value:
//! see [`SafeUrl`]. ureq, the HTTP library below windway, logs whole URLs and the bytes of requests at the level `Trace` of
//! the target `ureq`. At every other level it hides secrets.

#[cfg(feature = "hls")]
pub mod abr;
mod bandwidth;
mod buffer;
#[cfg(feature = "cache")]
pub mod cache;
mod cancel;
mod client;
pub mod config;
#[cfg(feature = "cache")]
pub mod download;
pub mod downloader;
mod error;
pub mod event;
mod foreign;
pub mod guide;
mod hook;
mod id_map;
pub mod media;
#[cfg(any(feature = "symphonia", feature = "symphonia-0_5"))]
mod media_source;
mod open;
mod origin;
mod phase;
#[cfg(feature = "queue")]
pub mod queue;
mod safe_url;
mod source;
mod storage;
pub mod stream;
mod thread;
mod types;
mod watch;

/// Internet radio: Icecast, SHOUTcast and other endless bodies. [`Downloader::open_radio`] opens a station.
pub mod radio {
    pub use crate::source::radio::{
        Radio, RadioEvent, RadioHandle, RadioInfo, RadioProgress, RadioStats, Title,
    };
    pub use crate::watch::Watch;
}

pub use cancel::CancelHandle;
pub use config::{ClientConfig, DownloaderConfig, FileConfig, RadioConfig};
pub use downloader::{Downloader, Fetch, Response};
pub use error::{Error, ErrorKind};
pub use open::{Media, OpenConfig, open_any};
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
        Discontinuity, Hls, HlsConfig, HlsEvent, HlsHandle, HlsKind, HlsProgress, HlsSource, Hook, LevelInfo,
        MakeAbr, Quality, RenditionInfo, RequestHook, RequestKind, Section, SectionHandle, SectionInfo,
        is_hls,
    };
    pub use crate::watch::Watch;

    /// For this crate's tests and benches.
    #[doc(hidden)]
    pub use crate::source::hls::demux::{Demuxer, Format, Frame, Gapless, MediaTime, Output};
}
