//! Holds reads of bodies back, so that all of a downloader together keep to `max_bandwidth`.
//!
//! The thread that reads a body asks for its share before each read, and waits here until it gets one. The wait is no part of
//! the read, so it counts neither as silence of the server nor against its minimum rate. Urgent fetches go first, and in
//! either class the one that has waited longest.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::rate_limiter::RateLimiter;
use crate::client::Urgency;
use crate::types::Priority;

/// The limit of a downloader, and the threads that wait because of it.
#[derive(Default)]
pub(super) struct Pacer {
    /// Bytes a second; 0 without a limit, which costs each read this one load. Only changes with the state locked.
    limit: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` without a limit.
    limiter: Option<RateLimiter>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    /// The one that gets the next share, as the last look has found. It has looked since then, or is notified.
    first: Option<u64>,
    next_ticket: u64,
}

struct Waiting {
    ticket: u64,
    fetch: Arc<dyn Urgency>,
    /// Where its thread waits, alone: each share concerns one thread. Notified when it becomes the first, when the limit changes,
    /// and by [`recheck`](Pacer::recheck).
    changed: Arc<Condvar>,
}

/// When a thread gets its share.
enum Share {
    /// It may read this many bytes.
    Now(usize),
    /// It is the first, and its share is there at this time.
    At(Instant),
    /// Another one is before it.
    Behind,
}

impl Pacer {
    pub(super) fn new(limit: Option<NonZeroU64>) -> Self {
        let pacer = Self::default();
        pacer.set_limit(limit);
        pacer
    }

    /// Bytes a second.
    pub(super) fn limit(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.limit.load(Ordering::Relaxed))
    }

    /// Sets the limit, also for reads that wait.
    pub(super) fn set_limit(&self, limit: Option<NonZeroU64>) {
        let mut state = self.state.lock();
        self.limit.store(limit.map_or(0, NonZeroU64::get), Ordering::Relaxed);
        let now = Instant::now();
        state.limiter = match (state.limiter.take(), limit) {
            (_, None) => None,
            (None, Some(rate)) => Some(RateLimiter::new(rate, now)),
            (Some(mut limiter), Some(rate)) => {
                limiter.set_rate(rate, now);
                Some(limiter)
            }
        };
        state.notify_all();
    }

    /// How many of the `wanted` bytes may be read now. `None` if that means a wait.
    pub(super) fn try_take(&self, wanted: usize, fetch: &dyn Urgency) -> Option<usize> {
        // Relaxed: a read that misses a new limit is one read without a limit.
        if self.limit.load(Ordering::Relaxed) == 0 {
            return Some(wanted);
        }
        let mut state = self.state.lock();
        let is_urgent = fetch.is_urgent();
        // What waits has come before. Otherwise a thread that reads all the time would take each share before a waiting one has
        // woken up.
        if state.waiting.iter().any(|other| !is_urgent || other.fetch.is_urgent()) {
            return None;
        }
        match state.take(wanted, is_urgent) {
            Share::Now(bytes) => Some(bytes),
            Share::At(_) | Share::Behind => None,
        }
    }

    /// As [`try_take`](Self::try_take), but blocks until some may be read. `None` if `is_interrupted`, which is asked after each
    /// [`recheck`](Self::recheck). It is called with the state locked, so it must not call back.
    pub(super) fn wait(
        &self,
        wanted: usize,
        fetch: &Arc<dyn Urgency>,
        is_interrupted: impl Fn() -> bool,
    ) -> Option<usize> {
        let mut state = self.state.lock();
        let changed = Arc::new(Condvar::new());
        let ticket = state.enter(fetch, &changed);
        let share = loop {
            if is_interrupted() {
                break None;
            }
            match state.poll(ticket, wanted) {
                Share::Now(bytes) => break Some(bytes),
                Share::At(at) => drop(changed.wait_until(&mut state, at)),
                Share::Behind => changed.wait(&mut state),
            }
        };
        state.waiting.retain(|waiting| waiting.ticket != ticket);
        // Also after a share: the next one is first now, and waits without a deadline.
        state.update_first();
        share
    }

    /// Takes back what a read did not get of its share.
    pub(super) fn give_back(&self, unused: usize) {
        if unused > 0 && self.limit.load(Ordering::Relaxed) > 0 {
            if let Some(limiter) = &mut self.state.lock().limiter {
                limiter.give_back(unused as u64);
            }
        }
    }

    /// Makes the waiting threads look again at the priorities of their fetches, and whether they are interrupted. Returns true if
    /// there were any.
    pub(super) fn recheck(&self) -> bool {
        // With the lock: a thread between its look and its wait would miss the notification.
        self.limit.load(Ordering::Relaxed) > 0 && self.state.lock().notify_all()
    }
}

impl State {
    fn enter(&mut self, fetch: &Arc<dyn Urgency>, changed: &Arc<Condvar>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (fetch, changed) = (Arc::clone(fetch), Arc::clone(changed));
        self.waiting.push_back(Waiting { ticket, fetch, changed });
        ticket
    }

    fn poll(&mut self, ticket: u64, wanted: usize) -> Share {
        let is_urgent = self.update_first();
        if self.limiter.is_some() && self.first != Some(ticket) {
            return Share::Behind;
        }
        self.take(wanted, is_urgent)
    }

    /// Finds out which one is first, and notifies it if that is new. True if it is urgent.
    ///
    /// A fetch may have become less urgent, or another one more, with no call of [`recheck`](Pacer::recheck). The one that is first
    /// now has last found itself behind, and waits without a deadline.
    fn update_first(&mut self) -> bool {
        let urgent = self.waiting.iter().find(|waiting| waiting.fetch.is_urgent());
        let first = urgent.or(self.waiting.front());
        let ticket = first.map(|first| first.ticket);
        if let Some(first) = first.filter(|_| self.first != ticket) {
            first.changed.notify_one();
        }
        let is_urgent = urgent.is_some();
        self.first = ticket;
        is_urgent
    }

    /// True if there was a thread to notify.
    fn notify_all(&self) -> bool {
        // Each of them, so not `any`.
        self.waiting.iter().filter(|waiting| waiting.changed.notify_one()).count() > 0
    }

    fn take(&mut self, wanted: usize, is_urgent: bool) -> Share {
        let Some(limiter) = &mut self.limiter else { return Share::Now(wanted) };
        let priority = if is_urgent { Priority::High } else { Priority::Low };
        match limiter.take(wanted as u64, priority, Instant::now()) {
            // No more than `wanted`, unless that is 0.
            Ok(share) => Share::Now(usize::try_from(share).unwrap_or(wanted)),
            Err(at) => Share::At(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    struct Fetch(AtomicBool);

    impl Urgency for Fetch {
        fn is_urgent(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn fetch(is_urgent: bool) -> Arc<Fetch> {
        Arc::new(Fetch(AtomicBool::new(is_urgent)))
    }

    /// A pacer that allows nothing more: what is left of its burst would take hours.
    fn used_up() -> Arc<Pacer> {
        let pacer = Arc::new(Pacer::new(NonZeroU64::new(1)));
        while pacer.try_take(usize::MAX, &*fetch(true)).is_some() {}
        pacer
    }

    /// A thread that waits for a share, and what it gets. It has looked when this returns.
    fn wait(pacer: &Arc<Pacer>, interrupted: &Arc<AtomicBool>) -> thread::JoinHandle<Option<usize>> {
        let (looks, look) = mpsc::channel();
        let (pacer, interrupted) = (Arc::clone(pacer), Arc::clone(interrupted));
        let waiting = thread::spawn(move || {
            let fetch = fetch(false) as Arc<dyn Urgency>;
            pacer.wait(5, &fetch, || {
                // The test waits for the first one only.
                let _ = looks.send(());
                interrupted.load(Ordering::Relaxed)
            })
        });
        look.recv().unwrap();
        waiting
    }

    fn enter(state: &mut State, fetch: &Arc<Fetch>) -> u64 {
        state.enter(&(Arc::clone(fetch) as Arc<dyn Urgency>), &Arc::default())
    }

    #[test]
    fn urgent_fetches_go_first_and_then_the_one_that_came_first() {
        let pacer = Pacer::new(NonZeroU64::new(1));
        let mut state = pacer.state.lock();
        let (low, high, late) = (fetch(false), fetch(true), fetch(true));
        let tickets = [&low, &high, &late].map(|fetch| enter(&mut state, fetch));
        let mut first = || tickets.map(|ticket| matches!(state.poll(ticket, 1), Share::Now(1)));
        assert_eq!(first(), [false, true, false]);
        high.0.store(false, Ordering::Relaxed);
        assert_eq!(first(), [false, false, true]);
        late.0.store(false, Ordering::Relaxed);
        assert_eq!(first(), [true, false, false]);
    }

    /// Otherwise it would wait forever, if it was behind when it looked last.
    #[test]
    fn the_one_that_is_first_now_is_notified_by_the_one_that_is_not_any_more() {
        let pacer = used_up();
        let mut state = pacer.state.lock();
        let (low, high) = (fetch(false), fetch(true));
        let [low_ticket, high_ticket] = [&low, &high].map(|fetch| enter(&mut state, fetch));
        assert!(matches!(state.poll(high_ticket, 1), Share::At(_)));
        assert!(matches!(state.poll(low_ticket, 1), Share::Behind));
        assert_eq!(state.first, Some(high_ticket));
        high.0.store(false, Ordering::Relaxed);
        assert!(matches!(state.poll(high_ticket, 1), Share::Behind));
        assert_eq!(state.first, Some(low_ticket));
        assert!(matches!(state.poll(low_ticket, 1), Share::At(_)));
    }

    #[test]
    fn a_share_wakes_the_thread_that_gets_the_next_one_and_no_other() {
        const THREADS: usize = 16;
        const SHARES: usize = 20;
        let pacer = Arc::new(Pacer::new(NonZeroU64::new(10_000_000)));
        let looks = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let fetch = fetch(true) as Arc<dyn Urgency>;
                    for _ in 0..SHARES {
                        pacer.wait(20_000, &fetch, || {
                            looks.fetch_add(1, Ordering::Relaxed);
                            false
                        });
                    }
                });
            }
        });
        // When it comes, when it is the first, and when its share is there.
        let looks = looks.into_inner();
        assert!(looks <= 3 * (THREADS * SHARES) as u64, "{looks} looks");
    }

    /// Urgent now and then, as its reader comes and goes.
    struct Changing(AtomicU64);

    impl Urgency for Changing {
        fn is_urgent(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed) % 3 == 0
        }
    }

    #[test]
    fn all_get_their_shares_whatever_becomes_urgent_without_a_word() {
        let pacer = Arc::new(Pacer::new(NonZeroU64::new(20_000_000)));
        let (ends, end) = mpsc::channel();
        for _ in 0..4 {
            let (pacer, ends) = (Arc::clone(&pacer), ends.clone());
            thread::spawn(move || {
                let fetch = Arc::new(Changing(AtomicU64::new(0))) as Arc<dyn Urgency>;
                let shares = (0..500).filter_map(|_| pacer.wait(5000, &fetch, || false));
                ends.send(shares.sum::<usize>()).unwrap();
            });
        }
        for _ in 0..4 {
            // The limit only ends a test that hangs: it takes half a second.
            assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(500 * 5000));
        }
    }

    #[test]
    fn a_fetch_does_not_overtake_others_of_its_class() {
        let pacer = Pacer::new(NonZeroU64::new(1_000_000));
        let low = fetch(false) as Arc<dyn Urgency>;
        pacer.state.lock().enter(&low, &Arc::default());
        assert_eq!(pacer.try_take(5, &*fetch(false)), None);
        assert_eq!(pacer.try_take(5, &*fetch(true)), Some(5));
    }

    #[test]
    fn a_waiting_fetch_is_interrupted_and_gets_no_share() {
        let (pacer, interrupted) = (used_up(), Arc::new(AtomicBool::new(false)));
        let waiting = [wait(&pacer, &interrupted), wait(&pacer, &interrupted)];
        interrupted.store(true, Ordering::Relaxed);
        pacer.recheck();
        assert_eq!(waiting.map(|thread| thread.join().unwrap()), [None, None]);
        assert!(pacer.state.lock().waiting.is_empty());
    }

    #[test]
    fn without_a_limit_all_that_wait_go_on() {
        let (pacer, interrupted) = (used_up(), Arc::new(AtomicBool::new(false)));
        let waiting = [wait(&pacer, &interrupted), wait(&pacer, &interrupted)];
        pacer.set_limit(None);
        assert_eq!(waiting.map(|thread| thread.join().unwrap()), [Some(5), Some(5)]);
    }

    #[test]
    fn what_a_read_did_not_get_is_left_for_others() {
        let pacer = used_up();
        pacer.give_back(1000);
        assert_eq!(pacer.try_take(1000, &*fetch(true)), Some(1000));
        assert_eq!(pacer.try_take(1000, &*fetch(true)), None);
    }
}
