//! Shares out the memory in which the streams of a downloader buffer bytes. Does no I/O and reads no clock.
//!
//! A stream requests as much as it would like to hold. While all requests together are within the limit, each is
//! granted. Beyond it, streams that play go before those that are not read, and among those that play the ones with
//! high priority go first. The streams of one standing get equal shares, but none gets more than it requests. Each
//! stream always gets [`MIN_SHARE`], so that it can work at all.
//!
//! What is granted is never taken back by itself. If there is not enough left for a request, [`Budget::request`] reduces
//! the grants of streams that hold more than their share, and names them: they have to drop bytes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::types::Priority;

/// Bytes that each stream gets, also beyond the limit: as many as the first request of a file brings.
pub(crate) const MIN_SHARE: u64 = 256 * 1024;

/// A stream that has made no request for this long is not playing. One that takes 8 kbit/s makes a request after each
/// 32 KiB.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// A larger request counts as this, so that no sum of requests or of grants overflows. No memory has room for it.
const MAX_REQUEST: u64 = 1 << 40;

/// Names a stream of a budget.
pub(crate) type StreamId = usize;

/// How much each stream of a downloader may buffer.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// Sum of all grants. Exceeds the limit by [`MIN_SHARE`] for each stream at most.
    granted: u64,
    streams: Slab<Stream>,
    /// The streams by standing.
    classes: [Class; 3],
    /// When the streams that play were read last.
    playing: BTreeSet<(Instant, StreamId)>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    standing: Standing,
    requested: u64,
    granted: u64,
    read_at: Instant,
}

/// Which streams go first: those of the greatest standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Idle,
    PlaysLow,
    PlaysHigh,
}

/// The streams of one standing.
#[derive(Debug)]
struct Class {
    /// What each holds, the most last.
    by_grant: BTreeSet<(u64, StreamId)>,
    /// Their requests, by the power of two at or below: with so few sizes a share costs no look at each stream.
    requests: [Requests; 64],
}

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    streams: u64,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        let class = || Class { by_grant: BTreeSet::new(), requests: [Requests::default(); 64] };
        Self {
            limit,
            granted: 0,
            streams: Slab::new(),
            classes: [class(), class(), class()],
            playing: BTreeSet::new(),
        }
    }

    /// Adds a stream, which has no grant before its first request.
    pub(crate) fn add(&mut self, now: Instant) -> StreamId {
        let stream = Stream { standing: Standing::Idle, requested: 0, granted: 0, read_at: now };
        let id = self.streams.insert(stream);
        self.classes[Standing::Idle as usize].add(id, &stream);
        id
    }

    pub(crate) fn remove(&mut self, id: StreamId) {
        let stream = self.streams.remove(id);
        self.take_out(id, &stream);
    }

    /// How much the stream may hold, if that is less than it requested.
    pub(crate) fn reduced(&self, id: StreamId) -> Option<u64> {
        let Stream { requested, granted, .. } = self.streams[id];
        (granted < requested).then_some(granted)
    }

    #[cfg(test)]
    fn granted(&self, id: StreamId) -> u64 {
        self.streams[id].granted
    }

    /// Requests that a stream, which is read at this moment, may hold this many bytes. [`reduced`](Self::reduced) is the
    /// answer. Returns the streams whose grants were reduced for it.
    pub(crate) fn request(
        &mut self,
        id: StreamId,
        bytes: u64,
        priority: Priority,
        now: Instant,
    ) -> Vec<StreamId> {
        let bytes = bytes.min(MAX_REQUEST);
        self.demote_idle(now);
        let standing = if priority == Priority::High { Standing::PlaysHigh } else { Standing::PlaysLow };
        let held = self.streams[id].granted;
        // Recorded without a grant first, so that its own grant does not reduce the share that is computed for it.
        self.change(id, |stream| {
            *stream = Stream { standing, requested: bytes, granted: 0, read_at: now };
        });
        let share = bytes.min(self.share(standing));
        let mut reduced = Vec::new();
        while share > held && self.left() < share {
            let needed = share - self.left();
            let Some(victim) = self.poll_excess(standing, needed) else { break };
            reduced.push(victim);
        }
        // Bytes that it holds already and no other stream needs stay.
        let bytes = share.max(held.min(bytes)).min(self.left()).max(MIN_SHARE.min(bytes));
        self.change(id, |stream| stream.granted = bytes);
        reduced
    }

    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.granted)
    }

    /// Moves the streams that were not read for a while to those that do not play.
    fn demote_idle(&mut self, now: Instant) {
        while let Some((read_at, id)) = self.playing.first().copied() {
            if now.saturating_duration_since(read_at) < IDLE_AFTER {
                break;
            }
            self.change(id, |stream| stream.standing = Standing::Idle);
        }
    }

    /// Reduces the grant of the stream that holds the most over its share, among those that go after `standing` first.
    fn poll_excess(&mut self, standing: Standing, needed: u64) -> Option<StreamId> {
        for lower in [Standing::Idle, Standing::PlaysLow, Standing::PlaysHigh] {
            if lower > standing {
                break;
            }
            // All is taken from one stream that is not read, rather than a little from each, since each of them would have to
            // drop bytes.
            let share = if lower == Standing::Idle { MIN_SHARE } else { self.share(lower).max(MIN_SHARE) };
            // From a stream of the same standing only if it holds a quarter more than its share: otherwise each new stream
            // would take some bytes from each of the others. A stream that lacks even the minimum takes it in any case.
            let slack = if lower < standing || self.left() < MIN_SHARE { 0 } else { share / 4 };
            let Some((granted, id)) = self.classes[lower as usize].by_grant.last().copied() else { continue };
            if granted > share.saturating_add(slack) {
                let left_to_it = if lower == Standing::Idle { granted.saturating_sub(needed) } else { 0 };
                self.change(id, |stream| stream.granted = share.max(left_to_it));
                return Some(id);
            }
        }
        None
    }

    /// The most that a stream of this standing may hold, if others are to get their shares.
    fn share(&self, standing: Standing) -> u64 {
        let mut left = self.limit;
        let mut behind = self.streams.len() as u64;
        for class in [Standing::PlaysHigh, Standing::PlaysLow, Standing::Idle] {
            let streams = self.classes[class as usize].by_grant.len() as u64;
            // For each stream of the classes after this one its minimum is set aside.
            behind -= streams;
            let (share, used) =
                self.classes[class as usize].share_out(left.saturating_sub(behind * MIN_SHARE));
            if class == standing {
                return share.max(MIN_SHARE);
            }
            left = left.saturating_sub(used.max(streams * MIN_SHARE));
        }
        MIN_SHARE
    }

    fn change(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        let mut stream = self.streams[id];
        self.take_out(id, &stream);
        change(&mut stream);
        self.streams[id] = stream;
        self.granted += stream.granted;
        self.classes[stream.standing as usize].add(id, &stream);
        if stream.standing != Standing::Idle {
            self.playing.insert((stream.read_at, id));
        }
    }

    fn take_out(&mut self, id: StreamId, stream: &Stream) {
        self.granted -= stream.granted;
        self.classes[stream.standing as usize].remove(id, stream);
        self.playing.remove(&(stream.read_at, id));
    }
}

