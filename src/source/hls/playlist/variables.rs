//! Variables of a playlist (sections 4.3 and 4.4.2.3).

use std::borrow::Cow;
use std::collections::BTreeMap;

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
    /// Section 4.4.2.3: a second definition is a parse error.
    pub(super) fn insert(&mut self, name: &str, value: String) -> Result<(), PlaylistProblem> {
        match self.values.insert(name.to_owned(), value) {
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
