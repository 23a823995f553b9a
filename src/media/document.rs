//! Distinguishes what URLs lead to instead of media: playlists, lists of tracks, manifests, pages, pictures.

use super::html::looks_like_no_media;
use super::other::other_file;
use super::text::decode;
use super::{FirstBytes, names, sniff};

/// A text in place of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// A playlist of HTTP Live Streaming.
    Hls,
    /// A list of tracks.
    List(ListFormat),
    /// A manifest of MPEG-DASH (ISO 23009-1).
    Dash,
    /// A manifest of Smooth Streaming.
    SmoothStreaming,
    /// A web page, a message or a text of another kind.
    Page,
    /// A picture, a PDF or an archive, as an error names it.
    Other(&'static str),
}

impl Document {
    /// What an error calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hls => "an HLS playlist",
            Self::List(ListFormat::Feed) => "a podcast's feed",
            Self::List(_) => "a playlist",
            Self::Dash => "a manifest of MPEG-DASH",
            Self::SmoothStreaming => "a manifest of Smooth Streaming",
            Self::Page => "a web page or a text",
            Self::Other(name) => name,
        }
    }

    /// How an error says what can be done with it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Hls => "; open it with open_hls or open_any",
            Self::List(_) => "; open it with open_any",
            Self::Dash | Self::SmoothStreaming | Self::Page | Self::Other(_) => "",
        }
    }
}

/// The format of a list of tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// M3U, with or without its header, in any encoding.
    M3u,
    /// PLS, or the `[Reference]` that Windows Media servers send.
    Pls,
    /// XML Shareable Playlist Format.
    Xspf,
    /// Advanced Stream Redirector.
    Asx,
    /// RSS or Atom, such as a podcast.
    Feed,
}

/// What the first bytes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// Audio or video, or bytes of an unknown kind.
    Media,
    Document(Document),
    /// More bytes are needed.
    Unclear,
}

/// Number of first bytes that are enough to distinguish media from a document. Fewer may be those of anything.
pub(crate) const RECOGNIZABLE: usize = 64;

/// Detects what begins with `first`, by the content type and these bytes. Magic bytes of media overrule the content type.
/// `is_all` says that there are no more bytes. Not unclear for [`FirstBytes::MOST`] bytes.
pub(crate) fn detect(content_type: Option<&str>, first: &[u8], is_all: bool) -> Detected {
    let is_all = is_all || first.len() >= FirstBytes::MOST;
    if first.len() < RECOGNIZABLE && !is_all {
        return Detected::Unclear;
    }
    if let Some(name) = other_file(content_type, first) {
        return Detected::Document(Document::Other(name));
    }
    if sniff::sniff(first).is_some() {
        return Detected::Media;
    }
    if !is_text(first) {
        // Not text, but the content type may still say so, for example of a page that is compressed.
        return if looks_like_no_media(content_type, first) {
            Detected::Document(Document::Page)
        } else {
            Detected::Media
        };
    }
    let text = decode(first);
    let text = text.trim_start();
    let found = by_start(text, is_all).or_else(|| {
        // After the text itself: many servers send lists as `text/plain`, and audio as a list.
        let list = by_content_type(content_type.unwrap_or_default());
        // An error page may have the type of the list that it stands for.
        let is_line_based = |list: &ListFormat| matches!(list, ListFormat::M3u | ListFormat::Pls);
        let list = list.filter(|list| !(is_line_based(list) && is_markup(text)));
        list.map(|list| Detected::Document(Document::List(list)))
    });
    found.unwrap_or_else(|| {
        if looks_like_no_media(content_type, first) {
            Detected::Document(Document::Page)
        } else {
            Detected::Media
        }
    })
}

/// What the response is, if it [is no media](looks_like_no_media).
pub(crate) fn detect_other(content_type: Option<&str>, first: &[u8]) -> Option<Document> {
    if !looks_like_no_media(content_type, first) {
        return None;
    }
    match detect(content_type, first, true) {
        Detected::Document(document) => Some(document),
        Detected::Media | Detected::Unclear => Some(Document::Page),
    }
}

/// True if the bytes are text: no control characters, in any of the encodings that [`decode`] knows.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let is_control = |char: char| char.is_control() && !char.is_whitespace();
    // In Windows-1252 five of these bytes are no letters, but control characters.
    !decode(bytes).chars().any(|char| is_control(char) && !('\u{80}'..='\u{9f}').contains(&char))
}

