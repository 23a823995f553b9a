//! Variables of a playlist (sections 4.3 and 4.4.2.3).

use std::borrow::Cow;
use std::collections::BTreeMap;

use url::Url;

use super::attributes::Attributes;
use super::error::PlaylistProblem;

/// Bytes that all variables of a playlist expand to, at most. A few lines could otherwise expand to many gigabytes,
/// because the value of a variable may refer to others.
const MOST_EXPANDED: usize = 4 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    values: BTreeMap<String, String>,
    expanded: usize,
}

impl Variables {
    /// Handles an `EXT-X-DEFINE`. `imported` are the variables of the multivariant playlist, `url` is where the
    /// playlist came from, after redirects.
    pub(super) fn define(
        &mut self,
        text: &str,
        imported: &BTreeMap<String, String>,
        url: &Url,
    ) -> Result<(), PlaylistProblem> {
        let attributes = Attributes::parse(text, self)?;
        let undefined = |name: &str| PlaylistProblem::UndefinedVariable(name.to_owned());
        let (name, value) = if let Some(name) = attributes.get("NAME") {
            (name, attributes.required("VALUE")?.to_owned())
        } else if let Some(name) = attributes.get("IMPORT") {
            (name, imported.get(name).ok_or_else(|| undefined(name))?.clone())
        } else {
            let name = attributes.required("QUERYPARAM")?;
            let value = query_parameter(url, name).ok_or_else(|| undefined(name))?;
            (name, value)
        };
        let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_valid) {
            return Err(PlaylistProblem::InvalidValue("NAME"));
        }
        match self.values.insert(name.to_owned(), value) {
            // Section 4.4.2.3: a second definition is a parse error.
            Some(_) => Err(PlaylistProblem::DuplicateVariable(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Replaces each `{$name}`.
    pub(super) fn replace<'a>(&mut self, text: &'a str) -> Result<Cow<'a, str>, PlaylistProblem> {
        if !text.contains("{$") {
            return Ok(text.into());
        }
        let mut replaced = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{$") {
            let (name, after) = after.split_once('}').ok_or(PlaylistProblem::AttributeSyntax)?;
            let value = self.values.get(name);
            let value = value.ok_or_else(|| PlaylistProblem::UndefinedVariable(name.to_owned()))?;
            self.expanded += before.len() + value.len();
            if self.expanded > MOST_EXPANDED {
                return Err(PlaylistProblem::ExpandsTooFar(MOST_EXPANDED));
            }
            replaced.push_str(before);
            replaced.push_str(value);
            rest = after;
        }
        replaced.push_str(rest);
        Ok(replaced.into())
    }

    pub(super) fn into_values(self) -> BTreeMap<String, String> {
        self.values
    }
}

/// The value of a query parameter, with percent-encoding removed.
fn query_parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}
