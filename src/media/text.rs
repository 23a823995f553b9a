//! Text whose encoding is not announced.

use std::borrow::Cow;

/// Decodes `bytes`: by a byte order mark, else as UTF-8, else as Windows-1252, in which any byte is a character. Never fails.
/// The byte order mark is removed.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8_lossy(text),
        [0xff, 0xfe, text @ ..] => decode_utf16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => decode_utf16(text, u16::from_be_bytes),
        // UTF-8 first: text in Windows-1252 with letters beyond ASCII is hardly ever valid UTF-8, and the other way round everything
        // is.
        text => match std::str::from_utf8(text) {
            Ok(text) => Cow::Borrowed(text),
            // The first bytes of a file may end within a character.
            Err(error) if error.error_len().is_none() => String::from_utf8_lossy(text),
            Err(_) => text.iter().copied().map(windows_1252).collect(),
        },
    }
}

/// The character of a byte in Windows-1252, as the WHATWG Encoding Standard has it: Latin-1, but for quotation marks, dashes and
/// others in place of its second block of control characters.
pub(crate) fn windows_1252(byte: u8) -> char {
    const OWN: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => OWN[usize::from(byte - 0x80)],
        // A byte of Latin-1 is its own code point.
        _ => char::from(byte),
    }
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Cow<'static, str> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_is_found_by_the_mark_or_by_the_bytes() {
        for (bytes, text) in [
            (&b"\xef\xbb\xbfM\xc3\xbcnchen"[..], "München"),
            (b"M\xc3\xbcnchen", "München"),
            (b"M\xfcnchen", "München"),
            (b"Don\x92t \x96 \x80\x9f", "Don’t – €Ÿ"),
            (b"\xff\xfeM\0\xfc\0", "Mü"),
            (b"\xfe\xff\0M\0\xfc", "Mü"),
            (b"M\xc3", "M\u{fffd}"),
            (b"", ""),
        ] {
            assert_eq!(decode(bytes), text, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_utf_8_is_read_as_it_is(text in "[^\u{feff}].{0,40}") {
            prop_assert_eq!(decode(text.as_bytes()), text.as_str());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            decode(&bytes);
        }
    }
}
