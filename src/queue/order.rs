//! The order of a queue: its tracks, which one plays, and which one is next. Pure.

use super::track::Track;

/// Names a track of one queue. The same track can be in a queue several times, each time with another id.
///
/// ```
/// use windway::queue::{Queue, QueueConfig, Track};
///
/// let queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// let first = queue.handle().push(Track::new("https://example.com/1.flac")?);
/// assert_eq!(queue.handle().tracks()[0].0, first);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackId(u64);

/// What a [`Queue`](super::Queue) plays again: see [`QueueHandle::set_repeat`](super::QueueHandle::set_repeat).
///
/// A track that follows itself, also by a skip to it, is played from the bytes that are stored, if all of them are; any other one is
/// opened and requested anew, unless a cache has it: see the [guide](crate::guide::queue). Like any next track it is prefetched while
/// the last bytes of the one before it are read.
///
/// ```
/// use windway::queue::{Queue, QueueConfig, Repeat};
///
/// let queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// queue.handle().set_repeat(Repeat::All);
/// assert_eq!(queue.handle().repeat(), Repeat::All);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// Nothing: the queue ends behind its last track.
    #[default]
    Off,
    /// The current track, until it is skipped or removed, or can't be opened: then the queue goes on behind it.
    One,
    /// All tracks: the first one follows the last one. If none of them can be opened, the queue ends after one error of each, until
    /// one is added, removed, moved or skipped to, or this is set again.
    All,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    tracks: Vec<(TrackId, Track)>,
    /// Index of the track that is next unless one is repeated. At most the number of tracks.
    next: usize,
    repeat: Repeat,
    /// The track that was taken last, unless it was removed or skipped. It is in `tracks`.
    current: Option<TrackId>,
    /// The track that `skip_back` led to, until it is open, or another one is skipped to.
    stepped_back_to: Option<TrackId>,
    /// The track that was stepped back to and has failed, until another one is taken or skipped to. If it is tried again by a skip to
    /// it, the direction is still backwards.
    failed_back: Option<TrackId>,
    /// Tracks in a row that could not be opened, since the last change by the application.
    failures: usize,
    /// Number of ids that were given.
    ids: u64,
}

impl Order {
    pub(super) fn tracks(&self) -> &[(TrackId, Track)] {
        &self.tracks
    }

    pub(super) fn current(&self) -> Option<TrackId> {
        self.current
    }

    pub(super) fn current_index(&self) -> Option<usize> {
        self.index_of(self.current?)
    }

    pub(super) fn repeat(&self) -> Repeat {
        self.repeat
    }

    pub(super) fn set_repeat(&mut self, repeat: Repeat) {
        (self.repeat, self.failures) = (repeat, 0);
    }

    /// The track that is next.
    pub(super) fn next(&self) -> Option<&(TrackId, Track)> {
        self.tracks.get(self.next_index())
    }

    /// Index of the track that is next. The number of tracks if there is none.
    fn next_index(&self) -> usize {
        match (self.repeat, self.current_index()) {
            (Repeat::One, Some(current)) => current,
            // Each has failed once: in a loop a player would request them without a pause.
            (Repeat::All, _) if self.failures >= self.tracks.len() => self.tracks.len(),
            (Repeat::All, _) if self.next == self.tracks.len() => 0,
            _ => self.next,
        }
    }

    /// Takes the next track: it is the current one now.
    pub(super) fn take_next(&mut self) -> Option<(TrackId, Track)> {
        let index = self.next_index();
        let taken = self.tracks.get(index).cloned();
        self.current = taken.as_ref().map(|(id, _)| *id);
        self.failed_back = None;
        // At the end it stays, so that a track which is added later is next.
        if taken.is_some() {
            self.next = index + 1;
        }
        taken
    }

    /// Adds a track at `index`, or at the end if there are fewer. What is next stays next, unless the new track comes right
    /// before it.
    pub(super) fn insert(&mut self, index: usize, track: Track) -> TrackId {
        self.ids += 1;
        let id = TrackId(self.ids);
        self.insert_as(index, id, track);
        id
    }

    /// Adds a track that is next, behind one that is repeated.
    pub(super) fn insert_next(&mut self, track: Track) -> TrackId {
        self.insert(self.next, track)
    }

    fn insert_as(&mut self, index: usize, id: TrackId, track: Track) {
        let index = index.min(self.tracks.len());
        self.tracks.insert(index, (id, track));
        self.failures = 0;
        self.next += usize::from(index < self.next);
    }

