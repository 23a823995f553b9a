//! Connections that serve nobody just now, by origin: kept alive after a request, or opened before one. Opens nothing,
//! closes nothing and reads no clock: what it no longer keeps it returns, to be closed outside every lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::http::Uri;

/// Where a connection leads: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// `None` for what is no http or https URL.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Some(Self { is_tls, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) per_origin: usize,
    pub(super) over_all: usize,
    /// A connection idle for longer is closed; common servers close theirs after a minute.
    pub(super) max_age: Duration,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Stock<C> {
    limits: Limits,
    shelves: HashMap<Origin, Shelf<C>>,
}

#[derive(Debug)]
struct Shelf<C> {
    /// Those that have been idle longest come first.
    ready: VecDeque<(C, Instant)>,
    /// How many should be ready for those who keep the origin warm.
    kept_warm: usize,
    /// How many should be ready while the origin is used.
    wanted: usize,
    /// Connections being opened for here.
    dialling: usize,
    /// The last time that somebody wanted a connection. Long unused, an origin is not dialled any more.
    used: Instant,
    /// Opening one failed, and nobody has used the origin since.
    failed: bool,
    /// New connections in a row that got no answer while one that had served others did.
    unanswered: u32,
    /// The origin answers one connection at a time: others wait until it is closed. It is not found out again.
    serial: Arc<AtomicBool>,
}

/// So many new connections without an answer, and the origin is taken for one that answers one at a time: a single one may
/// have lost a packet.
const UNANSWERED: u32 = 2;

