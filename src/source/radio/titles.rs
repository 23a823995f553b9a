//! The titles of a radio, by position in the audio.

use std::collections::VecDeque;

use super::icy::IcyMetadata;
use crate::safe_url::SafeUrl;

/// Maximum number of titles; the oldest are dropped first. No real station sends so many in one window, so only a faulty or
/// hostile one meets this limit on memory.
const MAX_TITLES: usize = 1024;

/// The title that a station announces, and the position from which it applies.
///
/// ```no_run
/// # let radio = windway::Downloader::global()?.open_radio("http://example.com:8000/", Default::default())?;
/// if let Some(playing) = radio.handle().now_playing() {
///     println!("{}", playing.title.as_deref().unwrap_or("no title"));
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Title {
    /// Position of the first byte of audio that it applies to, counted from the radio's start.
    pub position: u64,
    /// The title, usually "Artist - Title"; `None` if the station cleared its title. A station does not say how it encodes it: it
    /// is read as UTF-8, or else as Windows-1252, and ends at the first byte that is 0. So a title in Shift-JIS or UTF-16 is not
    /// readable.
    pub title: Option<String>,
    /// The title as the station sent it, up to the first byte that is 0: for a program that knows the encoding of its stations, such
    /// as Windows-1251. Empty without a title.
    pub title_bytes: Vec<u8>,
    /// URL of the station or the cover. It may be text that is not a URL.
    pub url: Option<SafeUrl>,
}

/// The titles of the window.
#[derive(Debug, Default)]
pub(crate) struct Titles {
    /// Positions, and the titles that apply from there on; `None` from the first byte of a connection on, until it announces one.
    /// Ascending positions. Each title differs from the one before it. At most `MAX_TITLES`.
    titles: VecDeque<(u64, Option<Title>)>,
}

impl Titles {
    /// Records that a connection begins at `position`. Its title is unknown until it announces one: audio is missing before it, and
    /// after a pause it may be another programme.
    pub(crate) fn begin_connection(&mut self, position: u64) {
        if self.current().is_some() {
            self.push(position, None);
        }
    }

    /// Records a metadata block that applies from `position` on. Positions never decrease. Returns the title if it is new
    /// on its connection.
    pub(crate) fn add(&mut self, position: u64, metadata: IcyMetadata) -> Option<Title> {
        let current = self.current();
        let title = match (metadata.title, &metadata.url) {
            // The block has only fields that players do not use.
            (None, None) => return None,
            // A block with only a URL changes the cover, not the title.
            (None, Some(_)) => current.and_then(|current| current.title.clone()),
            (Some(title), _) => not_empty(title),
        };
        let title_bytes = match metadata.title_bytes {
            Some(bytes) => bytes,
            None => current.map(|current| current.title_bytes.clone()).unwrap_or_default(),
        };
        let url = metadata.url.filter(|url| !url.expose().is_empty());
        let new = Title { position, title, title_bytes, url };
        let is_known = match current {
            Some(current) => (&current.title, &current.url) == (&new.title, &new.url),
            // A connection that has announced nothing yet has nothing to clear.
            None => new.title.is_none() && new.url.is_none(),
        };
        if is_known {
            return None;
        }
        self.push(position, Some(new.clone()));
        Some(new)
    }

    /// The title of the last byte.
    fn current(&self) -> Option<&Title> {
        self.titles.back()?.1.as_ref()
    }

    fn push(&mut self, position: u64, title: Option<Title>) {
        // No audio between the two: the first one applied to nothing.
        if self.titles.back().is_some_and(|(last, _)| *last == position) {
            self.titles.pop_back();
        }
        if self.titles.len() == MAX_TITLES {
            self.titles.pop_front();
        }
        self.titles.push_back((position, title));
    }

    /// The title of the byte at `position`.
    pub(crate) fn at(&self, position: u64) -> Option<&Title> {
        self.titles.iter().rev().find(|(from, _)| *from <= position)?.1.as_ref()
    }

