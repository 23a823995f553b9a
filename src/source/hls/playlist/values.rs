//! Values of tags and attributes (section 4.2): numbers, durations, byte ranges.

use std::time::Duration;

use super::error::PlaylistProblem;
use crate::types::ByteRange;

/// A duration is this long at most: 100 years. The sum of all durations of a playlist is far below the limits of a clock then.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Parses a decimal number of seconds exactly, down to the nanosecond.
pub(super) fn parse_seconds(text: &str) -> Option<Duration> {
    parse_decimal(text).map(|duration| duration.min(LONGEST))
}

fn parse_decimal(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What is finer than a nanosecond is dropped.
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Duration::new(seconds, nanoseconds))
}

/// Seconds with a sign: how far, and whether it is negative.
pub(super) fn parse_signed_seconds(text: &str) -> Option<(Duration, bool)> {
    match text.trim().strip_prefix('-') {
        Some(rest) => Some((parse_seconds(rest)?, true)),
        None => Some((parse_seconds(text)?, false)),
    }
}

/// A number whose digits behind the point are dropped.
pub(super) fn parse_rounded(text: &str) -> Option<u64> {
    // Section 4.2 allows integers only, but some servers write `BANDWIDTH=128000.0`.
    parse_decimal(text).map(|value| value.as_secs())
}

/// A hexadecimal sequence of up to 128 bits.
pub(super) fn parse_hex(text: &str) -> Option<u128> {
    // Some servers leave out the mark of an IV, of which all 32 digits are there.
    let unmarked = Some(text).filter(|text| text.len() == 32);
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).or(unmarked)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// `length[@offset]`.
pub(super) struct RangeText {
    pub(super) len: u64,
    pub(super) offset: Option<u64>,
}

impl RangeText {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (len, offset) = match text.trim().split_once('@') {
            Some((len, offset)) => (len, Some(offset.trim().parse().ok()?)),
            None => (text.trim(), None),
        };
        Some(Self { len: len.trim().parse().ok()?, offset })
    }

    pub(super) fn at(&self, offset: u64) -> Result<ByteRange, PlaylistProblem> {
        let end = offset.checked_add(self.len).ok_or(PlaylistProblem::Overflow)?;
        Ok(ByteRange::new(offset, end))
    }
}

pub(super) fn parse_number(text: &str, what: &'static str) -> Result<u64, PlaylistProblem> {
    text.trim().parse().map_err(|_| PlaylistProblem::InvalidValue(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_2_decimals_are_exact() {
        assert_eq!(parse_seconds("9.009"), Some(Duration::from_millis(9009)));
        assert_eq!(parse_seconds("0.0000000019"), Some(Duration::from_nanos(1)));
        assert_eq!(parse_seconds(".5"), Some(Duration::from_millis(500)));
        assert_eq!(parse_seconds("18446744073709551615"), Some(LONGEST));
        for text in ["", ".", "1e3", "-1", "+1", "nan", "18446744073709551616"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn s4_2_hexadecimal_sequences_have_up_to_128_bits() {
        assert_eq!(parse_hex("0xff"), Some(255));
        assert_eq!(parse_hex("0XFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"), Some(u128::MAX));
        assert_eq!(
            parse_hex("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"),
            Some(u128::MAX),
            "all digits, without the mark"
        );
        for text in [
            "ff",
            "0x",
            "0x+1",
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFG",
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
            "0x100000000000000000000000000000000",
        ] {
            assert_eq!(parse_hex(text), None, "{text}");
        }
    }
}