impl<C> Stock<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, shelves: HashMap::new() }
    }

    fn shelf(&mut self, origin: &Origin, now: Instant) -> &mut Shelf<C> {
        self.shelves.entry(origin.clone()).or_insert_with(|| Shelf {
            ready: VecDeque::new(),
            kept_warm: 0,
            wanted: 0,
            dialling: 0,
            used: now,
            failed: false,
            unanswered: 0,
            serial: Arc::default(),
        })
    }

    /// The connection to `origin` that became idle last and is as `is_wanted`, if there is one; and those that have grown
    /// too old.
    pub(super) fn checkout(
        &mut self,
        origin: &Origin,
        is_wanted: impl Fn(&C) -> bool,
        now: Instant,
    ) -> (Option<C>, Vec<C>) {
        let old = self.expire(now);
        let Some(shelf) = self.shelves.get_mut(origin) else { return (None, old) };
        shelf.used = now;
        shelf.failed = false;
        let last = shelf.ready.iter().rposition(|(connection, _)| is_wanted(connection));
        (last.and_then(|at| shelf.ready.remove(at)).map(|(connection, _)| connection), old)
    }

    /// True if a connection to `origin` is ready and as `is_wanted`.
    pub(super) fn has(&self, origin: &Origin, is_wanted: impl Fn(&C) -> bool) -> bool {
        self.shelves
            .get(origin)
            .is_some_and(|shelf| shelf.ready.iter().any(|(connection, _)| is_wanted(connection)))
    }

    /// Notes that a new connection to `origin` got no answer while one that had served others did. True if the origin is
    /// now known to answer one at a time.
    pub(super) fn note_unanswered(&mut self, origin: &Origin) -> bool {
        let Some(shelf) = self.shelves.get_mut(origin) else { return false };
        shelf.unanswered += 1;
        shelf.unanswered == UNANSWERED && !shelf.serial.swap(true, Ordering::Relaxed)
    }

    /// Notes that a new connection to `origin` got an answer.
    pub(super) fn note_answered(&mut self, origin: &Origin) {
        if let Some(shelf) = self.shelves.get_mut(origin) {
            shelf.unanswered = 0;
        }
    }

    /// Keeps an idle connection. Returns what has to go for it.
    pub(super) fn put(&mut self, origin: &Origin, connection: C, now: Instant) -> Vec<C> {
        let mut gone = self.expire(now);
        let per_origin = self.limits.per_origin;
        let shelf = self.shelf(origin, now);
        shelf.ready.push_back((connection, now));
        if shelf.ready.len() > per_origin {
            gone.extend(shelf.ready.pop_front().map(|(connection, _)| connection));
        }
        if self.idle() > self.limits.over_all {
            gone.extend(self.pop_oldest());
        }
        gone
    }

    /// Wants so many connections to `origin` ready while it is used.
    pub(super) fn want(&mut self, origin: &Origin, ready: usize, now: Instant) {
        let ready = ready.min(self.limits.per_origin);
        let shelf = self.shelf(origin, now);
        shelf.wanted = ready;
        shelf.used = now;
        shelf.failed = false;
    }

    /// One more, or one less, who keeps the origin warm: one connection stands ready for all of them. Returns what becomes
    /// true if the origin is found to answer one connection at a time.
    pub(super) fn keep_warm(&mut self, origin: &Origin, keep: bool, now: Instant) -> Arc<AtomicBool> {
        let shelf = self.shelf(origin, now);
        if keep {
            shelf.kept_warm += 1;
            shelf.used = now;
        } else {
            shelf.kept_warm = shelf.kept_warm.saturating_sub(1);
        }
        Arc::clone(&shelf.serial)
    }

    /// An origin to open a connection to now; [`handle_dialled`](Self::handle_dialled) says what became of it.
    pub(super) fn poll_dial(&mut self, now: Instant) -> Option<Origin> {
        let max_age = self.limits.max_age;
        let busy: usize = self.shelves.values().map(|shelf| shelf.ready.len() + shelf.dialling).sum();
        if busy >= self.limits.over_all {
            return None;
        }
        let (origin, shelf) = self.shelves.iter_mut().find(|(_, shelf)| shelf.lacks(now, max_age))?;
        shelf.dialling += 1;
        Some(origin.clone())
    }

    /// Notes that the opening of a connection to `origin` has ended.
    pub(super) fn handle_dialled(&mut self, origin: &Origin, opened: bool) {
        if let Some(shelf) = self.shelves.get_mut(origin) {
            shelf.dialling = shelf.dialling.saturating_sub(1);
            shelf.failed = !opened;
        }
    }

    /// True if a connection to `origin` is ready.
    pub(super) fn is_ready(&self, origin: &Origin, now: Instant) -> bool {
        let newest = self.shelves.get(origin).and_then(|shelf| shelf.ready.back());
        newest.is_some_and(|(_, since)| *since + self.limits.max_age > now)
    }

    /// Lets go of what leads to `origin`, or of all.
    pub(super) fn clear(&mut self, origin: Option<&Origin>) -> Vec<C> {
        let shelves = self.shelves.iter_mut().filter(|(key, _)| origin.is_none_or(|origin| *key == origin));
        shelves.flat_map(|(_, shelf)| shelf.ready.drain(..)).map(|(connection, _)| connection).collect()
    }

    /// Connections that are ready, to all origins.
    pub(super) fn idle(&self) -> usize {
        self.shelves.values().map(|shelf| shelf.ready.len()).sum()
    }

    /// Takes out what has grown too old, and forgets origins that nobody uses.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<C> {
        let max_age = self.limits.max_age;
        let mut gone = Vec::new();
        for shelf in self.shelves.values_mut() {
            while shelf.ready.front().is_some_and(|(_, since)| *since + max_age <= now) {
                gone.extend(shelf.ready.pop_front().map(|(connection, _)| connection));
            }
        }
        self.shelves.retain(|_, shelf| {
            !shelf.ready.is_empty() || shelf.kept_warm + shelf.dialling > 0 || shelf.used + max_age > now
        });
        gone
    }

    fn pop_oldest(&mut self) -> Option<C> {
        let since = |shelf: &&mut Shelf<C>| shelf.ready.front().map(|(_, since)| *since);
        let shelves = self.shelves.values_mut().filter(|shelf| !shelf.ready.is_empty());
        let oldest = shelves.min_by_key(|shelf| since(shelf))?;
        oldest.ready.pop_front().map(|(connection, _)| connection)
    }
}