    /// Drops the titles that apply to no byte from `start` on.
    pub(crate) fn forget_before(&mut self, start: u64) {
        // A title applies until the next one begins, so the first one is needed until the second one is at the start.
        while self.titles.get(1).is_some_and(|(second, _)| *second <= start) {
            self.titles.pop_front();
        }
    }
}

fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(titles: &mut Titles, position: u64, block: &str) -> Option<Title> {
        titles.add(position, IcyMetadata::parse(block.as_bytes()))
    }

    fn title_at(titles: &Titles, position: u64) -> Option<&str> {
        titles.at(position).and_then(|title| title.title.as_deref())
    }

    #[test]
    fn a_title_applies_from_its_position_up_to_the_next() {
        let mut titles = Titles::default();
        add(&mut titles, 100, "StreamTitle='a';").unwrap();
        add(&mut titles, 200, "StreamTitle='b';StreamUrl='u';").unwrap();
        let found = [99, 100, 199, 200, u64::MAX].map(|position| title_at(&titles, position));
        assert_eq!(found, [None, Some("a"), Some("a"), Some("b"), Some("b")]);
        assert_eq!(titles.at(200).unwrap().url, Some("u".into()));
    }

    #[test]
    fn a_repeated_title_is_not_new() {
        let mut titles = Titles::default();
        assert_eq!(add(&mut titles, 0, "StreamTitle='';"), None);
        assert!(add(&mut titles, 100, "StreamTitle='a';").is_some());
        assert_eq!(add(&mut titles, 200, "StreamTitle='a';StreamUrl='';"), None);
        assert_eq!(add(&mut titles, 300, "adw_ad='true';"), None);
        assert_eq!(titles.titles.len(), 1);
    }

    #[test]
    fn a_title_is_cleared_and_a_url_alone_keeps_it() {
        let mut titles = Titles::default();
        add(&mut titles, 1, "StreamTitle='a';").unwrap();
        let with_url = add(&mut titles, 2, "StreamUrl='u';").unwrap();
        assert_eq!((with_url.title.as_deref(), with_url.url), (Some("a"), Some("u".into())));
        assert_eq!(add(&mut titles, 3, "StreamTitle='';").unwrap().title, None);
    }

    #[test]
    fn a_connection_has_no_title_until_it_announces_one() {
        let mut titles = Titles::default();
        titles.begin_connection(0);
        add(&mut titles, 100, "StreamTitle='a';").unwrap();
        titles.begin_connection(200);
        assert_eq!([199, 200, u64::MAX].map(|position| title_at(&titles, position)), [Some("a"), None, None]);
        assert_eq!(add(&mut titles, 250, "StreamTitle='';"), None, "nothing to clear");
        // A connection that has brought nothing.
        titles.begin_connection(200);
        assert_eq!(add(&mut titles, 300, "StreamTitle='a';").map(|title| title.position), Some(300));
        assert_eq!([199, 299, 300].map(|position| title_at(&titles, position)), [Some("a"), None, Some("a")]);
        titles.begin_connection(400);
        let url = add(&mut titles, 500, "StreamUrl='u';").unwrap();
        assert_eq!((url.title, url.url), (None, Some("u".into())), "the title of another connection");
        titles.forget_before(450);
        assert_eq!([450, 500].map(|position| titles.at(position).is_some()), [false, true]);
    }

    #[test]
    fn only_titles_of_the_window_are_kept() {
        let mut titles = Titles::default();
        for position in 0..100 {
            add(&mut titles, position * 10, &format!("StreamTitle='{position}';")).unwrap();
        }
        titles.forget_before(955);
        assert_eq!(titles.titles.len(), 5);
        assert_eq!(title_at(&titles, 955), Some("95"));
    }

    #[test]
    fn the_number_of_titles_is_limited() {
        let mut titles = Titles::default();
        for position in 0..5000 {
            add(&mut titles, position, &format!("StreamTitle='{position}';")).unwrap();
        }
        assert_eq!(titles.titles.len(), MAX_TITLES);
        assert_eq!(title_at(&titles, 4998), Some("4998"));
    }
}
