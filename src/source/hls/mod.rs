//! HTTP Live Streaming (draft-pantos-hls-rfc8216bis-22): audio on demand and live, as elementary frames for a decoder.
//!
//! ```text
//!   reader                          workers                           windway-hls (live only)
//!  Section::read ◀─ sections ◀─ slots ◀─ pipeline: decrypt, demux      loads the playlist again
//!      │                          ▲           ▲                              │
//!      └─ room, seek ──▶ State::plan ──▶ segment, key, init, playlist ◀── timeline
//! ```
//!
//! [`State`](state) is a plain machine behind one lock. Workers ask it for the next fetch and report what has come; readers
//! block until it has bytes for them.

#[cfg(feature = "cache")]
mod cached;
mod config;
mod decrypt;
pub(crate) mod demux;
mod directives;
mod event;
mod fetches;
mod first_playlists;
mod group;
mod handle;
mod hint;
mod hook;
mod joined;
mod json;
mod levels;
mod live;
mod open;
mod pipeline;
pub(crate) mod playlist;
mod preload;
mod presentation;
mod reader;
mod recognize;
mod reload;
mod requests;
mod section;
mod segment_sink;
mod shared;
mod sinks;
mod start;
mod state;
mod steering;
mod timeline;

pub use self::config::{HlsConfig, MakeAbr, Quality};
pub use self::event::HlsEvent;
pub use self::handle::{HlsHandle, HlsKind};
pub use self::hook::{Hook, RequestHook, RequestKind};
pub use self::joined::HlsSource;
pub use self::levels::{LevelInfo, RenditionInfo};
pub use self::presentation::Hls;
pub use self::reader::Section;
pub use self::recognize::is_hls;
pub use self::section::{Discontinuity, SectionInfo};
