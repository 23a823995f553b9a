//! Parses `Content-Range` and compares it with the requested range.

use crate::types::{ByteRange, digits};

/// A `Content-Range` header (RFC 9110, section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentRange {
    /// The body contains this range; `total` is the length of the whole resource in bytes, if known.
    Bytes { range: ByteRange, total: Option<u64> },
    /// The range is unsatisfiable; the resource has `total` bytes.
    Unsatisfied { total: u64 },
}

impl ContentRange {
    /// `None` if the unit is not bytes or the value is invalid.
    pub(super) fn parse(value: &str) -> Option<Self> {
        // Some servers write "bytes=0-99/200", as in `Range`.
        let (unit, rest) = value.trim().split_once([' ', '\t', '='])?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, total) = rest.split_once('/')?;
        let (range, total) = (range.trim(), total.trim());
        if range == "*" {
            return Some(Self::Unsatisfied { total: digits(total)? });
        }
        let total = if total == "*" { None } else { Some(digits(total)?) };
        let (first, last) = range.split_once('-')?;
        let (first, last) = (digits(first.trim())?, digits(last.trim())?);
        let range = ByteRange::new(first, last.checked_add(1)?);
        let makes_sense = first <= last && total.is_none_or(|total| range.end <= total);
        makes_sense.then_some(Self::Bytes { range, total })
    }
}

/// The range of a partial response, and the length of the resource if known. If the response does not answer a request for
/// `requested`, the error is the reason.
pub(super) fn check_partial(
    requested: ByteRange,
    header: Option<&str>,
    body_len: Option<u64>,
) -> Result<(ByteRange, Option<u64>), String> {
    let Some(header) = header else {
        return Err(format!(
            "the response is partial but does not say which part it is; bytes {requested} were requested"
        ));
    };
    let Some(ContentRange::Bytes { range, total }) = ContentRange::parse(header) else {
        return Err(format!("the server sent the range {header:?}; bytes {requested} were requested"));
    };
    // RFC 9110, section 15.3.7: it may end earlier than requested.
    if range.start != requested.start || range.end > requested.end {
        return Err(format!("the server sent bytes {range}; bytes {requested} were requested"));
    }
    match body_len {
        Some(len) if len != range.len() => {
            Err(format!("the server announced {len} bytes of body for bytes {range}"))
        }
        _ => Ok((range, total)),
    }
}

/// As [`check_partial`], for a request for the last `requested` bytes (RFC 9110, section 14.1.2).
pub(super) fn check_suffix(
    requested: u64,
    header: Option<&str>,
    body_len: Option<u64>,
) -> Result<(ByteRange, Option<u64>), String> {
    let (range, total) =
        check_partial(ByteRange::from_start(suffix_start(requested, header)), header, body_len)?;
    // Fewer bytes are right where the resource is shorter: then it is sent whole (RFC 9110, section 14.1.2).
    if range.len() > requested || total != Some(range.end) {
        return Err(format!(
            "the server sent bytes {range}, which are not the last {requested} of the resource"
        ));
    }
    Ok((range, total))
}

/// Position at which the response to a request for the last `requested` bytes has to begin.
fn suffix_start(requested: u64, header: Option<&str>) -> u64 {
    match header.and_then(ContentRange::parse) {
        Some(ContentRange::Bytes { total: Some(total), .. }) => total.saturating_sub(requested),
        _ => 0,
    }
}

/// What the body of a 200 contains if a range was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The whole resource, as its status means (RFC 9110, section 15.3.1).
    Whole,
    /// The requested range: the server should have sent status 206.
    Part { range: ByteRange, total: Option<u64> },
    /// The range or the whole: the head does not show which. Request the whole resource instead.
    Unclear,
}

