//! Lists in XML: XSPF, ASX and feeds. Names are compared without their prefixes and in any case, and mistakes that do not
//! hide the structure are passed over: many ASX files are not well formed.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Entry, List, date, duration, not_empty};
use crate::error::{Error, ErrorKind};

/// Maximum depth of nested elements. The formats have their tracks at three or four levels; the limit bounds memory.
const DEEPEST: usize = 64;

/// Maximum number of attributes that are read of an element. The formats have fewer than ten.
const MOST_ATTRIBUTES: usize = 64;

/// Where a format has its tracks.
#[derive(Debug)]
pub(super) struct Format {
    /// Elements that are a track each.
    tracks: &'static [&'static str],
    location: Location,
    /// What an element inside a track, whose text is a duration, is called, and how its number is read.
    duration: (&'static str, fn(&str) -> Option<Duration>),
    /// Children of a track whose text identifies it.
    ids: &'static [&'static str],
    /// Children of a track whose text is its date. The first one counts that a track has.
    dates: &'static [&'static str],
    /// Elements without content, which many lists do not close.
    empty: &'static [&'static str],
}

#[derive(Debug)]
enum Location {
    /// The text of this element.
    Text(&'static str),
    /// An attribute of an element of the track.
    Attribute(fn(&Element) -> Option<&str>),
}

/// XSPF version 1 (xspf.org/xspf-v1.html): `trackList/track`, durations in milliseconds.
pub(super) static XSPF: Format = Format {
    tracks: &["track"],
    location: Location::Text("location"),
    duration: ("duration", |text| duration::of_seconds(text.trim().parse::<f64>().ok()? / 1000.0)),
    ids: &["identifier"],
    dates: &[],
    empty: &[],
};

/// ASX: `entry/ref`, and `entryref` for another list.
pub(super) static ASX: Format = Format {
    tracks: &["entry", "entryref"],
    location: Location::Attribute(|element| match &*element.name {
        "ref" | "entryref" => element.attribute("href"),
        _ => None,
    }),
    duration: ("duration", duration::parse),
    ids: &[],
    dates: &[],
    empty: &["ref", "entryref"],
};

/// RSS 2.0 (`item/enclosure`) and Atom (RFC 4287, section 4.2.7: `entry/link` with the relation `enclosure`).
pub(super) static FEED: Format = Format {
    tracks: &["item", "entry"],
    location: Location::Attribute(|element| match &*element.name {
        // Blogs enclose pictures.
        "enclosure" if element.attribute("type").is_some_and(is_picture) => None,
        "enclosure" => element.attribute("url"),
        "link" if element.attribute("rel") == Some("enclosure") => element.attribute("href"),
        _ => None,
    }),
    duration: ("duration", duration::parse),
    // RSS 2.0, and RFC 4287, section 4.2.6.
    ids: &["guid", "id"],
    // RFC 4287, sections 4.2.9 and 4.2.15; RSS 2.0; Dublin Core, which RSS 1.0 uses.
    dates: &["published", "pubdate", "date", "updated"],
    // Not `link`, which has content in RSS.
    empty: &[],
};

/// An element with its attributes: names in lower case and without prefixes.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

pub(super) fn parse(text: &str, format: &Format) -> Result<List, Error> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    // `<ref .. />` then ends as `<ref ..></ref>` does, and `open` needs no case for it.
    config.expand_empty_elements = true;
    // Hand-written ASX closes `<Title>` with `</title>`, leaves elements open, and has bare ampersands in URLs. `Builder::end` finds
    // what an end belongs to.
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let mut builder = Builder {
        format,
        list: List::default(),
        open: Vec::new(),
        track: None,
        dates: Vec::new(),
        value: String::new(),
    };
    let mut lines = Lines { text, counted: 0, line: 1 };
    loop {
        let event = reader.read_event();
        let at = reader.buffer_position().max(reader.error_position());
        let line = lines.line_of(usize::try_from(at).unwrap_or(usize::MAX));
        match event {
            Ok(Event::Start(start)) => builder.start(&element(&start), line)?,
            Ok(Event::End(end)) => builder.end(&lower(end.local_name().as_ref()))?,
            Ok(Event::Text(text)) => builder.text(&text.decode().unwrap_or_default()),
            Ok(Event::CData(text)) => builder.text(&text.decode().unwrap_or_default()),
            Ok(Event::GeneralRef(reference)) => builder.text(&resolve(&reference)),
            Ok(Event::Eof) => return builder.finish(),
            Ok(_) => {}
            Err(error) => return Err(invalid(line, "this is not XML").with_cause(error)),
        }
    }
}

fn is_picture(media_type: &str) -> bool {
    media_type.trim_start().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("image/"))
}

/// True if a track is rather to be found at `location` than at `known`. Further ones are other places for the same track, and
/// servers of Windows Media name that of their own protocol first.
fn is_better(location: &str, known: &str) -> bool {
    known.is_empty() || (!is_requestable(known) && is_requestable(location))
}