/// True for XML and JSON, whose lines are no paths of files.
pub(crate) fn is_markup(text: &str) -> bool {
    let text = text.trim_start();
    let is_array = |rest: &str| rest.trim_start().starts_with(['{', '"']);
    text.starts_with(['<', '{']) || text.strip_prefix('[').is_some_and(is_array)
}

fn by_start(text: &str, is_all: bool) -> Option<Detected> {
    let list = |format| Some(Detected::Document(Document::List(format)));
    let is_comment = |line: &str| line.is_empty() || line.starts_with(';') || line.starts_with('#');
    let mut significant = lines(text).filter(|line| begins(line, "#EXTINF:") || !is_comment(line));
    let first = significant.next().unwrap_or_default();
    if begins(text, "#EXTM3U") || begins(first, "#EXTINF:") {
        return Some(m3u(text, is_all));
    }
    // `[Reference]` begins a redirector of old Windows Media servers, with lines `Ref1=` as in a PLS.
    if ["[playlist]", "[reference]", "file1=", "numberofentries="].iter().any(|start| begins(first, start)) {
        return list(ListFormat::Pls);
    }
    // Bare URLs, one a line, are an M3U without its header.
    if ["http://", "https://", "icy://"].iter().any(|start| begins(first, start)) {
        return list(ListFormat::M3u);
    }
    if !text.starts_with('<') {
        return None;
    }
    match root_element(text) {
        Root::Cut if !is_all => Some(Detected::Unclear),
        Root::Named(name) => by_root(&name).map(Detected::Document),
        Root::Cut | Root::None => None,
    }
}

/// Distinguishes a playlist of HLS from a list of tracks.
fn m3u(text: &str, is_all: bool) -> Detected {
    const VERSION: &str = "#EXT-X-VERSION";
    let mut has_version = false;
    for line in lines(text) {
        // A stream, which has no end. A segment of HLS has one.
        if begins(line, "#EXTINF:") && line["#EXTINF:".len()..].trim_start().starts_with('-') {
            return Detected::Document(Document::List(ListFormat::M3u));
        }
        // Lists of stations have a version too. The text may end inside of it.
        if begins(line, VERSION) || begins(VERSION, line) {
            has_version |= begins(line, VERSION);
        // RFC 8216, section 4.3: each playlist of HLS has a tag that begins with `#EXT-X-`.
        } else if begins(line, "#EXT-X-") {
            return Detected::Document(Document::Hls);
        }
    }
    match has_version {
        _ if !is_all => Detected::Unclear,
        true => Detected::Document(Document::Hls),
        false => Detected::Document(Document::List(ListFormat::M3u)),
    }
}

/// Lines without the white space around them, whichever character ends them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r']).map(str::trim)
}

enum Root {
    /// In lower case, without its prefix.
    Named(String),
    /// The text ends before it.
    Cut,
    None,
}

/// The name of the first element of XML, behind the declaration, comments and the document type.
fn root_element(mut text: &str) -> Root {
    loop {
        text = text.trim_start();
        let Some(rest) = text.strip_prefix('<') else {
            return if text.is_empty() { Root::Cut } else { Root::None };
        };
        let end = match () {
            () if rest.starts_with("!--") => "-->",
            () if rest.starts_with('?') => "?>",
            // HTML needs no `html` element (WHATWG HTML, section 13.1.2.4), so what follows may be any other.
            () if begins(rest, "!doctype html") => return Root::Named("html".into()),
            () if rest.starts_with('!') => {
                let Some(behind) = behind_document_type(rest) else { return Root::Cut };
                text = behind;
                continue;
            }
            () => break,
        };
        let Some((_, behind)) = rest.split_once(end) else { return Root::Cut };
        text = behind;
    }
    let name: &str =
        text[1..].split(|char: char| char.is_whitespace() || "/>".contains(char)).next().unwrap_or("");
    // The text may end inside of the name.
    if name.len() + 1 == text.len() {
        return Root::Cut;
    }
    let local = name.rsplit(':').next().unwrap_or(name);
    if local.is_empty() { Root::None } else { Root::Named(local.to_ascii_lowercase()) }
}

