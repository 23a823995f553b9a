//! Queues of tracks, and the lists that they come from. Needs the feature `queue`.
//!
//! A [`Queue`] yields one [`Stream`](crate::Stream) a track. While a track is read to its end, the first and the last bytes
//! of the next one are fetched at low priority, so that its decoder starts without a round trip. Nothing is decoded here, so a
//! player is gapless by its own design, which the [guide](crate::guide::queue) shows:
//!
//! 1. Take the next stream and make its decoder when the current decoder has returned its last samples, or a little before:
//!    samples in the output buffer bridge the time that takes.
//! 2. Write the samples of both into the same output, without closing it. Resample if the rate changes.
//! 3. Drop encoder delay and padding: symphonia 0.6 does it by default.
//!
//! ```no_run
//! use windway::queue::{Queue, QueueConfig, Track};
//!
//! # fn play(stream: windway::Stream) -> std::io::Result<()> { Ok(()) }
//! let mut queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
//! for url in ["https://example.com/1.flac", "https://example.com/2.flac"] {
//!     queue.handle().push(Track::new(url)?);
//! }
//! for track in &mut queue {
//!     match track {
//!         Ok(track) => play(track.stream)?, // reads to the end, or until another thread skips
//!         Err(error) => eprintln!("{error}"), // the queue goes on
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!   player's thread                              other threads
//!  Queue::next ──▶ Order: which track is next ◀── QueueHandle: push, remove, move, skip
//!      │                   │ has changed
//!      ▼                   ▼
//!  TrackSource ── end ─▶ Prefetch: the next track, opened at low priority
//! ```
//!
//! No thread belongs to a queue: the threads that read a track and those that change the queue do its work.

mod config;
mod event;
mod list;
mod order;
mod player;
mod playlist;
mod shared;
mod skip;
mod track;
mod track_source;

pub use config::QueueConfig;
pub use event::{QueueEvent, TrackError};
pub use order::{Repeat, TrackId};
pub use player::{Playing, Queue, QueueHandle};
pub(crate) use playlist::ListOrigin;
pub use playlist::{ListRules, Playlist};
pub(crate) use track::Remote;
pub use track::Track;
