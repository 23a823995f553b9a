//! What can be played: levels of quality, the media playlists that have them, and the servers that content steering prefers.
//! No I/O, no clock.

mod builder;
mod json;
pub(crate) mod levels;
pub(crate) mod steering;
