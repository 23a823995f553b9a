//! Whether a resource is an HLS playlist.

/// Bytes that are enough to recognise a playlist: the tags that only HLS has stand at the beginning.
pub(crate) const RECOGNIZED_BY: usize = 4096;

/// True if a resource that begins with `first` is an HLS playlist. Give it the first 4 KiB, or all of a shorter one.
///
/// M3U lists of files begin with `#EXTM3U` too, and have the same content types. Only HLS has tags that begin with `#EXT-X-`,
/// so these decide; `content_type` decides if the bytes have none, and is that of HLS alone.
///
/// ```
/// assert!(windway::hls::is_hls(b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n", None));
/// assert!(!windway::hls::is_hls(b"#EXTM3U\n#EXTINF:123,Title\nsong.mp3\n", Some("audio/x-mpegurl")));
/// ```
pub fn is_hls(first: &[u8], content_type: Option<&str>) -> bool {
    let first = &first[..first.len().min(RECOGNIZED_BY)];
    let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first).trim_ascii_start();
    if !text.starts_with(b"#EXTM3U") {
        return false;
    }
    let mut lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    // RFC 8216, section 4: the type of HLS. Lists of files are audio/mpegurl.
    media_type.eq_ignore_ascii_case("application/vnd.apple.mpegurl")
        || lines.any(|line| line.starts_with(b"#EXT-X-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hls_is_told_from_lists_of_files_and_from_pages() {
        for text in
            ["#EXTM3U\n#EXT-X-VERSION:3\n", "\u{feff}\n#EXTM3U\r\n\r\n#EXT-X-STREAM-INF:BANDWIDTH=1\r\na"]
        {
            assert!(is_hls(text.as_bytes(), None), "{text}");
        }
        for text in [
            "",
            "#EXTM3",
            "#EXTM3U\nhttp://host/a.mp3\n",
            "#EXTM3U\n#EXTINF:1,#EXT-X-A\na",
            "<html>#EXTM3U\n#EXT-X-A",
        ] {
            assert!(!is_hls(text.as_bytes(), None), "{text}");
        }
        assert!(is_hls(b"#EXTM3U\n", Some("application/vnd.apple.mpegurl; charset=utf-8")));
        assert!(!is_hls(b"#EXTM3U\n", Some("audio/mpegurl")));
        assert!(!is_hls(b"<html>", Some("application/vnd.apple.mpegurl")));
    }
}
