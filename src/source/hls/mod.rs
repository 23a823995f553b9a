//! HTTP Live Streaming (draft-pantos-hls-rfc8216bis-22): audio on demand and live, as elementary frames for a decoder.
//!
//! ```text
//!   reader                          workers                           windway-hls (live only)
//!  Section::read ◀─ sections ◀─ queue ◀─ pipeline: decrypt, demux      loads the playlist again
//!      │                          ▲           ▲                              │
//!      └─ room, seek ──▶ State::plan ──▶ segment, key, init, playlist ◀── timeline
//! ```
//!
//! [`State`](state) is a plain machine behind one lock. Workers ask it for the next fetch and report what has come; readers
//! block until it has bytes for them.
//!
//! From the top to the bottom; each row uses the rows below it. `◇` has no I/O and no clock: time is an argument.
//!
//! | files | what they are |
//! |---|---|
//! | `presentation`, `handle`, `progress`, `reader`, `joined`, `config`, `event`, `hook` | the public types |
//! | `opening` | the first playlists, until there is a state |
//! | `peer` | requests, the sinks that take their answers, the threads of a live stream |
//! | `cached` | a presentation in the persistent cache |
//! | `shared`, `blocking`, `link` | the state behind its lock, the calls that block on it, and what wakes the downloader |
//! | `state` ◇ | which segment is fetched next, from where, and what the reader gets |
//! | `pipeline` ◇ | the body of a segment: `decrypt` ◇, then `demux` ◇ |
//! | `ladder` ◇ | levels of quality, the playlists that have them, content steering |
//! | `timeline` ◇ | presentation time, and when a live playlist is loaded again |
//! | `playlist` ◇ | the text of playlists |

mod blocking;
#[cfg(feature = "cache")]
mod cached;
mod config;
mod decrypt;
pub(crate) mod demux;
mod event;
mod group;
mod handle;
mod hook;
mod joined;
mod ladder;
mod link;
mod opening;
mod peer;
mod pipeline;
pub(crate) mod playlist;
mod presentation;
mod progress;
mod reader;
mod recognize;
mod shared;
mod state;
mod timeline;

pub use self::config::{HlsConfig, MakeAbr, Quality};
pub use self::event::HlsEvent;
pub use self::handle::{HlsHandle, HlsKind};
pub use self::hook::{Hook, RequestHook, RequestKind};
pub use self::joined::HlsSource;
pub use self::ladder::levels::{LevelInfo, RenditionInfo};
pub use self::presentation::Hls;
pub use self::progress::HlsProgress;
pub use self::reader::{Section, SectionHandle};
pub use self::recognize::is_hls;
pub use self::state::section::{Discontinuity, SectionInfo};