impl Class {
    fn add(&mut self, id: StreamId, stream: &Stream) {
        self.by_grant.insert((stream.granted, id));
        let requests = &mut self.requests[size_of_request(stream.requested)];
        requests.streams += 1;
        requests.bytes += stream.requested;
    }

    fn remove(&mut self, id: StreamId, stream: &Stream) {
        self.by_grant.remove(&(stream.granted, id));
        let requests = &mut self.requests[size_of_request(stream.requested)];
        requests.streams -= 1;
        requests.bytes -= stream.requested;
    }

    /// Shares out `bytes`: from the smallest requests on each is granted, until the rest gets equal parts of what is
    /// left. Returns the part, and how much is used.
    fn share_out(&self, bytes: u64) -> (u64, u64) {
        let mut rest = self.requests.iter().fold(Requests::default(), |sum, requests| Requests {
            streams: sum.streams + requests.streams,
            bytes: sum.bytes + requests.bytes,
        });
        let mut left = bytes;
        for (size, requests) in self.requests.iter().enumerate().filter(|(_, requests)| requests.streams > 0)
        {
            if rest.bytes <= left {
                break;
            }
            let part = left / rest.streams;
            // The largest request of this size may be above the part. Then the others of the size share what is left with it.
            if u64::MAX >> (63 - size) > part {
                return (part, bytes);
            }
            left -= requests.bytes;
            // All requests of this size are granted, so the others share what is left.
            rest = Requests { streams: rest.streams - requests.streams, bytes: rest.bytes - requests.bytes };
        }
        // What is left is enough for all of them, so none gets less than it requested.
        (u64::MAX, bytes - left + rest.bytes)
    }
}

