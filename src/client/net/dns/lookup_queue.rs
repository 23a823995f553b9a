//! Which names are looked up next, and how many at once. Does no I/O and reads no clock.
//!
//! A name that hangs must not delay the others: a slow lookup no longer counts against the limit of lookups that run at once, and
//! one that hangs no longer against the limit of threads.
//!
//! A lookup whose query was lost is as silent as one that is slow. So a lookup without a result is repeated beside the first one,
//! and the first success counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Maximum number of concurrent lookups that are not slow.
pub(super) const MAX_PROMPT: usize = 4;

/// Maximum number of concurrent lookups, including slow ones, but not those that hang.
pub(super) const MAX_THREADS: usize = 32;

/// Maximum number of concurrent lookups, including those that hang. Only a resolver that never gives up gets here, with as many names.
pub(super) const MAX_HUNG_THREADS: usize = 128;

/// A lookup that has run for this long is slow. Most name servers answer within 100 ms.
const SLOW: Duration = Duration::from_millis(500);

/// A lookup that has run for this long hangs. By default the resolver of the system asks three name servers twice, and waits 5 s for
/// each answer.
const HUNG: Duration = Duration::from_secs(30);

/// Pause after which a lookup without a result is repeated in parallel: the shortest retransmission interval that RFC 1035, section
/// 4.2.1 recommends. Most systems repeat a lost query only after 5 s, when many a request has already failed.
const REPEAT_DELAY: Duration = Duration::from_secs(2);

/// Maximum number of lookups of one name at once on one network, so that a name server that is down gets few queries.
const MAX_OF_NAME: usize = 3;

#[derive(Debug, Default)]
pub(super) struct LookupQueue {
    /// Names that wait for a thread.
    queue: VecDeque<String>,
    /// Running lookups, one for each thread.
    running: Vec<Running>,
    /// Number of lookups started so far, which is the id of the last one.
    started: u64,
    /// Names in `queue`, and names with a running lookup whose result will be used.
    pending: HashSet<String>,
    /// Number of threads that wait for each name. Never zero.
    waiters: HashMap<String, usize>,
}

/// A running lookup.
#[derive(Debug)]
struct Running {
    id: u64,
    host: String,
    began: Instant,
    /// Its result is not used: the network has changed since it began, or another lookup of the name has succeeded.
    is_outdated: bool,
}

/// What may start now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A lookup of this name. It counts as running from now on, under this id.
    Name(String, u64),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until a lookup ends or a name is queued.
    Nothing,
}

impl LookupQueue {
    pub(super) fn begin_wait(&mut self, host: &str) {
        *self.waiters.entry(host.to_owned()).or_default() += 1;
    }

    pub(super) fn end_wait(&mut self, host: &str) {
        let Some(waiters) = self.waiters.get_mut(host) else { return };
        *waiters -= 1;
        if *waiters == 0 {
            self.waiters.remove(host);
        }
    }

    /// Queues a lookup of `host`, unless one is queued, or runs and is not to be repeated yet. Returns when to call this again, if a
    /// repetition may become due without the end of a lookup.
    pub(super) fn request(&mut self, host: &str, now: Instant) -> Option<Instant> {
        if self.pending.insert(host.to_owned()) {
            self.queue.push_back(host.to_owned());
            return None;
        }
        let last = self.current(host).map(|running| running.began).max()?;
        if self.current(host).count() >= MAX_OF_NAME || self.queue.iter().any(|queued| queued == host) {
            return None;
        }
        let due = last + REPEAT_DELAY;
        if now < due {
            return Some(due);
        }
        self.queue.push_back(host.to_owned());
        None
    }

    /// The running lookups of `host` whose results will be used.
    fn current<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Running> {
        self.running.iter().filter(move |running| !running.is_outdated && running.host == host)
    }

    /// The next name to look up, if a lookup may start now.
    pub(super) fn poll_start(&mut self, now: Instant) -> Start {
        // Names for which no thread waits any more are not looked up.
        while self.queue.front().is_some_and(|host| !self.waiters.contains_key(host)) {
            if let Some(given_up) = self.queue.pop_front() {
                self.settle(&given_up);
            }
        }
        if self.queue.is_empty() || self.running.len() >= MAX_HUNG_THREADS {
            return Start::Nothing;
        }
        let hung_at = self.running.iter().map(|running| running.began + HUNG).filter(|at| *at > now);
        if hung_at.clone().count() >= MAX_THREADS {
            return hung_at.min().map_or(Start::Nothing, Start::At);
        }
        // Slow ones do not count: a name server that hangs must not hold back the names of others.
        let slow_at = self.running.iter().map(|running| running.began + SLOW).filter(|at| *at > now);
        if slow_at.clone().count() >= MAX_PROMPT {
            return slow_at.min().map_or(Start::Nothing, Start::At);
        }
        let Some(host) = self.queue.pop_front() else { return Start::Nothing };
        self.started += 1;
        let running = Running { id: self.started, host: host.clone(), began: now, is_outdated: false };
        self.running.push(running);
        Start::Name(host, self.started)
    }

