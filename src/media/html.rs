//! Distinguishes HTML pages, playlists, text messages and files of other kinds from media.

use super::other::other_file;
use super::{names, sniff};

/// True if this is a page, a list, a message or a picture, not media: magic bytes of audio overrule the content type.
pub(crate) fn looks_like_no_media(content_type: Option<&str>, first: &[u8]) -> bool {
    if other_file(content_type, first).is_some() {
        return true;
    }
    if sniff::sniff(first).is_some() {
        return false;
    }
    let essence = content_type.map(names::essence).unwrap_or_default();
    // Many servers send files of an unknown type as `text/plain`, so only what reads as text counts as text.
    let is_plain = essence == "text/plain";
    let is_text = (is_plain && reads_as_text(first))
        || (essence.starts_with("text/") && !is_plain)
        || ["/json", "+json", "/xml", "+xml", "/javascript"].iter().any(|end| essence.ends_with(end))
        || essence.contains("mpegurl")
        || essence.ends_with("scpls");
    is_text || sniff::starts_with_markup(first) || sniff::starts_with_playlist(first)
}

fn reads_as_text(first: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    // The last character may be cut.
    let is_utf8 = std::str::from_utf8(first).map_or_else(|error| error.error_len().is_none(), |_| true);
    !first.is_empty() && is_utf8 && !first.iter().any(is_control)
}
