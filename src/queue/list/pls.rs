//! PLS: `File1=`, `Title1=`, `Length1=`; and the `[Reference]` of Windows Media servers: `Ref1=`. No specification.

use std::collections::BTreeMap;

use super::{Entry, List, MOST_TRACKS, duration, lines, not_empty};
use crate::error::{Error, ErrorKind};

pub(super) fn parse(text: &str) -> Result<List, Error> {
    // By their numbers: the lines may come in any order.
    let mut entries: BTreeMap<u32, Entry> = BTreeMap::new();
    for (at, line) in lines(text).enumerate() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let Some((field, number)) = split_name(name) else { continue };
        if entries.len() >= MOST_TRACKS && !entries.contains_key(&number) {
            let why = format!("line {}: the list has more than {MOST_TRACKS} tracks", at + 1);
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        let entry = entries.entry(number).or_default();
        match field {
            Field::Location => (entry.line, entry.location) = (at + 1, value.trim().to_owned()),
            Field::Title => entry.title = not_empty(value),
            Field::Length => entry.duration = duration::parse(value),
        }
    }
    let mut list = List::default();
    entries.into_values().try_for_each(|entry| list.add(entry))?;
    Ok(list)
}

enum Field {
    Location,
    Title,
    Length,
}

/// The field and the number in a name such as `File12`.
fn split_name(name: &str) -> Option<(Field, u32)> {
    let name = name.trim().to_ascii_lowercase();
    let digits = name.find(|char: char| char.is_ascii_digit())?;
    let field = match &name[..digits] {
        // `Ref1=` is the name in a `[Reference]`.
        "file" | "ref" => Field::Location,
        "title" => Field::Title,
        "length" => Field::Length,
        _ => return None,
    };
    Some((field, name[digits..].parse().ok()?))
}
