//! From a URL to the state: the first playlists, and the keys that are loaded beside them.

pub(crate) mod first_bytes;
pub(crate) mod first_playlists;
pub(crate) mod open;
pub(crate) mod preload;
