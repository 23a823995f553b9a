//! Distinguishes playlists from audio: many stations' links lead to a short text that contains the stream's URL.

use std::fmt;

use crate::media::{self, Detected, Document};
use crate::safe_url::SafeUrl;

/// A list of URLs, returned instead of audio.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Playlist {
    /// An HLS playlist, whose entries are segments.
    is_hls: bool,
    /// The first URL in it.
    first: Option<SafeUrl>,
}

impl Playlist {
    /// Detects M3U, PLS, ASX, XSPF and bare URLs by a response's content type and first bytes.
    pub(crate) fn detect(content_type: Option<&str>, first: &[u8]) -> Option<Self> {
        // As if there were no more bytes: to wait for more of a station's audio would delay its start.
        let Detected::Document(document) = media::detect(content_type, first, true) else { return None };
        let is_hls = match document {
            Document::Hls => true,
            Document::List(_) => false,
            _ => return None,
        };
        // Lossy: the first bytes may end inside of a character.
        let text = String::from_utf8_lossy(first);
        Some(Self { is_hls, first: first_url(&text).map(SafeUrl::from) })
    }
}

fn first_url(text: &str) -> Option<&str> {
    // The namespace of XSPF is a URL, too.
    let text = text.split_once("<location>").map_or(text, |(_, rest)| rest);
    let at = ["http://", "https://"].into_iter().filter_map(|scheme| text.find(scheme)).min()?;
    let is_end = |char: char| char.is_whitespace() || char.is_control() || "\"'<>".contains(char);
    text[at..].split(is_end).next()
}

impl fmt::Display for Playlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first {
            _ if self.is_hls => f.write_str("the response is an HLS playlist, not audio"),
            Some(first) => {
                write!(f, "the response is a playlist, not audio; the first stream in it is {first}")
            }
            None => f.write_str("the response is a playlist, not audio"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(content_type: &str, first: &str) -> Option<String> {
        Playlist::detect(Some(content_type), first.as_bytes()).map(|list| list.to_string())
    }

    #[test]
    fn playlists_name_their_first_stream() {
        for (content_type, list) in [
            ("audio/x-mpegurl", "#EXTM3U\n#EXTINF:-1,Radio\nhttp://h:8000/a?b=c\nhttp://h/2\n"),
            ("audio/x-mpegurl; charset=utf-8", "Radio:\r\nhttp://h:8000/a?b=c\r\n"),
            ("audio/mpeg", "http://h:8000/a?b=c"),
            ("audio/x-scpls", "[playlist]\nnumberofentries=1\nFile1=http://h:8000/a?b=c\nTitle1=x\n"),
            (
                "video/x-ms-asf",
                "<ASX version=\"3.0\"><ENTRY><REF HREF=\"http://h:8000/a?b=c\" /></ENTRY></ASX>",
            ),
            ("text/plain", "\u{FEFF}[Reference]\r\nRef1=http://h:8000/a?b=c\r\n"),
            (
                "application/xspf+xml",
                "<?xml version=\"1.0\"?><playlist xmlns=\"http://xspf.org/ns/0/\"><trackList><track>\
                 <location>http://h:8000/a?b=c</location></track></trackList></playlist>",
            ),
        ] {
            let expected =
                "the response is a playlist, not audio; the first stream in it is http://h:8000/a?b=…";
            assert_eq!(said(content_type, list).as_deref(), Some(expected), "{list}");
        }
        let hls = said("application/vnd.apple.mpegurl", "#EXTM3U\n#EXT-X-VERSION:3\nhttp://h/1.ts\n");
        assert_eq!(hls.as_deref(), Some("the response is an HLS playlist, not audio"));
        assert!(said("audio/x-scpls", "nothing").is_some());
    }

    #[test]
    fn audio_and_pages_are_no_playlists() {
        for (content_type, first) in [
            ("audio/x-mpegurl", &b"ID3\x04\0http://host/"[..]),
            ("audio/mpeg", b"\xFF\xFB\x90\x64http://host/"),
            ("text/html", b"<!DOCTYPE html><a href=\"http://host/\">"),
            ("text/xml", b"<?xml version=\"1.0\"?><error>http://host/</error>"),
            ("audio/mpeg", b""),
        ] {
            assert_eq!(Playlist::detect(Some(content_type), first), None, "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(content_type in ".{0,20}", first in any::<Vec<u8>>(), list in "(#EXTM3U|http://)?.{0,40}") {
            said(&content_type, &list);
            Playlist::detect(Some("audio/x-scpls"), &first);
        }
    }
}