fn size_of_request(bytes: u64) -> usize {
    bytes.max(1).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn requests_within_the_limit_are_granted() {
        let (now, mut budget) = (Instant::now(), Budget::new(64 * MIB));
        for _ in 0..4 {
            let id = budget.add(now);
            assert!(budget.request(id, 16 * MIB, Priority::Low, now).is_empty());
            assert_eq!(budget.granted(id), 16 * MIB);
        }
    }

    #[test]
    fn a_thousand_streams_hold_no_more_than_the_limit() {
        let (now, mut budget) = (Instant::now(), Budget::new(256 * MIB));
        let ids: Vec<_> = (0..1000).map(|_| budget.add(now)).collect();
        let mut reductions = 0;
        for id in &ids {
            reductions += budget.request(*id, 16 * MIB, Priority::High, now).len();
            assert!(budget.granted(*id) >= MIN_SHARE && budget.granted <= 256 * MIB);
        }
        // Each costs its stream a look at what it holds.
        assert!(reductions < 20 * ids.len(), "{reductions}");
    }

    #[test]
    fn a_stream_that_plays_takes_from_those_that_are_not_read() {
        let (now, mut budget) = (Instant::now(), Budget::new(64 * MIB));
        let paused: Vec<_> = (0..4).map(|_| budget.add(now)).collect();
        for id in &paused {
            budget.request(*id, 16 * MIB, Priority::High, now);
        }
        let player = budget.add(now);
        budget.request(player, 16 * MIB, Priority::High, now);
        assert!(budget.granted(player) < 16 * MIB);
        let reduced = budget.request(player, 16 * MIB, Priority::High, now + IDLE_AFTER);
        assert_eq!(budget.granted(player), 16 * MIB);
        assert!(!reduced.is_empty() && !reduced.contains(&player));
        // They keep what no other stream needs.
        assert!(paused.iter().any(|id| budget.granted(*id) > 8 * MIB));
    }

    #[test]
    fn high_priority_goes_first_and_low_priority_is_not_starved() {
        let (now, mut budget) = (Instant::now(), Budget::new(20 * MIB));
        let (low, high) = (budget.add(now), budget.add(now));
        assert!(budget.request(low, 16 * MIB, Priority::Low, now).is_empty());
        assert_eq!(budget.request(high, 16 * MIB, Priority::High, now), [low]);
        assert_eq!((budget.granted(low), budget.granted(high)), (4 * MIB, 16 * MIB));
        let third = budget.add(now);
        budget.request(third, 16 * MIB, Priority::Low, now);
        assert!(budget.granted(third) >= MIN_SHARE);
        assert_eq!(budget.granted(high), 16 * MIB);
    }

    #[test]
    fn small_requests_leave_their_rest_to_the_others() {
        let (now, mut budget) = (Instant::now(), Budget::new(10 * MIB));
        let ids: Vec<_> = (0..3).map(|_| budget.add(now)).collect();
        let mut request = |id: StreamId, bytes| {
            budget.request(ids[id], bytes, Priority::High, now);
            budget.granted(ids[id])
        };
        assert_eq!(request(0, MIB / 2), MIB / 2);
        assert_eq!(request(1, 8 * MIB), 8 * MIB);
        assert!(request(2, 8 * MIB) >= 4 * MIB);
        assert_eq!(request(0, MIB / 2), MIB / 2);
        assert!(request(1, 8 * MIB) >= 4 * MIB);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add,
        Remove(usize),
        Request(usize, u64, bool),
        Later(u64),
    }

    /// A window, or as much as a configuration may ask for.
    fn bytes() -> impl Strategy<Value = u64> {
        prop_oneof![16 => 0..40 * MIB, 1 => any::<u64>(), 1 => Just(u64::MAX)]
    }

    fn limits() -> impl Strategy<Value = u64> {
        prop_oneof![4 => Just(50 * MIB), 1 => 0..2 * MIN_SHARE, 1 => Just(u64::MAX)]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Add),
            1 => any::<usize>().prop_map(Step::Remove),
            8 => (any::<usize>(), bytes(), any::<bool>())
                .prop_map(|(at, bytes, is_high)| Step::Request(at, bytes, is_high)),
            2 => (0..8_u64).prop_map(Step::Later),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Whatever happens: the sum keeps to the limit, no stream gets more than it requests or less than its minimum,
        /// and only the grants of streams that are named are reduced.
        #[test]
        fn grants_keep_to_the_limit(limit in limits(), steps in steps()) {
            let mut now = Instant::now();
            let mut budget = Budget::new(limit);
            let mut ids: Vec<(StreamId, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add => ids.push((budget.add(now), 0)),
                    Step::Remove(at) if !ids.is_empty() => {
                        let (id, _) = ids.swap_remove(at % ids.len());
                        budget.remove(id);
                    }
                    Step::Request(at, bytes, is_high) if !ids.is_empty() => {
                        let at = at % ids.len();
                        let priority = if is_high { Priority::High } else { Priority::Low };
                        let reduced = budget.request(ids[at].0, bytes, priority, now);
                        let granted = budget.granted(ids[at].0);
                        prop_assert!(granted <= bytes && granted >= bytes.min(MIN_SHARE));
                        for (other, (id, held)) in ids.iter_mut().enumerate() {
                            if other != at && !reduced.contains(id) {
                                prop_assert_eq!(*held, budget.granted(*id));
                            }
                            *held = budget.granted(*id);
                        }
                    }
                    Step::Later(seconds) => now += Duration::from_secs(seconds),
                    Step::Remove(_) | Step::Request(..) => {}
                }
                let sum: u64 = ids.iter().map(|(id, _)| budget.granted(*id)).sum();
                prop_assert_eq!(sum, budget.granted);
                prop_assert!(sum <= limit.saturating_add(ids.len() as u64 * MIN_SHARE));
            }
        }
    }
}
