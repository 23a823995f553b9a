//! Guides: how to use windway with other libraries, and for what.
//!
//! | guide | for |
//! |---|---|
//! | [`rodio`] | a player in a page |
//! | [`symphonia`] | decoding by symphonia 0.6 and 0.5 |
//! | [`kira`] | games |
//! | [`c_decoder`] | decoders in C, by callbacks |
//! | [`audio_callback`] | output that never waits for the network |
//! | [`gui`] | windows: opening, the buffered bar, cancelling |
//! | [`radio`] | stations, titles, pauses, recording |
//! | `hls` | adaptive and live streams, with the feature `hls` |
//! | `queue` | tracks without a gap, lists of tracks; with the feature `queue` |
//! | [`storage_and_read_ahead`] | memory, disk, metered links, a cap on the bandwidth |
//! | [`network`] | proxies, certificates, credentials, mirrors |
//! | `http3` | one connection for all requests, with the feature `http3` |
//! | `offline` | a cache on disk, and downloads, with the feature `cache` |
//! | [`events_and_logs`] | watching a playback |
//! | [`troubleshooting`] | what to show the user, and where to look |
//! | [`glossary`] | the words of this documentation |
//!
//! The programs in the guides are complete. Those that use other crates are compiled in the directory `guides/` of the repository.

// Programs that use other crates are compiled in `guides/`, where these crates are: here they are no documentation tests.

/// Output in the callback of an audio device.
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/audio_callback.md"))]
pub mod audio_callback {}

/// Decoders in C.
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/c_decoder.md"))]
pub mod c_decoder {}

/// kira, for games.
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/kira.md"))]
pub mod kira {}

/// A player with rodio.
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/rodio.md"))]
pub mod rodio {}

/// Decoding with symphonia.
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/symphonia.md"))]
pub mod symphonia {}

/// A player in a window.
///
#[doc = include_str!("guide/gui.md")]
pub mod gui {}

/// HTTP Live Streaming.
///
#[cfg(feature = "hls")]
#[doc = include_str!("guide/hls.md")]
#[cfg_attr(not(doctest), doc = "", doc = include_str!("guide/hls_symphonia.md"))]
pub mod hls {}

/// Tracks one after the other, without a gap.
///
#[cfg(feature = "queue")]
#[doc = include_str!("guide/queue.md")]
pub mod queue {}

/// Where bytes are kept, and how many are fetched ahead.
///
#[doc = include_str!("guide/storage_and_read_ahead.md")]
pub mod storage_and_read_ahead {}

/// Proxies, certificates, credentials, mirrors.
///
#[doc = include_str!("guide/network.md")]
pub mod network {}

/// HTTP/3. Needs the feature `http3`.
///
#[cfg(feature = "http3")]
#[doc = include_str!("guide/http3.md")]
pub mod http3 {}

/// A cache on disk, and downloads. Needs the feature `cache`.
///
#[cfg(feature = "cache")]
#[doc = include_str!("guide/offline.md")]
pub mod offline {}

/// Internet radio.
///
#[doc = include_str!("guide/radio.md")]
pub mod radio {}

/// Events and log lines.
///
#[doc = include_str!("guide/events_and_logs.md")]
pub mod events_and_logs {}

/// Errors, and where to look when something does not work.
///
#[doc = include_str!("guide/troubleshooting.md")]
pub mod troubleshooting {}

/// The words of this documentation.
///
#[doc = include_str!("guide/glossary.md")]
pub mod glossary {}