/// What follows a document type. Quotes, comments and declarations in brackets may contain its last character (XML 1.0, section
/// 2.8). `None` if its end is missing.
fn behind_document_type(mut text: &str) -> Option<&str> {
    let mut is_in_brackets = false;
    loop {
        let at = text.find(['"', '\'', '[', ']', '<', '>'])?;
        let (found, rest) = (text.as_bytes()[at], &text[at + 1..]);
        text = match found {
            b'"' => rest.split_once('"')?.1,
            b'\'' => rest.split_once('\'')?.1,
            b'<' if rest.starts_with("!--") => rest.split_once("-->")?.1,
            b'>' if !is_in_brackets => return Some(rest),
            b'[' | b']' => {
                is_in_brackets = found == b'[';
                rest
            }
            _ => rest,
        };
    }
}

fn by_root(name: &str) -> Option<Document> {
    Some(match name {
        "asx" => Document::List(ListFormat::Asx),
        "playlist" => Document::List(ListFormat::Xspf),
        // RSS 0.9 and 1.0 are RDF.
        "rss" | "feed" | "rdf" => Document::List(ListFormat::Feed),
        "mpd" => Document::Dash,
        "smoothstreamingmedia" => Document::SmoothStreaming,
        _ => return None,
    })
}

fn by_content_type(content_type: &str) -> Option<ListFormat> {
    let essence = names::essence(content_type);
    let has = |name: &str| essence.contains(name);
    if has("mpegurl") {
        Some(ListFormat::M3u)
    // `pls+xml` is the type of pronunciation lexicons (RFC 4267). They share the extension `.pls` with playlists, so servers
    // that go by the extension send it for both.
    } else if has("scpls") || has("pls+xml") {
        Some(ListFormat::Pls)
    } else if has("xspf") {
        Some(ListFormat::Xspf)
    } else {
        None
    }
}