/// What a 200 contains.
pub(super) fn read_200(requested: ByteRange, header: Option<&str>, body_len: Option<u64>) -> Meaning {
    // RFC 9110, section 14.4, gives `Content-Range` no meaning in a 200, but some scripts send the range with that header, and
    // others send it without.
    let Some(ContentRange::Bytes { range, total }) = header.and_then(ContentRange::parse) else {
        // A body as long as the range may be the range, or a whole resource of the same length.
        return if body_len == Some(requested.len()) { Meaning::Unclear } else { Meaning::Whole };
    };
    let fits = range.start == requested.start && range.end <= requested.end;
    match body_len {
        Some(len) if total == Some(len) => Meaning::Whole,
        Some(len) if fits && len == range.len() => Meaning::Part { range, total },
        // From position 0 on, the range and the whole begin with the same bytes, and the rest is requested later.
        None if fits && range.start == 0 => Meaning::Part { range, total },
        _ => Meaning::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(start: u64, end: u64, total: Option<u64>) -> Option<ContentRange> {
        Some(ContentRange::Bytes { range: ByteRange::new(start, end), total })
    }

    #[test]
    fn valid_ranges_are_parsed() {
        assert_eq!(ContentRange::parse("bytes 0-99/200"), bytes(0, 100, Some(200)));
        assert_eq!(ContentRange::parse("bytes 5-5/*"), bytes(5, 6, None));
        assert_eq!(ContentRange::parse("bytes */200"), Some(ContentRange::Unsatisfied { total: 200 }));
        assert_eq!(ContentRange::parse("  BYTES  0 - 99 / 200 "), bytes(0, 100, Some(200)));
        assert_eq!(ContentRange::parse("bytes=0-99/200"), bytes(0, 100, Some(200)));
    }

    #[test]
    fn invalid_ranges_are_refused() {
        let invalid = [
            "",
            "bytes",
            "bytes 0-99",
            "items 0-99/200",
            "bytes 99-0/200",
            "bytes 278076-278075/278076",
            "bytes 0-200/200",
            "bytes -5-9/200",
            "bytes +0-9/200",
            "bytes 0-/200",
            "bytes -99/200",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes */*",
            "bytes a-b/c",
        ];
        for value in invalid {
            assert_eq!(ContentRange::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_part_has_to_be_the_requested_range() {
        let requested = ByteRange::new(100, 200);
        assert!(check_partial(requested, Some("bytes 100-199/1000"), Some(100)).is_ok());
        assert!(check_partial(requested, Some("bytes 100-149/1000"), None).is_ok());
        assert!(check_partial(ByteRange::from_start(100), Some("bytes 100-999/1000"), None).is_ok());
        for (header, len) in [
            (None, Some(100)),
            (Some("bytes 0-99/1000"), Some(100)),
            (Some("bytes 99-199/1000"), None),
            (Some("bytes 100-200/1000"), None),
            (Some("bytes 100-199/1000"), Some(99)),
            (Some("bytes */1000"), None),
        ] {
            assert!(check_partial(requested, header, len).is_err(), "{header:?}");
        }
    }

    #[test]
    fn a_suffix_has_to_be_the_end_of_the_resource() {
        let suffix = |header, len| check_suffix(100, header, len);
        assert_eq!(
            suffix(Some("bytes 900-999/1000"), Some(100)),
            Ok((ByteRange::new(900, 1000), Some(1000)))
        );
        assert_eq!(suffix(Some("bytes 0-49/50"), None), Ok((ByteRange::new(0, 50), Some(50))));
        for (header, len) in [
            (None, Some(100)),
            (Some("bytes 0-99/1000"), Some(100)),
            (Some("bytes 900-998/1000"), Some(99)),
            (Some("bytes 950-999/1000"), Some(50)),
            (Some("bytes 899-999/1000"), Some(101)),
            (Some("bytes 900-999/*"), Some(100)),
            (Some("bytes 900-999/1000"), Some(99)),
            (Some("bytes */1000"), None),
        ] {
            assert!(suffix(header, len).is_err(), "{header:?}");
        }
    }

    #[test]
    fn a_200_is_a_part_only_if_all_header_fields_say_so() {
        let part = |start, end, total| Meaning::Part { range: ByteRange::new(start, end), total };
        let (first, later) = (ByteRange::new(0, 100), ByteRange::new(100, 200));
        for (requested, header, len, meaning) in [
            (later, None, Some(1000), Meaning::Whole),
            (later, None, None, Meaning::Whole),
            (later, None, Some(100), Meaning::Unclear),
            (first, None, Some(100), Meaning::Unclear),
            (ByteRange::from_start(0), None, Some(100), Meaning::Whole),
            (later, Some("bytes 100-199/1000"), Some(100), part(100, 200, Some(1000))),
            (later, Some("bytes 100-149/*"), Some(50), part(100, 150, None)),
            (ByteRange::from_start(100), Some("bytes 100-999/1000"), Some(900), part(100, 1000, Some(1000))),
            (later, Some("bytes 100-199/1000"), Some(1000), Meaning::Whole),
            (first, Some("bytes 0-99/100"), Some(100), Meaning::Whole),
            (first, Some("bytes 0-99/1000"), None, part(0, 100, Some(1000))),
            (later, Some("bytes 100-199/1000"), None, Meaning::Unclear),
            (later, Some("bytes 0-99/1000"), Some(100), Meaning::Unclear),
            (later, Some("bytes 100-299/1000"), Some(200), Meaning::Unclear),
            (later, Some("bytes 100-199/1000"), Some(99), Meaning::Unclear),
            (later, Some("bytes */1000"), Some(1000), Meaning::Whole),
        ] {
            assert_eq!(read_200(requested, header, len), meaning, "{requested}: {header:?}, {len:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in ".{0,64}") {
            ContentRange::parse(&value);
        }

        #[test]
        fn a_formatted_range_is_parsed_back(start in 0..u64::MAX / 2, len in 1..1_000_000_u64, more in 0..1_000_000_u64) {
            let range = ByteRange::new(start, start + len);
            let total = range.end + more;
            let parsed = ContentRange::parse(&format!("bytes {range}/{total}"));
            prop_assert_eq!(parsed, Some(ContentRange::Bytes { range, total: Some(total) }));
        }
    }
}
