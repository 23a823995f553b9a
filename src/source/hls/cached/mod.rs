//! A presentation on demand in the persistent cache.
//!
//! ```text
//!   open ── playlists are stored ──▶ unconfirmed: what is stored is played, nothing else is requested but the playlists
//!     │                                  │      ├── they say the same ──▶ confirmed, with URLs that are valid now
//!     │                                  │      └── changed ──▶ it ends with ErrorKind::Changed
//!     │                                  └── no playlist comes ──▶ what is missing is played at another level, if that has it
//!     │                                                            └── else ErrorKind::NotCached, with the URL of the segment
//!     └── else they are loaded ──▶ confirmed
//! ```
//!
//! Stored playlists have no values of queries, which are often the secrets that make URLs valid. So segments that are missing are
//! requested by a playlist from the network only. Fresh playlists are not loaded before something is missing.

mod body_recorder;
mod confirm;
mod open;
mod store;
mod strip;

pub(super) use self::body_recorder::BodyRecorder;
pub(super) use self::confirm::ConfirmSink;
pub(super) use self::open::open;
pub(super) use self::store::HlsStore;
