//! How far ahead of its readers a file is fetched and kept: the least of what is configured, what the budget grants, and
//! what the readers use up in a minute. Reads no clock.

use std::time::{Duration, Instant};

use super::plan::OPENING;
use super::reader_view::ReaderView;
use crate::config::ReadAhead;
use crate::source::consumption::Consumption;
use crate::source::prefetch;

/// What is fetched ahead lasts the readers this long: a connection that breaks and is dialled again, with its time limits
/// and pauses, takes less.
const LASTS: Duration = Duration::from_secs(60);

/// Lower bound of what is fetched ahead of a sequential reader, however slow it is: each piece costs a request.
const MIN_TARGET: u64 = 256 * 1024;

/// Lower bound of what is kept ahead of a reader, however little the budget grants: the size of a first piece.
const MIN_GRANTED: u64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Limits {
    configured: ReadAhead,
    /// Bytes kept behind a reader; `None` where storage keeps all.
    behind: Option<u64>,
    /// An entry of the cache keeps what is fetched: there is no window, and memory is not requested.
    #[cfg(feature = "cache")]
    is_kept: bool,
    /// What the budget grants for the window of each reader; `u64::MAX` if it grants all that is wanted.
    granted: u64,
    consumption: Consumption,
}

impl Limits {
    pub(crate) fn new(configured: ReadAhead, behind: Option<u64>) -> Self {
        Self {
            configured,
            behind,
            #[cfg(feature = "cache")]
            is_kept: false,
            granted: u64::MAX,
            consumption: Consumption::default(),
        }
    }

    /// Records whether an entry of the cache keeps what is fetched.
    #[cfg(feature = "cache")]
    pub(crate) fn set_kept(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Bytes kept behind a reader, before the budget; `None` where all is kept.
    fn window(&self) -> Option<u64> {
        #[cfg(feature = "cache")]
        if self.is_kept {
            return None;
        }
        self.behind
    }

    /// Changes how far ahead may be fetched.
    pub(crate) fn configure(&mut self, read_ahead: ReadAhead) {
        self.configured = read_ahead;
    }

    /// Records that a reader took bytes.
    pub(crate) fn handle_read(&mut self, bytes: u64, now: Instant) {
        self.consumption.handle_read(bytes, now);
    }

    /// Records how much the budget grants for all readers; `None` is all that was wanted.
    pub(crate) fn set_granted(&mut self, reduced: Option<u64>, readers: usize) {
        // The opening is kept in any case (`KEPT_HEAD`), so the readers share what is left of the grant.
        let each = |bytes: u64| bytes.saturating_sub(OPENING) / readers.max(1) as u64;
        self.granted = reduced.map_or(u64::MAX, each);
    }

    /// What the readers would like to hold, if the budget grants it.
    pub(crate) fn wanted<'a>(&self, readers: impl Iterator<Item = &'a ReaderView>, len: Option<u64>) -> u64 {
        if self.window().is_none() {
            // What storage or the cache keeps lies on disk. Only the opening may be in memory meanwhile.
            return OPENING;
        }
        let (behind, ahead) = (self.behind.unwrap_or(0), self.within_a_minute());
        let window = |reader: &ReaderView| {
            let left = len.map_or(u64::MAX, |len| len.saturating_sub(reader.position));
            let target = prefetch::target(ahead, reader.position, reader.run);
            behind.min(reader.position).saturating_add(target.min(left))
        };
        readers.map(window).fold(OPENING, u64::saturating_add)
    }

    /// What is configured.
    pub(crate) fn configured(&self) -> ReadAhead {
        if self.window().is_some() { prefetch::windowed(self.configured) } else { self.configured }
    }

    /// How far ahead to fetch.
    pub(crate) fn target(&self) -> ReadAhead {
        at_most(self.within_a_minute(), self.granted_ahead())
    }

