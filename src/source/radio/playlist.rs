//! Distinguishes playlists from audio: many stations' links lead to a short text that contains the stream's URL.

use std::fmt;

use crate::media::{self, Detected, Document, ListFormat};
use crate::safe_url::SafeUrl;

/// A list of URLs, returned instead of audio.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Playlist {
    what: Document,
    /// The first stream in a list of tracks.
    first: Option<SafeUrl>,
}

impl Playlist {
    /// Detects M3U, PLS, ASX, XSPF and bare URLs by a response's content type and first bytes.
    pub(crate) fn detect(content_type: Option<&str>, first: &[u8]) -> Option<Self> {
        // As if there were no more bytes: to wait for more of a station's audio would delay its start.
        let Detected::Document(document) = media::detect(content_type, first, true) else { return None };
        // Lossy: the first bytes may end inside of a character.
        let text = String::from_utf8_lossy(first);
        let first = match document {
            // Its namespace is a URL, too.
            Document::List(ListFormat::Xspf) => {
                text.split_once("<location>").and_then(|(_, rest)| first_url(rest))
            }
            // The segments of HLS and the episodes of a feed are no streams.
            Document::Hls | Document::List(ListFormat::Feed) => None,
            Document::List(_) => first_url(&text),
            _ => return None,
        };
        Some(Self { what: document, first: first.map(SafeUrl::from) })
    }
}

fn first_url(text: &str) -> Option<&str> {
    let at = ["http://", "https://"].into_iter().filter_map(|scheme| text.find(scheme)).min()?;
    let is_end = |char: char| char.is_whitespace() || char.is_control() || "\"'<>".contains(char);
    text[at..].split(is_end).next()
}

impl fmt::Display for Playlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, advice) = (self.what.name(), self.what.advice());
        match &self.first {
            Some(first) => write!(f, "the response is {what}, not audio; the first stream in it is {first}"),
            None => write!(f, "the response is {what}, not audio{advice}"),
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
        let expected = "the response is an HLS playlist, not audio; open it with open_hls or open_any";
        assert_eq!(hls.as_deref(), Some(expected));
        let feed = said(
            "text/xml",
            "<rss xmlns:itunes=\"http://www.itunes.com/dtds/podcast-1.0.dtd\"><channel><item>\
             <enclosure url=\"http://h/1.mp3\"/></item></channel></rss>",
        );
        let expected = "the response is a podcast's feed, not audio; open it with open_any";
        assert_eq!(feed.as_deref(), Some(expected));
        let cut = said("application/xspf+xml", "<playlist xmlns=\"http://xspf.org/ns/0/\"><title>");
        assert_eq!(cut.as_deref(), Some("the response is a playlist, not audio; open it with open_any"));
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