/// True for what is relative, or has a scheme that may be requested.
fn is_requestable(location: &str) -> bool {
    let is_http =
        |scheme: &str| ["http", "https", "icy"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    !location.is_empty() && location.split_once("://").is_none_or(|(scheme, _)| is_http(scheme))
}

fn invalid(line: usize, why: &str) -> Error {
    Error::new(ErrorKind::InvalidPlaylist, format!("line {line}: {why}"))
}

fn element(start: &BytesStart<'_>) -> Element {
    let name = lower(start.local_name().as_ref());
    // Values without quotes, and twice the same name, are passed over.
    let mut attributes = start.html_attributes();
    let attributes = attributes.with_checks(false).flatten().take(MOST_ATTRIBUTES).map(|attribute| {
        let raw = String::from_utf8_lossy(&attribute.value);
        // An ampersand that is not escaped stays: queries of URLs have them.
        let value = quick_xml::escape::unescape(&raw).map(Cow::into_owned);
        (lower(attribute.key.local_name().as_ref()), value.unwrap_or_else(|_| raw.replace("&amp;", "&")))
    });
    Element { name, attributes: attributes.collect() }
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// The text of a reference such as `&amp;`. One that is not known stays as it is.
fn resolve(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(char)) = reference.resolve_char_ref() {
        return char.into();
    }
    let name = reference.decode().unwrap_or_default();
    // XML without a DTD knows five names (XML 1.0, section 4.6). Feeds use those of HTML too.
    let known = quick_xml::escape::resolve_predefined_entity(&name);
    known.map_or_else(|| format!("&{name};"), str::to_owned)
}

/// Counts lines up to positions that only grow.
struct Lines<'a> {
    text: &'a str,
    counted: usize,
    line: usize,
}

impl Lines<'_> {
    fn line_of(&mut self, position: usize) -> usize {
        let end = position.min(self.text.len());
        if let Some(new) = self.text.as_bytes().get(self.counted..end) {
            self.line += new.iter().filter(|byte| **byte == b'\n').count();
            self.counted = end;
        }
        self.line
    }
}

/// Collects tracks from elements.
struct Builder<'a> {
    format: &'a Format,
    list: List,
    /// Names of the elements that are open.
    open: Vec<String>,
    /// The track that is open, and how many elements are open around it.
    track: Option<(Entry, usize)>,
    /// Its dates, each with the index of its element in [`Format::dates`].
    dates: Vec<(usize, SystemTime)>,
    /// Text of the innermost element, up to the next tag.
    value: String,
}

impl Builder<'_> {
    fn start(&mut self, element: &Element, line: usize) -> Result<(), Error> {
        if self.open.len() >= DEEPEST {
            return Err(invalid(line, "elements are nested too deep: 64 levels"));
        }
        self.value.clear();
        if self.track.is_none() && self.format.tracks.contains(&element.name.as_str()) {
            self.track = Some((Entry { line, ..Entry::default() }, self.open.len()));
        }
        if let (Location::Attribute(location), Some((track, _))) = (&self.format.location, &mut self.track) {
            if let Some(location) = location(element).filter(|location| is_better(location, &track.location))
            {
                (track.line, track.location) = (line, location.trim().to_owned());
                // Feeds write a length of 0 if they do not know it.
                let len = element.attribute("length").and_then(|len| len.trim().parse().ok());
                track.len = len.filter(|len| *len > 0);
                track.media_type = element.attribute("type").and_then(not_empty);
            }
        }
        if let (Location::Text(name), Some((track, _))) = (&self.format.location, &mut self.track) {
            if element.name == *name && !is_requestable(&track.location) {
                track.line = line;
            }
        }
        // ASX has the duration in an attribute.
        if let Some((track, _)) = self.track.as_mut().filter(|_| element.name == self.format.duration.0) {
            let value = element.attribute("value");
            track.duration = track.duration.or_else(|| value.and_then(self.format.duration.1));
        }
        self.open.push(element.name.clone());
        if self.format.empty.contains(&element.name.as_str()) { self.close() } else { Ok(()) }
    }

    fn text(&mut self, text: &str) {
        self.value.push_str(text);
    }

    /// Closes the element with this name, and those that were left open inside of it. An end that nothing has begun is passed over.
    fn end(&mut self, name: &str) -> Result<(), Error> {
        let begun = self.open.iter().rposition(|open| open == name).unwrap_or(self.open.len());
        while self.open.len() > begun {
            self.close()?;
        }
        Ok(())
    }

    /// Closes the innermost element.
    fn close(&mut self) -> Result<(), Error> {
        let Some(name) = self.open.pop() else { return Ok(()) };
        let value = std::mem::take(&mut self.value);
        match &mut self.track {
            Some((_, depth)) if self.open.len() <= *depth => {
                self.add_track()?;
            }
            Some((track, depth)) => {
                // Not the `id` of an element inside, such as Atom's `source`.
                let is_child = self.open.len() == *depth + 1;
                if matches!(self.format.location, Location::Text(location) if location == name) {
                    if is_better(value.trim(), &track.location) {
                        track.location = value.trim().to_owned();
                    }
                } else if name == "title" && track.title.is_none() {
                    track.title = not_empty(&value);
                } else if is_child && track.id.is_none() && self.format.ids.contains(&name.as_str()) {
                    track.id = not_empty(&value);
                } else if name == self.format.duration.0 && track.duration.is_none() {
                    track.duration = (self.format.duration.1)(&value);
                } else if is_child {
                    let rank = self.format.dates.iter().position(|date| *date == name);
                    self.dates.extend(rank.zip(date::parse(&value)));
                }
            }
            // The title of the list, and not that of an image in it.
            None if name == "title" && self.open.len() <= 2 && self.list.title.is_none() => {
                self.list.title = not_empty(&value);
            }
            None => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<List, Error> {
        // The text may end inside of its last track.
        self.add_track()?;
        Ok(self.list)
    }

    /// Adds the track that was open.
    fn add_track(&mut self) -> Result<(), Error> {
        let published = self.dates.drain(..).min_by_key(|(rank, _)| *rank);
        match self.track.take() {
            Some((track, _)) => self.list.add(Entry { published: published.map(|(_, date)| date), ..track }),
            None => Ok(()),
        }
    }
}
