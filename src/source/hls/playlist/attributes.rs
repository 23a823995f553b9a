//! Attribute lists and the values in them (section 4.2).

use std::borrow::Cow;
use std::time::Duration;

use super::error::PlaylistProblem;
use super::variables::Variables;
use crate::types::ByteRange;

/// Attributes of one tag, at most. The longest tag of the draft has 21.
const MOST_ATTRIBUTES: usize = 64;

/// The attributes of one tag.
pub(super) struct Attributes<'a> {
    list: Vec<Attribute<'a>>,
}

struct Attribute<'a> {
    name: &'a str,
    value: Cow<'a, str>,
    is_quoted: bool,
}

impl<'a> Attributes<'a> {
    pub(super) fn parse(text: &'a str, variables: &mut Variables) -> Result<Self, PlaylistProblem> {
        let mut list: Vec<Attribute<'a>> = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or(PlaylistProblem::AttributeSyntax)?;
            let (value, is_quoted, after) = take_value(after)?;
            let name = name.trim();
            if name.is_empty() || name.contains(['"', ',']) {
                return Err(PlaylistProblem::AttributeSyntax);
            }
            // Section 4.2: a client must refuse a list in which a name occurs twice.
            if list.iter().any(|known| known.name == name) {
                return Err(PlaylistProblem::DuplicateAttribute(name.to_owned()));
            }
            if list.len() == MOST_ATTRIBUTES {
                return Err(PlaylistProblem::TooManyAttributes(MOST_ATTRIBUTES));
            }
            // Section 4.3: variables are replaced in quoted strings and in hexadecimal sequences.
            let is_replaced = is_quoted || value.starts_with("0x") || value.starts_with("0X");
            let value = if is_replaced { variables.replace(value)? } else { value.into() };
            list.push(Attribute { name, value, is_quoted });
            rest = after.trim_start();
        }
        Ok(Self { list })
    }

    /// The value, without quotes.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|attribute| attribute.name == name).map(|attribute| &*attribute.value)
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&str, PlaylistProblem> {
        self.get(name).ok_or(PlaylistProblem::MissingAttribute(name))
    }

    pub(super) fn text(&self, name: &str) -> Option<Box<str>> {
        self.get(name).map(Box::from)
    }

    /// Section 4.2: anything but `YES` is not an error, and means no.
    pub(super) fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }

    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, PlaylistProblem> {
        let parse = |value| parse(value).ok_or(PlaylistProblem::InvalidValue(name));
        self.get(name).map(parse).transpose()
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, PlaylistProblem> {
        self.parsed(name, |value| value.parse().ok())
    }

    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Duration>, PlaylistProblem> {
        self.parsed(name, parse_seconds)
    }

    /// Section 4.2: what begins with `REQ-` must be understood, or the element can't be used.
    pub(super) fn unknown_requirement(&self, known: &[&str]) -> Option<&str> {
        let mut names = self.list.iter().map(|attribute| attribute.name);
        names.find(|name| name.starts_with("REQ-") && !known.contains(name))
    }

    /// All names and values, with whether the value was quoted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.list.iter().map(|attribute| (attribute.name, &*attribute.value, attribute.is_quoted))
    }
}

/// Splits the value from what follows its comma.
fn take_value(text: &str) -> Result<(&str, bool, &str), PlaylistProblem> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let (value, rest) = text.split_once(',').unwrap_or((text, ""));
        let value = value.trim();
        let is_valid = !value.contains('"');
        return if is_valid { Ok((value, false, rest)) } else { Err(PlaylistProblem::AttributeSyntax) };
    };
    let (value, rest) = quoted.split_once('"').ok_or(PlaylistProblem::AttributeSyntax)?;
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(rest) => Ok((value, true, rest)),
        None if rest.is_empty() => Ok((value, true, rest)),
        None => Err(PlaylistProblem::AttributeSyntax),
    }
}

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

/// A number with digits that are dropped: some servers write `BANDWIDTH=128000.0`.
pub(super) fn parse_rounded(text: &str) -> Option<u64> {
    parse_decimal(text).map(|value| value.as_secs())
}

/// A hexadecimal sequence of up to 128 bits.
pub(super) fn parse_hex(text: &str) -> Option<u128> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(text: &str) -> Result<Vec<(String, String)>, PlaylistProblem> {
        let mut variables = Variables::default();
        let attributes = Attributes::parse(text, &mut variables)?;
        Ok(attributes.iter().map(|(name, value, _)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn s4_2_values_are_split_at_commas_outside_of_quotes() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = vec![pair("A", "1,2=3"), pair("B", "x"), pair("C", "")];
        assert_eq!(attributes(r#"A="1,2=3", B=x ,C="""#), Ok(wanted));
    }

    #[test]
    fn s4_2_broken_lists_are_refused() {
        for text in ["A", "A=\"", "A=\"x\"y", "=1", "A=1,,B=2", "A=x\"y", "\"A\"=1"] {
            assert_eq!(attributes(text), Err(PlaylistProblem::AttributeSyntax), "{text}");
        }
    }

    #[test]
    fn s4_2_an_attribute_must_not_occur_twice() {
        assert_eq!(attributes("A=1,A=2"), Err(PlaylistProblem::DuplicateAttribute("A".into())));
    }

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
        for text in ["ff", "0x", "0x+1", "0x100000000000000000000000000000000"] {
            assert_eq!(parse_hex(text), None, "{text}");
        }
    }
}