    /// Takes back the last start, of `host`, because no thread could be started for it. False if none runs that could look it up
    /// later; then it is no longer queued.
    pub(super) fn handle_not_started(&mut self, host: String) -> bool {
        // The one that `poll_start` added for `host`: the queue has been locked since.
        self.running.pop();
        if self.running.is_empty() {
            self.pending.remove(&host);
            return false;
        }
        // To the front, where it was: a thread whose lookup ends takes the next name from there.
        self.queue.push_front(host);
        true
    }

    /// Records the end of a lookup, with or without success. False if its result must not be used.
    pub(super) fn handle_end(&mut self, id: u64, succeeded: bool) -> bool {
        let Some(at) = self.running.iter().position(|running| running.id == id) else { return false };
        let ended = self.running.remove(at);
        if ended.is_outdated {
            return false;
        }
        if succeeded {
            // A failure of another lookup, which may follow much later, says nothing against this result.
            let others = self.running.iter_mut().filter(|running| running.host == ended.host);
            others.for_each(|running| running.is_outdated = true);
            self.queue.retain(|queued| *queued != ended.host);
        }
        self.settle(&ended.host);
        true
    }

    /// `host` is no longer pending if none of its lookups is left.
    fn settle(&mut self, host: &str) {
        if self.current(host).next().is_none() && !self.queue.iter().any(|queued| queued == host) {
            self.pending.remove(host);
        }
    }

    /// Running lookups may hang on the old network, so they are no longer pending: the waiting threads request them again.
    pub(super) fn handle_network_change(&mut self) {
        self.running.iter_mut().for_each(|running| running.is_outdated = true);
        self.pending = self.queue.iter().cloned().collect();
    }
}

#[cfg(test)]
impl LookupQueue {
    /// Number of lookups started so far.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// True if no name is queued or running, and no thread waits for one.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.waiters.is_empty() && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lookups start now, and what comes next.
    fn started(queue: &mut LookupQueue, now: Instant) -> (usize, Start) {
        let mut count = 0;
        loop {
            match queue.poll_start(now) {
                Start::Name(..) => count += 1,
                next => return (count, next),
            }
        }
    }

    #[test]
    fn lookups_that_hang_do_not_hold_back_other_names_for_longer_than_that() {
        let mut now = Instant::now();
        let mut queue = LookupQueue::default();
        for name in 0..MAX_HUNG_THREADS {
            let host = name.to_string();
            queue.begin_wait(&host);
            queue.request(&host, now);
        }
        queue.begin_wait("other");
        queue.request("other", now);
        while queue.running.len() < MAX_HUNG_THREADS {
            match started(&mut queue, now).1 {
                Start::At(at) => now = at,
                next => assert_eq!((next, queue.running.len()), (Start::Nothing, MAX_HUNG_THREADS)),
            }
        }
        // The threads that hang are limited, too.
        assert_eq!(started(&mut queue, now + 10 * HUNG), (0, Start::Nothing));
        let id = queue.running[0].id;
        assert!(queue.handle_end(id, true));
        assert!(matches!(queue.poll_start(now + 10 * HUNG), Start::Name(host, _) if host == "other"));
    }