fn begins(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|got| got.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RSS: &str =
        "<?xml version=\"1.0\"?>\n<!-- a <comment> --><?xml-stylesheet x?>\n<rss version=\"2.0\"><channel>";

    #[test]
    fn documents_are_told_by_their_first_bytes() {
        use Document::{Dash, Hls, List, Page, SmoothStreaming};
        use ListFormat::{Asx, Feed, M3u, Pls, Xspf};
        for (content_type, first, document) in [
            ("audio/mpeg", "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:4,\n0.ts\n", Hls),
            ("application/vnd.apple.mpegurl", "\u{feff}#EXTM3U\n#EXTINF:4,a\nhttp://h/1.mp3\n", List(M3u)),
            ("text/plain", "#extm3u x-tvg-url=\"http://h\"\n#EXTGRP:News\nhttp://h/1\n", List(M3u)),
            ("audio/x-mpegurl", "Radio:\r\n/a.mp3\r\n", List(M3u)),
            ("text/html", "https://h/a\r\n", List(M3u)),
            ("", "#EXTINF:-1,One\nhttp://h/1\n", List(M3u)),
            ("text/plain", "# mine\n\nhttp://h/1\n", List(M3u)),
            ("", "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:-1 tvg-id=\"a\",One\nhttp://h/1\n", List(M3u)),
            ("", "#EXTM3U\n#EXTINF: -1,One\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://h/1\n", List(M3u)),
            ("", "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:4,\n0.ts\n", Hls),
            ("", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:-1,\n0.ts\n", Hls),
            // Without its head: the error says what is missing. Its segments are no tracks.
            ("", "#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n0.ts\n#EXTINF:6,\n1.ts\n#EXT-X-ENDLIST\n", Hls),
            ("", "#EXTM3U\r#EXT-X-TARGETDURATION:6\r#EXTINF:6,\r0.ts\r", Hls),
            ("", "; by hand\n[playlist]\nFile1=http://h/a\n", List(Pls)),
            ("", "File1=http://h/a\nTitle1=A\n", List(Pls)),
            ("audio/x-scpls", "nothing of the kind", List(Pls)),
            ("", "\n\n[Playlist]\nFile1=http://h/a\n", List(Pls)),
            ("video/x-ms-asf", "[Reference]\r\nRef1=http://h/a\r\n", List(Pls)),
            ("", "<ASX version=\"3.0\"><ENTRY>", List(Asx)),
            ("text/xml", "<?xml version='1.0'?><playlist xmlns='http://xspf.org/ns/0/'>", List(Xspf)),
            ("application/rss+xml", RSS, List(Feed)),
            ("", "<!DOCTYPE rss [ ]><x:RSS >", List(Feed)),
            (
                "",
                "<!DOCTYPE rss [<!ENTITY % lat PUBLIC \"-//x\" \"http://h/x.ent\">\n%lat;\n]>\n<rss>",
                List(Feed),
            ),
            ("", "<!DOCTYPE rss [<!ENTITY a \"b\">]\n>\n<rss>", List(Feed)),
            ("", "<!DOCTYPE rss [<!ENTITY a \"[b]>\"> <!-- ]> --> ]>\n<rss>", List(Feed)),
            ("", "<!DOCTYPE rss PUBLIC \"-//a>\" 'http://h/[a]'>\n<rss>", List(Feed)),
            ("", "<feed xmlns=\"http://www.w3.org/2005/Atom\">", List(Feed)),
            (
                "application/dash+xml",
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\">",
                Dash,
            ),
            ("text/xml", "<SmoothStreamingMedia MajorVersion=\"2\">", SmoothStreaming),
            ("text/html", "<!doctype html><a href=\"http://h\">", Page),
            ("audio/mpeg", "<html><body>not found</body>", Page),
            // An error in the place of a list.
            ("audio/x-mpegurl", "<html><body>not found</body>", Page),
            ("application/vnd.apple.mpegurl", "{\"error\": 1}", Page),
            ("audio/x-mpegurl", "[{\"error\": 1}]", Page),
            ("audio/x-scpls", "<!doctype html><p>", Page),
            ("audio/x-mpegurl", "[Live] a.mp3\n", List(M3u)),
            ("", "icy://h:8000/a\n", List(M3u)),
            ("", "NumberOfEntries=1\nFile1=http://h/a\n", List(Pls)),
            ("application/json", "{\"error\": 1}", Page),
            ("text/xml", "<?xml version=\"1.0\"?><error>http://host/</error>", Page),
        ] {
            assert_eq!(
                detect(Some(content_type), first.as_bytes(), true),
                Detected::Document(document),
                "{content_type} {first}"
            );
        }
        let wide: Vec<u8> = "\u{feff}<asx version=\"3\">".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(detect(None, &wide, true), Detected::Document(List(Asx)));
    }

    #[test]
    fn media_is_media_whatever_its_content_type_says() {
        for first in [
            &b"ID3\x04\0\0\0\0\0\0http://h"[..],
            b"\xff\xfb\x90\x64http://h",
            b"OggS\0\x02",
            b"fLaC\0\0\0\x22",
            b"\0\x01\x02",
        ] {
            assert_eq!(
                detect(Some("audio/x-mpegurl"), first, true),
                if first[0] == 0 { Detected::Document(Document::Page) } else { Detected::Media }
            );
        }
        assert_eq!(detect(Some("application/octet-stream"), &[0; 100], false), Detected::Media);
        assert_eq!(
            detect(None, b"some text of no kind, and no field that names a kind", true),
            Detected::Media
        );
    }

    #[test]
    fn what_may_be_either_waits_for_more() {
        let unclear = |text: &str| detect(None, text.as_bytes(), false) == Detected::Unclear;
        assert!(unclear("") && unclear("#EXTM3U\n#EXT-X-VERSION:3\n"));
        let comment = format!("<?xml version=\"1.0\"?><!-- {} ", "x".repeat(100));
        assert!(unclear(&comment) && unclear(&format!("{comment} --><MPD")));
        let list = format!("#EXTM3U\n{}", "#EXTINF:3,a\nhttp://h/a\n".repeat(10));
        assert!(unclear(&list));
        assert_eq!(detect(None, list.as_bytes(), true), Detected::Document(Document::List(ListFormat::M3u)));
        // The next line may show that it is a list of stations.
        let head = "#EXTM3U x-tvg-url=\"http://host/a/guide/of/all/programs.xml\"\n#EXT-X-VERSION:3";
        assert!(head.len() > RECOGNIZABLE);
        assert!((head.len() - 14..=head.len()).all(|end| unclear(&head[..end])));
        assert!(!unclear(&format!("{head}\n#EXT-X-T")));
        let long = list.repeat(100);
        assert_eq!(detect(None, long.as_bytes(), false), Detected::Document(Document::List(ListFormat::M3u)));
    }

    proptest! {
        #[test]
        fn it_never_panics_and_always_decides_at_last(
            content_type in ".{0,20}",
            start in "(#EXTM3U|<\\?xml|<!--|<!|<|http://|\\[playlist\\])?",
            rest in any::<Vec<u8>>(),
        ) {
            let first = [start.as_bytes(), &rest].concat();
            detect(Some(&content_type), &first, false);
            prop_assert_ne!(detect(Some(&content_type), &first, true), Detected::Unclear);
        }
    }
}