impl<C> Shelf<C> {
    fn lacks(&self, now: Instant, max_age: Duration) -> bool {
        let wanted = self.wanted.max(self.kept_warm.min(1));
        // One that waits for the other to be closed is of no use.
        if self.serial.load(Ordering::Relaxed) {
            return false;
        }
        self.ready.len() + self.dialling < wanted && !self.failed && self.used + max_age > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(45);

    fn stock() -> Stock<u32> {
        Stock::new(Limits { per_origin: 3, over_all: 4, max_age: AGE })
    }

    fn origin(host: &str) -> Origin {
        Origin { is_tls: false, host: host.into(), port: 80 }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(of("http://Host/a"), of("http://host:80/b?c"));
        assert_ne!(of("http://host/"), of("https://host/"));
        assert_ne!(of("http://host/"), of("http://host:8080/"));
        assert_eq!(of("ftp://host/"), None);
    }

    #[test]
    fn the_last_one_that_became_idle_is_taken_and_old_ones_go() {
        let now = Instant::now();
        let (mut stock, a) = (stock(), origin("a"));
        assert_eq!(stock.checkout(&a, |_| true, now), (None, vec![]));
        stock.put(&a, 1, now);
        stock.put(&a, 2, now + AGE / 2);
        assert!(stock.is_ready(&a, now + AGE));
        assert_eq!(stock.checkout(&a, |_| true, now + AGE), (Some(2), vec![1]));
        assert_eq!(stock.checkout(&a, |_| true, now + AGE), (None, vec![]));
    }

    #[test]
    fn limits_hold_for_each_origin_and_over_all() {
        let now = Instant::now();
        let (mut stock, a, b) = (stock(), origin("a"), origin("b"));
        for connection in 1..=3 {
            assert_eq!(stock.put(&a, connection, now), []);
        }
        assert_eq!(stock.put(&a, 4, now), [1]);
        assert_eq!(stock.put(&b, 5, now + AGE / 4), []);
        assert_eq!(stock.put(&b, 6, now + AGE / 4), [2]);
        assert_eq!(stock.idle(), 4);
    }

    #[test]
    fn what_is_wanted_is_dialled_once_and_again_after_a_checkout() {
        let now = Instant::now();
        let (mut stock, a) = (stock(), origin("a"));
        assert_eq!(stock.poll_dial(now), None);
        stock.want(&a, 2, now);
        assert_eq!(stock.poll_dial(now), Some(a.clone()));
        assert_eq!(stock.poll_dial(now), Some(a.clone()));
        assert_eq!(stock.poll_dial(now), None);
        for connection in [1, 2] {
            stock.handle_dialled(&a, true);
            stock.put(&a, connection, now);
        }
        assert_eq!(stock.poll_dial(now), None);
        assert_eq!(stock.checkout(&a, |_| true, now), (Some(2), vec![]));
        assert_eq!(stock.poll_dial(now), Some(a));
    }

    #[test]
    fn nothing_is_dialled_for_an_origin_that_fails_or_that_nobody_uses() {
        let now = Instant::now();
        let (mut stock, a) = (stock(), origin("a"));
        stock.keep_warm(&a, true, now);
        assert_eq!(stock.poll_dial(now), Some(a.clone()));
        stock.handle_dialled(&a, false);
        assert_eq!(stock.poll_dial(now), None);
        stock.checkout(&a, |_| true, now + AGE / 2);
        assert_eq!(stock.poll_dial(now + 2 * AGE), None);
        assert_eq!(stock.poll_dial(now + AGE), Some(a.clone()));
        stock.handle_dialled(&a, true);
        stock.keep_warm(&a, false, now + AGE);
        assert_eq!(stock.poll_dial(now + AGE), None);
    }

    #[test]
    fn nothing_is_dialled_for_an_origin_that_answers_one_at_a_time() {
        let now = Instant::now();
        let (mut stock, a) = (stock(), origin("a"));
        let serial = stock.keep_warm(&a, true, now);
        assert!(!stock.note_unanswered(&a));
        stock.note_answered(&a);
        assert!(!stock.note_unanswered(&a));
        assert_eq!(stock.poll_dial(now), Some(a.clone()));
        stock.handle_dialled(&a, true);
        assert!(stock.note_unanswered(&a) && serial.load(Ordering::Relaxed));
        assert_eq!(stock.poll_dial(now), None);
        // A new one that is answered had the server for itself.
        stock.note_answered(&a);
        assert!(stock.keep_warm(&a, true, now).load(Ordering::Relaxed));
    }

    #[test]
    fn what_is_wanted_is_taken_from_behind_what_is_not() {
        let now = Instant::now();
        let (mut stock, a) = (stock(), origin("a"));
        drop(stock.put(&a, 1, now));
        drop(stock.put(&a, 2, now));
        assert!(
            stock.has(&a, |connection| *connection == 1) && !stock.has(&a, |connection| *connection == 3)
        );
        assert_eq!(stock.checkout(&a, |connection| *connection == 1, now).0, Some(1));
        assert_eq!(stock.checkout(&a, |connection| *connection == 1, now).0, None);
    }

    #[test]
    fn a_cleared_stock_gives_all_back_and_is_filled_again() {
        let now = Instant::now();
        let (mut stock, a, b) = (stock(), origin("a"), origin("b"));
        stock.want(&a, 1, now);
        stock.put(&a, 1, now);
        stock.put(&b, 2, now);
        assert_eq!(stock.clear(Some(&b)), [2]);
        assert_eq!(stock.clear(None), [1]);
        assert_eq!(stock.poll_dial(now), Some(a));
    }
}
