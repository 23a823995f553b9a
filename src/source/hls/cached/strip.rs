//! Playlists without the values of queries, which are often secrets. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use url::Url;

use crate::source::hls::playlist::has_known_tag;

/// A URI without the values in its query, a user and a fragment: `a.ts?token=123` becomes `a.ts?token=`.
///
/// What is stripped twice is the same: URLs of stored playlists are stripped again to find what they name.
pub(super) fn strip_uri(uri: &str) -> Cow<'_, str> {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let (path, rest) = uri.split_at(end);
    let query = rest.strip_prefix('?').map(|query| query.split('#').next().unwrap_or_default());
    let names = query.into_iter().flat_map(|query| query.split('&'));
    // A field without a name may be a value.
    let names: Vec<&str> = names.filter_map(|field| field.find('=').map(|at| &field[..=at])).collect();
    let path = without_user(path);
    match names.is_empty() {
        true => path,
        false => Cow::Owned(format!("{path}?{}", names.join("&"))),
    }
}

fn without_user(path: &str) -> Cow<'_, str> {
    // RFC 3986, sections 4.1 and 4.2: behind a scheme, or at the front. Elsewhere it is an empty part of the path.
    let is_authority = |at: &usize| !path[..*at].contains('/') && (*at == 0 || path[..*at].ends_with(':'));
    let authority = path.find("//").filter(is_authority).map(|at| at + 2);
    let Some(start) = authority else { return Cow::Borrowed(path) };
    let end = path[start..].find('/').map_or(path.len(), |at| start + at);
    match path[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}{}", &path[..start], &path[start + at + 1..])),
        None => Cow::Borrowed(path),
    }
}

/// As [`strip_uri`], of an absolute URL.
pub(super) fn strip_url(url: &Url) -> String {
    strip_uri(url.as_str()).into_owned()
}

/// The text of a playlist without the values of queries.
///
/// `None` if URIs that differ in such values only would become equal, or if they are put together from variables.
pub(super) fn strip_playlist(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    // As the parser does: with it, the first line would pass for a URI.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut originals = HashMap::new();
    let mut stripped = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with("#EXT-X-DEFINE") {
            // Two URIs could differ in a variable only, and what is stored under them would be mixed up.
            return None;
        }
        if line.starts_with('#') {
            strip_tag(line, &mut stripped, &mut originals)?;
        } else {
            stripped.push_str(&note(line, &mut originals)?);
        }
        stripped.push('\n');
    }
    Some(stripped)
}

/// Tags with data for the application, which a stored presentation does not show. Any attribute of theirs may be a signed URL:
/// `X-ASSET-LIST` is one.
const OF_THE_APPLICATION: [&str; 2] = ["#EXT-X-DATERANGE", "#EXT-X-SESSION-DATA"];

/// Appends the line of a tag. What windway does not read is left out: where the secrets are in a comment, or in the tag of a vendor,
/// is not known.
fn strip_tag<'a>(
    mut line: &'a str,
    stripped: &mut String,
    originals: &mut HashMap<String, &'a str>,
) -> Option<()> {
    let is_read = line.starts_with("#EXTM3U") || has_known_tag(line);
    if !is_read || OF_THE_APPLICATION.iter().any(|tag| line.starts_with(tag)) {
        return Some(());
    }
    // Matches all attributes whose names end like this, such as `SERVER-URI`.
    const ATTRIBUTE: &str = "URI=\"";
    while let Some(at) = line.find(ATTRIBUTE) {
        let (before, rest) = line.split_at(at + ATTRIBUTE.len());
        let end = rest.find('"')?;
        stripped.push_str(before);
        stripped.push_str(&note(&rest[..end], originals)?);
        line = &rest[end..];
    }
    stripped.push_str(line);
    Some(())
}

/// `uri` without values. `None` if another URI becomes the same.
fn note<'a>(uri: &'a str, originals: &mut HashMap<String, &'a str>) -> Option<String> {
    let stripped = strip_uri(uri).into_owned();
    let original = *originals.entry(stripped.clone()).or_insert(uri);
    (original == uri).then_some(stripped)
}

/// True of a multivariant playlist: only that has this tag (section 4.4.6.2).
pub(super) fn is_multivariant(text: &[u8]) -> bool {
    const TAG: &[u8] = b"#EXT-X-STREAM-INF";
    text.windows(TAG.len()).any(|window| window == TAG)
}

/// True of a text that never changes: a finished media playlist, or a multivariant one.
pub(super) fn is_on_demand(stripped: &str) -> bool {
    stripped.lines().any(|line| line.trim_end() == "#EXT-X-ENDLIST" || line.starts_with("#EXT-X-STREAM-INF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_queries_users_and_fragments_are_removed() {
        for (uri, stripped) in [
            ("a.ts", "a.ts"),
            ("a.ts?token=secret&id=5#t=1", "a.ts?token=&id="),
            ("a.ts?secret", "a.ts"),
            ("https://me:secret@host/a?b=c", "https://host/a?b="),
            ("//me@host/a", "//host/a"),
            ("a@b.ts", "a@b.ts"),
            ("a//b@c/d.ts", "a//b@c/d.ts"),
            ("/a//b@c", "/a//b@c"),
        ] {
            assert_eq!(strip_uri(uri), stripped);
            assert_eq!(strip_uri(stripped), stripped, "as a stored playlist has it");
        }
    }

    #[test]
    fn a_stored_playlist_has_no_values() {
        let text = b"#EXTM3U\n# secret\n#EXT-X-MAP:URI=\"i.mp4?t=secret\",BYTERANGE=\"5@0\"\n#EXTINF:1,What?\na.ts?t=secret\n";
        let stripped = "#EXTM3U\n\n#EXT-X-MAP:URI=\"i.mp4?t=\",BYTERANGE=\"5@0\"\n#EXTINF:1,What?\na.ts?t=\n";
        assert_eq!(strip_playlist(text).as_deref(), Some(stripped));
        assert_eq!(strip_playlist("\u{feff}#EXTM3U\na.ts\n".as_bytes()).as_deref(), Some("#EXTM3U\na.ts\n"));
        // Two segments of one resource.
        assert!(strip_playlist(b"#EXTM3U\na?t=1\na?t=1\n").is_some());
        for mixed_up in
            [&b"#EXTM3U\na?id=1\na?id=2\n"[..], b"#EXTM3U\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"b\"\n"]
        {
            assert_eq!(strip_playlist(mixed_up), None);
        }
    }

    #[test]
    fn a_stored_playlist_has_no_tag_that_windway_does_not_read() {
        let text = b"#EXTM3U\n#EXT-X-DATERANGE:ID=\"a\",X-ASSET-LIST=\"https://ads/a?t=secret\"\n\
            #EXT-X-SESSION-DATA:DATA-ID=\"a\",VALUE=\"secret\"\n#EXT-X-CUE-OUT:secret\n#EXTINF:1,\na.ts\n";
        assert_eq!(strip_playlist(text).as_deref(), Some("#EXTM3U\n\n\n\n#EXTINF:1,\na.ts\n"));
    }

    #[test]
    fn live_playlists_are_told_apart() {
        assert!(is_on_demand("#EXTM3U\n#EXTINF:1,\na\n#EXT-X-ENDLIST\n"));
        assert!(is_on_demand("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na\n"));
        assert!(!is_on_demand("#EXTM3U\n#EXTINF:1,\na\n"));
    }
}