    /// Removes a track. Returns it, and whether it was the current one.
    pub(super) fn remove(&mut self, id: TrackId) -> Option<(Track, bool)> {
        let index = self.index_of(id)?;
        let (_, track) = self.tracks.remove(index);
        self.failures = 0;
        // The track that was next stays next: its index moves with it.
        self.next -= usize::from(index < self.next);
        let was_current = self.current == Some(id);
        if was_current {
            self.current = None;
        }
        Some((track, was_current))
    }

    /// Moves a track to `index`, or to the end if there are fewer. If it is the current one, the track behind its new place
    /// is next. False if there is no such track.
    pub(super) fn move_to(&mut self, id: TrackId, index: usize) -> bool {
        // `remove` forgets that it is the current one. A move does not end it.
        let current = self.current;
        let Some((track, was_current)) = self.remove(id) else { return false };
        self.insert_as(index, id, track);
        self.current = current;
        if let Some(at) = self.index_of(id).filter(|_| was_current) {
            self.next = at + 1;
        }
        true
    }

    /// Makes a track the next one, and none the current one. False if there is no such track.
    pub(super) fn skip_to(&mut self, id: TrackId) -> bool {
        self.index_of(id).is_some_and(|index| self.skip_to_index(index))
    }

    /// As [`skip_to`](Self::skip_to). False if there are fewer tracks.
    pub(super) fn skip_to_index(&mut self, index: usize) -> bool {
        let Some((id, _)) = self.tracks.get(index) else { return false };
        self.stepped_back_to = self.failed_back.take().filter(|failed| failed == id);
        (self.next, self.current, self.failures) = (index, None, 0);
        true
    }

    /// Makes the track before the current one the next one, and none the current one. False if there is none before it.
    ///
    /// If there is no current track, the one before the next one counts: two calls in a row go back by two tracks, and one after the
    /// end goes to the last track.
    pub(super) fn skip_back(&mut self) -> bool {
        let is_moved = self.step_back();
        if is_moved {
            self.failures = 0;
        }
        is_moved
    }

    fn step_back(&mut self) -> bool {
        let from = self.current_index().unwrap_or_else(|| self.next_index());
        let last = self.tracks.len().checked_sub(1);
        let before = from.checked_sub(1).or(last.filter(|_| self.repeat == Repeat::All));
        let Some((index, id)) = before.and_then(|index| Some((index, self.tracks.get(index)?.0))) else {
            return false;
        };
        (self.next, self.current, self.stepped_back_to) = (index, None, Some(id));
        true
    }

    /// Ends the current track. If there is none, the next track is passed over, the mirror of [`skip_back`](Self::skip_back): two
    /// calls in a row go on by two tracks, whether or not the player has taken one in between.
    pub(super) fn skip(&mut self) {
        (self.failures, self.failed_back) = (0, None);
        let index = self.next_index();
        if self.current.is_none() && index < self.tracks.len() {
            self.next = index + 1;
        }
        self.end_current();
    }

    /// Ends the current track, and passes over no other one.
    pub(super) fn end_current(&mut self) {
        (self.current, self.stepped_back_to) = (None, None);
    }

    /// The current track is open.
    pub(super) fn handle_opened(&mut self) {
        (self.stepped_back_to, self.failures) = (None, 0);
    }

    /// The current track can't be opened: it ends. If it was stepped back to, the one before it is next, or else a track that is
    /// missing could never be passed backwards. At the first one the direction turns.
    pub(super) fn handle_failed(&mut self) {
        self.failures += usize::from(self.current.is_some());
        let failed_back = self.stepped_back_to.filter(|id| Some(*id) == self.current);
        if failed_back.is_none() || !self.step_back() {
            self.end_current();
        }
        self.failed_back = failed_back;
    }

    /// Removes all tracks. Returns them.
    pub(super) fn clear(&mut self) -> Vec<(TrackId, Track)> {
        (self.next, self.current, self.stepped_back_to, self.failures) = (0, None, None, 0);
        std::mem::take(&mut self.tracks)
    }

