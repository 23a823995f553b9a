//! What the answers of each origin have shown about ranges. Decides whether a file is opened with a suffix request.
//!
//! This only saves requests: what is forgotten here is found out again by the next opening.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

/// Origins that are remembered, some kilobytes in all: more than a player meets in a session. The one that was learned first is
/// forgotten first.
const MAX_ORIGINS: usize = 256;

/// The origins of a downloader, by a hash of scheme, host and port.
#[derive(Debug, Default)]
pub(crate) struct Origins(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    traits: HashMap<u64, Traits>,
    /// The keys of `traits`, in the order in which they were added.
    order: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    /// The last opening was answered with the whole file.
    has_no_ranges: bool,
    /// A suffix range was answered with something else than its bytes.
    refuses_suffix: bool,
}

/// What is done beside the opening request of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BesideOpening {
    /// Requests the last bytes, over a second connection.
    Suffix,
    /// Opens a second connection, for the first seek.
    Preconnect,
    Nothing,
}

impl Origins {
    pub(crate) fn beside_opening(&self, origin: u64) -> BesideOpening {
        match self.0.lock().traits.get(&origin).copied().unwrap_or_default() {
            Traits { has_no_ranges: true, .. } => BesideOpening::Nothing,
            Traits { refuses_suffix: true, .. } => BesideOpening::Preconnect,
            Traits { .. } => BesideOpening::Suffix,
        }
    }

    /// Records whether a file was opened with a range.
    pub(crate) fn record_ranges(&self, origin: u64, has_ranges: bool) {
        self.record(origin, |traits| traits.has_no_ranges = !has_ranges);
    }

    /// Records that a suffix range was answered with something else than its bytes.
    pub(crate) fn record_suffix_refused(&self, origin: u64) {
        self.record(origin, |traits| traits.refuses_suffix = true);
    }

    fn record(&self, origin: u64, change: impl FnOnce(&mut Traits)) {
        let Known { traits, order } = &mut *self.0.lock();
        let known = traits.entry(origin).or_insert_with(|| {
            order.push_back(origin);
            Traits::default()
        });
        change(known);
        if order.len() > MAX_ORIGINS {
            traits.remove(&order.pop_front().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_shows_ranges_again_gets_a_second_connection_again_but_no_suffix_that_it_refused() {
        let origins = Origins::default();
        assert_eq!(origins.beside_opening(1), BesideOpening::Suffix);
        origins.record_ranges(1, false);
        assert_eq!(origins.beside_opening(1), BesideOpening::Nothing);
        assert_eq!(origins.beside_opening(2), BesideOpening::Suffix);
        origins.record_ranges(1, true);
        assert_eq!(origins.beside_opening(1), BesideOpening::Suffix);
        origins.record_suffix_refused(1);
        assert_eq!(origins.beside_opening(1), BesideOpening::Preconnect);
    }

    #[test]
    fn the_origins_that_are_remembered_are_bounded() {
        let origins = Origins::default();
        for origin in 0..=MAX_ORIGINS as u64 {
            origins.record_suffix_refused(origin);
        }
        assert_eq!(origins.beside_opening(0), BesideOpening::Suffix);
        assert_eq!(origins.beside_opening(1), BesideOpening::Preconnect);
        assert_eq!(origins.0.lock().traits.len(), MAX_ORIGINS);
    }
}
