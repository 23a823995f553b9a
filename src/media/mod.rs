//! Detects the media format from the content type, the URL's extension and the first bytes.
//!
//! The result is a hint for choosing a decoder, and distinguishes an HTML page from audio. Servers often send a wrong content
//! type or none, so the first bytes take precedence. The rest of a file is not checked.

mod bisected;
mod document;
mod ebml;
mod first_bytes;
mod fourcc;
mod html;
mod info;
mod kinds;
mod layout;
mod mp4;
mod names;
mod other;
mod sniff;
mod text;
mod ts;

pub(crate) use bisected::{Bisected, bisected};
pub(crate) use document::{Detected, Document, ListFormat, RECOGNIZABLE, detect, detect_other};
#[cfg(feature = "queue")]
pub(crate) use document::{is_markup, is_text};
pub(crate) use first_bytes::FirstBytes;
pub(crate) use html::looks_like_no_media;
pub use info::{HintSource, MediaInfo};
pub use kinds::{AudioCodec, ContainerFormat};
pub(crate) use layout::upcoming;
pub(crate) use names::foreseen;
#[cfg(feature = "hls")]
pub(crate) use sniff::is_known;
#[cfg(feature = "queue")]
pub(crate) use text::decode;
pub(crate) use text::windows_1252;

#[cfg(test)]
mod tests;