    /// How far ahead to keep what was fetched.
    pub(crate) fn kept(&self) -> ReadAhead {
        // Not less for slow readers: the bytes are there already.
        at_most(self.configured(), self.granted_ahead())
    }

    /// Bytes kept behind a reader; `None` where storage keeps all.
    pub(crate) fn behind(&self) -> Option<u64> {
        // A quarter of a small grant at most. The rest is for what is ahead: without it a read waits for the network, while a
        // seek back behind the window costs one request. `granted_ahead` subtracts this from the grant.
        self.window().map(|behind| behind.min(self.granted / 4))
    }

    fn within_a_minute(&self) -> ReadAhead {
        let lasting = self.consumption.bytes_for(LASTS).unwrap_or(u64::MAX);
        at_most(self.configured(), lasting.max(MIN_TARGET))
    }

    fn granted_ahead(&self) -> u64 {
        match self.behind() {
            Some(behind) => (self.granted - behind).max(MIN_GRANTED),
            None => u64::MAX,
        }
    }
}

fn at_most(read_ahead: ReadAhead, limit: u64) -> ReadAhead {
    match read_ahead {
        ReadAhead::Bytes(bytes) => ReadAhead::Bytes(bytes.min(limit)),
        // A download goes to the end, and storage that keeps all has no budget.
        ReadAhead::Whole => ReadAhead::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn reader(position: u64, run: u64) -> ReaderView {
        ReaderView { position, run, ..ReaderView::default() }
    }

    #[test]
    fn what_is_configured_holds_without_a_budget_and_before_the_first_read() {
        let limits = Limits::new(ReadAhead::Bytes(16 * MIB), Some(MIB));
        assert_eq!(
            (limits.target(), limits.kept()),
            (ReadAhead::Bytes(16 * MIB), ReadAhead::Bytes(16 * MIB))
        );
        assert_eq!(limits.behind(), Some(MIB));
        assert_eq!(Limits::new(ReadAhead::Whole, None).target(), ReadAhead::Whole);
    }

    #[test]
    fn a_grant_is_split_among_readers_and_between_both_sides_of_each() {
        let mut limits = Limits::new(ReadAhead::Bytes(16 * MIB), Some(MIB));
        limits.set_granted(Some(4 * MIB + OPENING), 2);
        assert_eq!((limits.behind(), limits.target()), (Some(MIB / 2), ReadAhead::Bytes(2 * MIB - MIB / 2)));
        limits.set_granted(Some(0), 1);
        assert_eq!((limits.behind(), limits.kept()), (Some(0), ReadAhead::Bytes(MIN_GRANTED)));
        limits.set_granted(None, 1);
        assert_eq!((limits.behind(), limits.kept()), (Some(MIB), ReadAhead::Bytes(16 * MIB)));
    }

    #[test]
    fn a_slow_reader_gets_a_minute_ahead_and_keeps_what_is_there() {
        let mut limits = Limits::new(ReadAhead::Bytes(16 * MIB), Some(MIB));
        let mut now = Instant::now();
        for _ in 0..60 {
            now += Duration::from_secs(1);
            limits.handle_read(8000, now);
        }
        let ReadAhead::Bytes(target) = limits.target() else { panic!("bytes") };
        assert!((450_000..550_000).contains(&target), "{target}");
        assert_eq!(limits.kept(), ReadAhead::Bytes(16 * MIB));
    }

    #[test]
    fn no_more_is_wanted_than_the_file_has() {
        let limits = Limits::new(ReadAhead::Bytes(16 * MIB), Some(MIB));
        let wanted = |position, run, len| limits.wanted([reader(position, run)].iter(), len);
        assert_eq!(wanted(0, 0, None), OPENING + 64 * 1024);
        assert_eq!(wanted(8 * MIB, 8 * MIB, None), OPENING + 17 * MIB);
        assert_eq!(wanted(8 * MIB, 8 * MIB, Some(9 * MIB)), OPENING + 2 * MIB);
    }
}
