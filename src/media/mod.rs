//! What kind of media it is: from the content type, the URL's extension and the first bytes.
//!
//! Hints for choosing a decoder, and the means to tell an error page from audio. Servers often name the wrong type or none,
//! so the bytes have the last word. Nothing here checks that the rest of a file is in order.

mod first_bytes;
mod fourcc;
mod html;
mod info;
mod kinds;
mod mp4;
mod names;
mod sniff;
mod ts;

pub(crate) use first_bytes::FirstBytes;
pub(crate) use html::looks_like_html_page;
pub use info::{HintSource, MediaInfo};
pub use kinds::{AudioCodec, ContainerFormat};

#[cfg(test)]
mod tests;