    fn index_of(&self, id: TrackId) -> Option<usize> {
        self.tracks.iter().position(|(found, _)| *found == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn track() -> Track {
        Track::new("http://h/a").unwrap()
    }

    fn order(tracks: usize) -> (Order, Vec<TrackId>) {
        let mut order = Order::default();
        let ids = (0..tracks).map(|index| order.insert(index, track())).collect();
        (order, ids)
    }

    fn take(order: &mut Order) -> Option<TrackId> {
        order.take_next().map(|(id, _)| id)
    }

    #[test]
    fn tracks_come_one_after_the_other() {
        let (mut order, ids) = order(2);
        assert_eq!(
            (take(&mut order), take(&mut order), take(&mut order)),
            (Some(ids[0]), Some(ids[1]), None)
        );
        assert_eq!(order.current(), None);
        let more = order.insert(usize::MAX, track());
        assert_eq!(take(&mut order), Some(more), "it goes on where it ended");
    }

    #[test]
    fn a_change_behind_or_before_the_current_track_keeps_what_is_next() {
        let (mut order, ids) = order(4);
        take(&mut order);
        take(&mut order);
        order.insert(0, track());
        assert!(order.remove(ids[0]).is_some_and(|(_, was_current)| !was_current));
        order.insert(4, track());
        assert_eq!(order.next().map(|(id, _)| *id), Some(ids[2]));
        let next = order.insert_next(track());
        assert_eq!((take(&mut order), take(&mut order)), (Some(next), Some(ids[2])));
    }

    #[test]
    fn the_track_behind_the_current_one_is_next_wherever_that_is_moved() {
        let (mut order, ids) = order(4);
        take(&mut order);
        assert!(order.move_to(ids[0], 2));
        assert_eq!((order.current(), order.next().map(|(id, _)| *id)), (Some(ids[0]), Some(ids[3])));
        assert!(order.move_to(ids[0], 99));
        assert_eq!(order.next().map(|(id, _)| *id), None);
        assert!(order.move_to(ids[0], 0));
        assert_eq!(order.next().map(|(id, _)| *id), Some(ids[1]));
    }

    #[test]
    fn a_skip_goes_anywhere() {
        let (mut order, ids) = order(3);
        take(&mut order);
        assert!(order.skip_to(ids[2]));
        assert_eq!((order.current(), take(&mut order)), (None, Some(ids[2])));
        assert!(order.skip_to(ids[0]));
        assert_eq!(take(&mut order), Some(ids[0]));
        order.remove(ids[1]);
        assert!(!order.skip_to(ids[1]) && !order.move_to(ids[1], 0) && order.remove(ids[1]).is_none());
    }

    #[test]
    fn a_skip_back_goes_on_to_the_first_track_and_from_there_only_if_all_are_repeated() {
        let (mut order, ids) = order(3);
        assert!(!order.skip_back(), "nothing was taken");
        assert_eq!((take(&mut order), order.skip_back()), (Some(ids[0]), false));
        assert_eq!(order.current(), Some(ids[0]), "it plays on");
        take(&mut order);
        take(&mut order);
        assert!(order.skip_back() && order.skip_back(), "also before the first one was taken");
        assert_eq!(take(&mut order), Some(ids[0]));
        order.set_repeat(Repeat::All);
        assert!(order.skip_back());
        assert_eq!((take(&mut order), take(&mut order)), (Some(ids[2]), Some(ids[0])));
        assert!(order.skip_to(ids[2]));
        take(&mut order);
        order.skip();
        assert!(order.skip_back(), "before the first track, which is next, is the last one");
        assert_eq!(take(&mut order), Some(ids[2]));
    }

    #[test]
    fn each_skip_goes_one_further_also_before_the_next_track_was_taken() {
        let (mut order, ids) = order(5);
        take(&mut order);
        for _ in 0..3 {
            order.skip();
        }
        assert_eq!(order.next().map(|(id, _)| *id), Some(ids[3]));
        assert!(order.skip_back(), "one back");
        assert_eq!(take(&mut order), Some(ids[2]));
        assert!(order.skip_to_index(2));
        order.skip();
        order.skip();
        assert_eq!(take(&mut order), Some(ids[4]));
        for _ in 0..3 {
            order.skip();
        }
        assert_eq!(order.next().map(|(id, _)| *id), None);
        assert!(order.skip_back(), "more skips than tracks count for nothing");
        assert_eq!(take(&mut order), Some(ids[4]));
        order.set_repeat(Repeat::All);
        order.skip();
        order.skip();
        assert_eq!(take(&mut order), Some(ids[1]), "past the end and on from the first one");
    }

    #[test]
    fn a_step_back_to_tracks_that_fail_goes_on_to_the_one_before_them() {
        let (mut order, ids) = order(4);
        assert!(order.skip_to_index(3));
        take(&mut order);
        assert!(order.skip_back());
        for failing in [ids[2], ids[1]] {
            assert_eq!(take(&mut order), Some(failing));
            order.handle_failed();
            assert_eq!(order.current(), None);
        }
        assert_eq!(take(&mut order), Some(ids[0]));
        order.handle_opened();
        assert_eq!(take(&mut order), Some(ids[1]));
        order.handle_failed();
        assert_eq!(take(&mut order), Some(ids[2]), "forwards again");
        assert!(order.skip_to_index(1) && order.skip_back());
        take(&mut order);
        order.handle_failed();
        assert_eq!(take(&mut order), Some(ids[1]), "nothing is before the first one");
        order.handle_failed();
        assert_eq!(take(&mut order), Some(ids[2]));
        assert!(order.skip_back() && order.skip_to_index(2));
        take(&mut order);
        order.handle_failed();
        assert_eq!(take(&mut order), Some(ids[3]), "it was skipped to, not stepped back to");
    }

    #[test]
    fn after_the_end_and_after_a_removal_a_skip_back_goes_to_what_was_played() {
        let (mut order, ids) = order(2);
        while take(&mut order).is_some() {}
        assert!(order.skip_back());
        assert_eq!(take(&mut order), Some(ids[1]));
        order.remove(ids[1]);
        assert!(order.skip_back());
        assert_eq!(take(&mut order), Some(ids[0]));
    }

    #[test]
    fn one_track_is_repeated_until_it_is_skipped_or_fails() {
        let (mut order, ids) = order(2);
        order.set_repeat(Repeat::One);
        assert_eq!((take(&mut order), take(&mut order)), (Some(ids[0]), Some(ids[0])));
        order.skip();
        assert_eq!((take(&mut order), take(&mut order)), (Some(ids[1]), Some(ids[1])));
        assert!(order.move_to(ids[1], 0));
        assert_eq!(take(&mut order), Some(ids[1]), "wherever it is");
        let more = order.insert_next(track());
        assert_eq!((take(&mut order), order.skip()), (Some(ids[1]), ()));
        assert_eq!((take(&mut order), order.skip()), (Some(more), ()));
        assert_eq!((take(&mut order), order.skip()), (Some(ids[0]), ()));
        assert_eq!(take(&mut order), None, "the queue ends as if nothing were repeated");
    }

    #[test]
    fn all_tracks_are_repeated_and_what_is_added_at_the_end_comes_before_that() {
        let (mut order, ids) = order(2);
        order.set_repeat(Repeat::All);
        assert_eq!([(); 3].map(|()| take(&mut order)), [ids[0], ids[1], ids[0]].map(Some));
        take(&mut order);
        let more = order.insert(usize::MAX, track());
        assert_eq!([(); 2].map(|()| take(&mut order)), [more, ids[0]].map(Some));
        order.clear();
        assert_eq!(take(&mut order), None);
    }

    #[test]
    fn tracks_of_which_none_can_be_opened_are_not_repeated_again_and_again() {
        let (mut order, ids) = order(3);
        order.set_repeat(Repeat::All);
        take(&mut order);
        order.handle_opened();
        for id in [ids[1], ids[2], ids[0]] {
            assert_eq!(take(&mut order), Some(id));
            order.handle_failed();
        }
        assert_eq!((take(&mut order), take(&mut order)), (None, None));
        assert!(order.skip_to(ids[1]), "the user tries again");
        assert_eq!(take(&mut order), Some(ids[1]));
        order.handle_opened();
        assert_eq!(take(&mut order), Some(ids[2]), "and with it the others");
        order.handle_failed();
        assert!(order.skip_back());
        for id in [ids[2], ids[1], ids[0]] {
            assert_eq!(take(&mut order), Some(id), "also backwards");
            order.handle_failed();
        }
        assert_eq!(take(&mut order), None);
        let more = order.insert(3, track());
        assert!((0..4).any(|_| take(&mut order) == Some(more)));
    }

    #[test]
    fn a_track_that_was_stepped_back_to_and_is_tried_again_keeps_the_direction() {
        let (mut order, ids) = order(3);
        assert!(order.skip_to_index(2));
        take(&mut order);
        assert!(order.skip_back());
        for _ in 0..2 {
            assert_eq!(take(&mut order), Some(ids[1]));
            order.handle_failed();
            assert_eq!(order.next().map(|(id, _)| *id), Some(ids[0]));
            assert!(order.skip_to(ids[1]));
        }
        assert!(order.skip_to(ids[0]) && order.skip_to(ids[1]));
        take(&mut order);
        order.handle_failed();
        assert_eq!(take(&mut order), Some(ids[2]), "another one was skipped to in between");
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(usize),
        InsertNext,
        Remove(u64),
        MoveTo(u64, usize),
        SkipTo(u64),
        Skip,
        SkipBack,
        Fail,
        Open,
        Repeat(Repeat),
        Take,
    }

    fn apply(order: &mut Order, change: Change) {
        match change {
            Change::Insert(at) => _ = order.insert(at, track()),
            Change::InsertNext => _ = order.insert_next(track()),
            Change::Remove(id) => _ = order.remove(TrackId(id)),
            Change::MoveTo(id, to) => _ = order.move_to(TrackId(id), to),
            Change::SkipTo(id) => _ = order.skip_to(TrackId(id)),
            Change::Skip => order.skip(),
            Change::SkipBack => _ = order.skip_back(),
            Change::Fail => order.handle_failed(),
            Change::Open => order.handle_opened(),
            Change::Repeat(repeat) => order.set_repeat(repeat),
            Change::Take => _ = order.take_next(),
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..8_usize).prop_map(Change::Insert),
            Just(Change::InsertNext),
            (0..12_u64).prop_map(Change::Remove),
            (0..12_u64, 0..8_usize).prop_map(|(id, to)| Change::MoveTo(id, to)),
            (0..12_u64).prop_map(Change::SkipTo),
            Just(Change::Skip),
            Just(Change::SkipBack),
            Just(Change::Fail),
            Just(Change::Open),
            prop_oneof![Just(Repeat::Off), Just(Repeat::One), Just(Repeat::All)].prop_map(Change::Repeat),
            Just(Change::Take),
            Just(Change::Take),
        ]
    }

    proptest! {
        /// Whatever has happened before, and wherever the queue steps: a player that goes on after errors gets to an end.
        #[test]
        fn a_queue_of_which_nothing_can_be_opened_ends(changes in vec(change(), 0..20), goes_back in any::<bool>()) {
            let mut order = Order::default();
            (0..3).for_each(|at| _ = order.insert(at, track()));
            for change in changes {
                apply(&mut order, change);
            }
            order.set_repeat(Repeat::All);
            if goes_back {
                order.skip_back();
            }
            let taken = std::iter::from_fn(|| {
                let taken = order.take_next();
                order.handle_failed();
                taken
            });
            prop_assert!(taken.take(100).count() <= order.tracks().len());
        }

        #[test]
        fn whatever_changes_no_track_is_lost_and_the_current_one_lies_before_the_next(changes in vec(change(), 0..40)) {
            let mut order = Order::default();
            for change in changes {
                let before: Vec<TrackId> = order.tracks.iter().map(|(id, _)| *id).collect();
                let next = order.next().map(|(id, _)| *id);
                match change {
                    Change::Insert(at) => {
                        order.insert(at, track());
                    }
                    Change::InsertNext => {
                        let repeated = order.current().filter(|_| order.repeat() == Repeat::One);
                        let id = order.insert_next(track());
                        prop_assert_eq!(order.next().map(|(next, _)| *next), repeated.or(Some(id)));
                    }
                    Change::Remove(id) => {
                        let removed = order.remove(TrackId(id)).is_some();
                        prop_assert_eq!(removed, before.contains(&TrackId(id)));
                        if next != Some(TrackId(id)) {
                            prop_assert_eq!(order.next().map(|(id, _)| *id), next);
                        }
                    }
                    Change::MoveTo(id, to) => {
                        prop_assert_eq!(order.move_to(TrackId(id), to), before.contains(&TrackId(id)));
                        prop_assert_eq!(order.tracks.len(), before.len());
                    }
                    Change::SkipTo(id) => {
                        if order.skip_to(TrackId(id)) {
                            prop_assert_eq!(order.next().map(|(id, _)| *id), Some(TrackId(id)));
                        }
                    }
                    Change::Skip => {
                        let was_none = order.current().is_none();
                        order.skip();
                        prop_assert!(order.current().is_none());
                        let is_other = next != order.next().map(|(id, _)| *id);
                        prop_assert!(!was_none || next.is_none() || is_other || before.len() == 1);
                    }
                    Change::Fail => {
                        order.handle_failed();
                        prop_assert!(order.current().is_none());
                    }
                    // Only what was taken is opened.
                    Change::Open if order.current().is_none() => {}
                    Change::Open => {
                        order.handle_opened();
                        prop_assert_eq!(order.next().map(|(id, _)| *id), next);
                    }
                    Change::SkipBack => {
                        let is_moved = order.skip_back();
                        prop_assert!(!is_moved || order.current().is_none() && order.next().is_some());
                        prop_assert!(is_moved || next == order.next().map(|(id, _)| *id));
                    }
                    Change::Repeat(repeat) => order.set_repeat(repeat),
                    Change::Take => prop_assert_eq!(order.take_next().map(|(id, _)| id), next),
                }
                prop_assert!(order.next <= order.tracks.len());
                let mut ids: Vec<u64> = order.tracks.iter().map(|(id, _)| id.0).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), order.tracks.len(), "each id is there once");
                if let Some(current) = order.current {
                    prop_assert!(order.index_of(current).is_some_and(|index| index < order.next));
                }
            }
        }
    }
}
