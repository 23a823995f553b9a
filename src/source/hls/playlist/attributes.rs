//! Attribute lists (section 4.2).

use std::borrow::Cow;
use std::time::Duration;

use super::error::PlaylistProblem;
use super::values::parse_seconds;
use super::variables::Variables;

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
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('=') {
            let (value, is_quoted, after) = take_value(after)?;
            rest = after;
            // Other players pass over what is no attribute: nothing between two commas, or a list of codecs without quotes.
            let name = before.rsplit(',').next().unwrap_or(before).trim();
            if name.is_empty() || before.contains('"') {
                return Err(PlaylistProblem::AttributeSyntax);
            }
            // Section 4.3: variables are replaced in quoted strings and in hexadecimal sequences.
            let is_replaced = is_quoted || value.starts_with("0x") || value.starts_with("0X");
            let value = if is_replaced { variables.replace(value)? } else { value.into() };
            // Section 4.2: a client should refuse a list in which a name occurs twice. The same value twice means one thing.
            match list.iter().find(|known| known.name == name) {
                Some(known) if known.value == value => continue,
                Some(_) => return Err(PlaylistProblem::DuplicateAttribute(name.to_owned())),
                None if list.len() == MOST_ATTRIBUTES => {
                    return Err(PlaylistProblem::TooManyAttributes(MOST_ATTRIBUTES));
                }
                None => list.push(Attribute { name, value, is_quoted }),
            }
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

    /// The value of an attribute that is as good as missing if it can't be parsed.
    pub(super) fn optional<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.get(name).and_then(parse)
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
        for text in ["A=\"", "A=\"x\"y", "=1", "A=x\"y", "\"A\"=1"] {
            assert_eq!(attributes(text), Err(PlaylistProblem::AttributeSyntax), "{text}");
        }
    }

    #[test]
    fn s4_2_what_is_no_attribute_is_passed_over() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = vec![pair("A", "1"), pair("B", "2")];
        for text in ["A=1,,B=2", ",A=1,B=2", "A=1,B=2,", "A=1,x,B=2", "A=1,B=2,x", "A=1, ,B=2,,"] {
            assert_eq!(attributes(text), Ok(wanted.clone()), "{text}");
        }
        assert_eq!(attributes("x"), Ok(Vec::new()));
        // A list of codecs without quotes.
        assert_eq!(attributes("A=avc1.4,mp4a.40.2,B=2"), Ok(vec![pair("A", "avc1.4"), pair("B", "2")]));
    }

    #[test]
    fn s4_2_an_attribute_must_not_have_two_values() {
        assert_eq!(attributes("A=1,A=2"), Err(PlaylistProblem::DuplicateAttribute("A".into())));
        assert_eq!(attributes("A=1,A=1"), Ok(vec![("A".to_owned(), "1".to_owned())]));
    }
}
