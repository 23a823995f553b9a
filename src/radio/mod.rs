//! Radio: streams without an end, that say what is playing.

mod icy;
