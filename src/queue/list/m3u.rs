//! M3U: a location a line, with `#EXTINF` before it. There is no specification but what Winamp did.

use super::{Entry, List, duration, lines, not_empty};
use crate::error::Error;

pub(super) fn parse(text: &str) -> Result<List, Error> {
    let mut list = List::default();
    let mut next = Entry::default();
    for (number, line) in lines(text).enumerate() {
        let line = line.trim();
        match line.strip_prefix('#') {
            Some(comment) => read_comment(comment, &mut list, &mut next),
            None => {
                let (line, location) = (number + 1, line.to_owned());
                if !location.is_empty() {
                    list.add(Entry { line, location, ..std::mem::take(&mut next) })?;
                }
            }
        }
    }
    Ok(list)
}

fn read_comment(comment: &str, list: &mut List, next: &mut Entry) {
    if let Some(info) = strip_name(comment, "EXTINF:") {
        let (attributes, title) = split_info(info);
        // Lists of stations have attributes behind the duration, as in `-1 tvg-id="7"`.
        let seconds = attributes.split_whitespace().next().unwrap_or_default();
        (next.duration, next.title) = (duration::parse(seconds), not_empty(title));
    } else if let Some(title) = strip_name(comment, "PLAYLIST:") {
        list.title = list.title.take().or_else(|| not_empty(title));
    }
}

fn strip_name<'a>(comment: &'a str, name: &str) -> Option<&'a str> {
    // The end of the name may lie inside of a character of the comment.
    let found = comment.get(..name.len())?;
    found.eq_ignore_ascii_case(name).then(|| &comment[name.len()..])
}

/// The duration with attributes, and the title: what follows the first comma that is not in quotes.
fn split_info(info: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let comma = info.char_indices().find(|(_, char)| {
        is_quoted ^= *char == '"';
        *char == ',' && !is_quoted
    });
    // A quote without its end is a character of the title.
    let comma = comma.map(|(at, _)| at).or_else(|| info.find(','));
    comma.map_or((info, ""), |at| (&info[..at], &info[at + 1..]))
}
