//! Definitions of variables (`EXT-X-DEFINE`, section 4.4.2.3).

use std::collections::BTreeMap;

use url::Url;

use super::attributes::Attributes;
use super::error::PlaylistProblem;
use super::variables::Variables;

/// Handles an `EXT-X-DEFINE`. `imported` are the variables of the multivariant playlist, `url` is where the
/// playlist came from, after redirects.
pub(super) fn define(
    variables: &mut Variables,
    text: &str,
    imported: &BTreeMap<String, String>,
    url: &Url,
) -> Result<(), PlaylistProblem> {
    let attributes = Attributes::parse(text, variables)?;
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
    variables.insert(name, value)
}

/// The value of a query parameter, with percent-encoding removed.
fn query_parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    // Section 4.4.2.3: a parameter without a value is a parse error, as a missing one is.
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}
