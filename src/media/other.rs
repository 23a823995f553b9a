//! Recognises pictures, documents and archives, which some URLs of a list or a feed lead to.

use super::names;

/// What the response is, if both its content type and its first bytes say so. One of them may be wrong: audio is often sent with a
/// type of another kind, and bytes of an unknown format may begin with anything.
pub(super) fn other_file(content_type: Option<&str>, first: &[u8]) -> Option<&'static str> {
    let essence = content_type.map(names::essence).unwrap_or_default();
    let (name, is_announced) = match first {
        // ITU-T T.81, annex B: start of image, and the next marker.
        [0xff, 0xd8, 0xff, ..] => ("a JPEG image", essence.starts_with("image/")),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            ("a PNG image", essence.starts_with("image/"))
        }
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => ("a GIF image", essence.starts_with("image/")),
        // WAVE is RIFF, too.
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            ("a WebP image", essence.starts_with("image/"))
        }
        [b'%', b'P', b'D', b'F', b'-', ..] => ("a PDF document", essence == "application/pdf"),
        [b'P', b'K', 3, 4, ..] => {
            let types = ["application/zip", "application/x-zip-compressed", "application/x-zip"];
            ("a ZIP archive", types.contains(&&*essence))
        }
        _ => return None,
    };
    is_announced.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &[u8]); 7] = [
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("image/png", b"\x89PNG\r\n\x1a\n\0"),
        ("image/gif", b"GIF89a\x01\0"),
        // Many servers announce another format of image than they send.
        ("image/jpeg; q=1", b"RIFF\x24\0\0\0WEBPVP8 "),
        ("application/pdf", b"%PDF-1.7\n"),
        ("Application/ZIP", b"PK\x03\x04\x14\0"),
        ("application/x-zip-compressed", b"PK\x03\x04\x14\0"),
    ];

    #[test]
    fn a_file_is_another_if_its_type_and_its_first_bytes_say_so() {
        for (content_type, first) in FILES {
            assert!(other_file(Some(content_type), first).is_some(), "{content_type}");
            for unclear in [None, Some("application/octet-stream"), Some("audio/mpeg")] {
                assert_eq!(other_file(unclear, first), None, "{content_type}");
            }
            for media in [&b"ID3\x04\0\0\0\0\0\0"[..], b"RIFF\x24\0\0\0WAVEfmt ", b"\xff\xfb\x90\x64", b""] {
                assert_eq!(other_file(Some(content_type), media), None, "{content_type}");
            }
        }
    }
}