    #[test]
    fn lookup_threads_are_limited_and_abandoned_names_need_none() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        for name in 0..100 {
            let host = name.to_string();
            queue.begin_wait(&host);
            queue.request(&host, now);
        }
        let counts: Vec<_> = (0..10).map(|step| started(&mut queue, now + step * SLOW)).collect();
        let prompt = |step: u32| (4, Start::At(now + (step + 1) * SLOW));
        assert_eq!(counts[..7], (0..7).map(prompt).collect::<Vec<_>>());
        // All threads are taken, until the first lookup hangs.
        assert_eq!(
            counts[7..],
            [(4, Start::At(now + HUNG)), (0, Start::At(now + HUNG)), (0, Start::At(now + HUNG))]
        );
        assert_eq!(queue.running.len(), MAX_THREADS);
        (0..100).for_each(|name| queue.end_wait(&name.to_string()));
        let id = queue.running[0].id;
        assert!(queue.handle_end(id, true));
        assert_eq!(queue.poll_start(now + 20 * SLOW), Start::Nothing);
        assert!(queue.queue.is_empty());
    }

    #[test]
    fn a_hanging_lookup_of_the_old_network_is_not_waited_for() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        queue.begin_wait("host");
        queue.request("host", now);
        let Start::Name(_, old) = queue.poll_start(now) else { panic!("nothing is running") };
        queue.request("host", now);
        assert_eq!(queue.poll_start(now), Start::Nothing);
        queue.handle_network_change();
        queue.request("host", now);
        let Start::Name(_, new) = queue.poll_start(now) else { panic!("the old one is waited for") };
        assert!(queue.handle_end(new, true), "the result of the new network is used");
        assert!(!queue.handle_end(old, true), "the result of the old network is not used");
    }

    /// Requests "host" whenever that is due, for a minute. Returns the seconds after which lookups started, and their ids.
    fn starts_in_a_minute(queue: &mut LookupQueue, begin: Instant) -> Vec<(u64, u64)> {
        let (mut starts, mut now) = (Vec::new(), begin);
        while now < begin + Duration::from_secs(60) {
            let again = queue.request("host", now);
            if let Start::Name(_, id) = queue.poll_start(now) {
                starts.push(((now - begin).as_secs(), id));
                continue;
            }
            let Some(again) = again else { break };
            assert!(again > now);
            now = again;
        }
        starts
    }

    #[test]
    fn a_lookup_without_a_result_is_repeated_twice_and_the_first_success_counts() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        queue.begin_wait("host");
        assert_eq!(starts_in_a_minute(&mut queue, now), [(0, 1), (2, 2), (4, 3)]);
        assert!(queue.handle_end(1, false), "a failure is used as well");
        // The others still run, so another one starts only in the place of the first.
        assert_eq!(starts_in_a_minute(&mut queue, now + 3 * REPEAT_DELAY), [(0, 4)]);
        assert!(queue.handle_end(3, true));
        assert!(!queue.handle_end(2, false) && !queue.handle_end(4, true), "the first success counts");
        queue.end_wait("host");
        assert!(queue.is_idle());
    }

    #[test]
    fn a_repetition_that_is_queued_ends_with_the_success_of_the_lookup() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        queue.begin_wait("host");
        queue.request("host", now);
        assert_eq!(queue.poll_start(now), Start::Name("host".into(), 1));
        assert_eq!(queue.request("host", now + REPEAT_DELAY), None);
        assert!(queue.handle_end(1, true));
        assert_eq!(queue.poll_start(now + REPEAT_DELAY), Start::Nothing);
        queue.end_wait("host");
        assert!(queue.is_idle());
    }

    #[test]
    fn a_repetition_without_a_waiting_thread_leaves_the_lookup_pending() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        queue.begin_wait("host");
        queue.request("host", now);
        assert_eq!(queue.poll_start(now), Start::Name("host".into(), 1));
        queue.request("host", now + REPEAT_DELAY);
        queue.end_wait("host");
        assert_eq!(queue.poll_start(now + REPEAT_DELAY), Start::Nothing);
        queue.begin_wait("host");
        assert_eq!(queue.request("host", now + REPEAT_DELAY / 2), Some(now + REPEAT_DELAY));
        assert_eq!(queue.poll_start(now + REPEAT_DELAY / 2), Start::Nothing);
    }

    #[test]
    fn a_name_without_a_thread_waits_for_a_running_lookup_or_fails() {
        let now = Instant::now();
        let mut queue = LookupQueue::default();
        let start = |queue: &mut LookupQueue, host: &str| {
            queue.begin_wait(host);
            queue.request(host, now);
            assert!(matches!(queue.poll_start(now), Start::Name(started, _) if started == host));
        };
        start(&mut queue, "first");
        start(&mut queue, "second");
        assert!(queue.handle_not_started("second".into()));
        let Start::Name(host, _) = queue.poll_start(now) else { panic!("it is queued again") };
        assert_eq!(host, "second");
        assert!(queue.handle_not_started(host));
        assert!(queue.handle_end(1, true));
        assert!(matches!(queue.poll_start(now), Start::Name(host, _) if host == "second"));
        assert!(!queue.handle_not_started("second".into()), "no lookup runs that could take it over");
        assert_eq!(queue.poll_start(now), Start::Nothing);
    }
}
