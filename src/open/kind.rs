//! Decides what a response is: a file, a station or a document. Pure.

use crate::client::ResponseHead;
use crate::media::{self, ContainerFormat, Detected, Document, MediaInfo};
use crate::source::radio::{RadioInfo, is_station_header};

/// What a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Audio or video with an end.
    File,
    /// Audio without an end, or with titles in between.
    Radio,
    Document(Document),
}

/// What the response head says about the end of the body.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Bytes of audio between two titles.
    interval: Option<usize>,
    /// Fields that only stations send.
    is_station: bool,
    is_partial: bool,
    has_length: bool,
    is_chunked: bool,
    has_validator: bool,
}

/// Decides by the response head and the first bytes. `is_all` says that there are no more bytes, or that no more are read;
/// without it the result is `None` if more bytes are needed.
pub(super) fn decide(head: &ResponseHead, first: &[u8], is_all: bool) -> Option<Kind> {
    Facts::of(head).decide(head.content_type(), first, is_all)
}

impl Facts {
    fn of(head: &ResponseHead) -> Self {
        let server = head.header("server").unwrap_or_default().to_ascii_lowercase();
        let is_named = ["icecast", "shoutcast"].iter().any(|name| server.starts_with(name));
        Self {
            interval: RadioInfo::from_headers(head.headers()).metadata_interval.map(Into::into),
            is_station: is_named || head.headers().any(|(name, _)| is_station_header(name)),
            is_partial: head.is_partial(),
            has_length: head.total().is_some() || head.body_len().is_some(),
            is_chunked: head.header("transfer-encoding").is_some(),
            has_validator: head.validator().is_some(),
        }
    }

    fn decide(self, content_type: Option<&str>, first: &[u8], is_all: bool) -> Option<Kind> {
        // What follows the audio is a title.
        let audio = &first[..first.len().min(self.interval.unwrap_or(usize::MAX))];
        let is_all = is_all || audio.len() < first.len();
        match media::detect(content_type, audio, is_all) {
            Detected::Document(document) => Some(Kind::Document(document)),
            Detected::Media => {
                Some(if self.is_radio(content_type, audio) { Kind::Radio } else { Kind::File })
            }
            Detected::Unclear => None,
        }
    }

    fn is_radio(self, content_type: Option<&str>, audio: &[u8]) -> bool {
        if self.interval.is_some() {
            // Read as a file, its titles would be taken for audio.
            return true;
        }
        // Also before the fields of a station: some servers send `icy-` fields with files.
        if self.is_partial || self.has_length {
            return false;
        }
        if self.is_station {
            return true;
        }
        // Files that are made while they are sent are chunked in HTTP/1.1. Of stations that send no fields of their own, most
        // just send until the connection ends; so do scripts that send files.
        !(self.has_validator || self.is_chunked || is_of_a_file(content_type, audio))
    }
}

/// True if a body that does not say where it ends is a file by its type or first bytes.
fn is_of_a_file(content_type: Option<&str>, audio: &[u8]) -> bool {
    // What servers send for files whose type they do not know. A player could do nothing with a station of this type.
    let is_unnamed = content_type.is_some_and(|sent| sent.starts_with("application/octet-stream"));
    // A listener joins a station behind any tag.
    let has_tag = audio.starts_with(b"ID3");
    // These have one header at their beginning, without which what follows can't be decoded. Stations send MP3, AAC, Ogg, WebM
    // and transport streams, which can be joined.
    let container = MediaInfo::detect(None, "", audio).container.map(|(container, _)| container);
    let has_header = matches!(
        container,
        Some(
            ContainerFormat::Flac
                | ContainerFormat::Wav
                | ContainerFormat::Aiff
                | ContainerFormat::Caf
                | ContainerFormat::Mp4
        )
    );
    is_unnamed || has_tag || has_header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ListFormat;

    const MP3: &[u8] = b"\xff\xfb\x90\x64\0\0\0\0\0\0\0\0\0\0";

    fn facts() -> Facts {
        Facts::default()
    }

    #[test]
    fn media_is_a_file_if_it_has_an_end() {
        for (facts, kind) in [
            (Facts { is_partial: true, has_length: true, has_validator: true, ..facts() }, Kind::File),
            (Facts { is_partial: true, ..facts() }, Kind::File),
            (Facts { has_length: true, ..facts() }, Kind::File),
            // Icecast serves files, too.
            (Facts { has_length: true, is_station: true, ..facts() }, Kind::File),
            (Facts { is_chunked: true, ..facts() }, Kind::File),
            (Facts { has_validator: true, ..facts() }, Kind::File),
            (Facts { is_station: true, is_chunked: true, ..facts() }, Kind::Radio),
            (Facts { is_station: true, ..facts() }, Kind::Radio),
            (facts(), Kind::Radio),
            (Facts { interval: Some(8192), is_station: true, ..facts() }, Kind::Radio),
            (Facts { interval: Some(8192), has_length: true, is_partial: true, ..facts() }, Kind::Radio),
        ] {
            assert_eq!(facts.decide(Some("audio/mpeg"), MP3, true), Some(kind), "{facts:?}");
        }
    }

    #[test]
    fn documents_are_documents_however_they_are_sent() {
        let station = Facts { is_station: true, ..facts() };
        let file = Facts { is_partial: true, has_length: true, ..facts() };
        for (first, document) in [
            (&b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n"[..], Document::Hls),
            (b"#EXTM3U\nhttp://h/a\n", Document::List(ListFormat::M3u)),
            (b"<MPD>", Document::Dash),
            (b"<html>", Document::Page),
        ] {
            for facts in [station, file] {
                assert_eq!(facts.decide(None, first, true), Some(Kind::Document(document)));
            }
        }
    }

    #[test]
    fn a_body_without_an_end_is_a_file_if_only_files_begin_like_it() {
        let kind = |content_type, first: &[u8]| facts().decide(Some(content_type), first, true);
        for first in
            [&b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64"[..], b"fLaC\0\0\0\x22", b"RIFF\x24\0\0\0WAVEfmt "]
        {
            assert_eq!(kind("audio/mpeg", first), Some(Kind::File));
        }
        assert_eq!(kind("application/octet-stream", MP3), Some(Kind::File));
        for first in [MP3, b"OggS\0\x02", b"\x1a\x45\xdf\xa3"] {
            assert_eq!(kind("audio/mpeg", first), Some(Kind::Radio));
        }
        // A station that says so may send anything.
        let station = Facts { is_station: true, ..facts() };
        assert_eq!(station.decide(Some("audio/flac"), b"fLaC\0\0\0\x22", true), Some(Kind::Radio));
    }

    #[test]
    fn titles_are_not_looked_at() {
        let titles = Facts { interval: Some(14), ..facts() };
        let first = [MP3, b"\x01StreamTitle='<html>'; "].concat();
        assert_eq!(titles.decide(None, &first, false), Some(Kind::Radio));
    }

    #[test]
    fn few_bytes_decide_nothing() {
        assert_eq!(facts().decide(None, b"ID", false), None);
        assert_eq!(facts().decide(None, b"ID", true), Some(Kind::Radio));
    }
}
