//! Whether an origin needs another connection that is opened before it is used. Pure: opens nothing and reads no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A dial that has taken this long is slow: most likely the host does not answer. It no longer delays the dials to others, and
/// its origin gets no second one. Even a handshake of three round trips takes less over a satellite (600 ms each).
pub(super) const SLOW_DIAL: Duration = Duration::from_secs(1);

/// Time without preconnects after an origin has refused a connection as one too many. Servers limit connections over about this
/// time (nginx `limit_conn`, fail2ban and others work in minutes).
pub(super) const REFUSED: Duration = Duration::from_secs(60);

/// Time without preconnects after a failure. In an outage an attempt begins it again every 8 s at least, so it ends only where no
/// request fails any more, but none needs a new connection either: all go over kept ones, which do not show that new ones work.
pub(super) const FAILED: Duration = Duration::from_secs(30);

/// What is wanted of one origin, and what its dials have shown.
#[derive(Debug)]
pub(super) struct Demand {
    /// The [`PoolGuard`](super::preconnect::PoolGuard)s of this origin: how many ask for this number of connections.
    holders: BTreeMap<usize, usize>,
    /// Number of connections that should be ready while the origin is in use.
    wanted: usize,
    /// Connections that were closed in the middle of a body, less the dials since. At most one for each holder.
    cut: usize,
    /// Dials to this origin on the current network: their ids, and when they began.
    dialling: Vec<(u64, Instant)>,
    /// Last time that a connection was requested. An origin that has not been used for a while is no longer dialled.
    used: Instant,
    /// When a dial failed, or a request got no answer, unless a new connection has brought one since. For [`FAILED`] from then on
    /// each request dials for itself: a second dial beside it would only show the same.
    failed_at: Option<Instant>,
    /// When a new connection last brought an answer, or the network changed. Attempts that began before show nothing of the time
    /// after it when they fail.
    proven_at: Option<Instant>,
    /// End of the time without preconnects after a refusal.
    refused_until: Option<Instant>,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            holders: BTreeMap::new(),
            wanted: 0,
            cut: 0,
            dialling: Vec::new(),
            used: now,
            failed_at: None,
            proven_at: None,
            refused_until: None,
        }
    }

    /// Sets the number of connections that should be ready while the origin is in use.
    pub(super) fn want(&mut self, ready: usize, now: Instant) {
        self.wanted = ready;
        self.handle_request(now);
        // The caller wants it now, and the host may be reachable again.
        self.failed_at = None;
    }

    /// Adds a holder, which keeps `ready` connections ready for as long as the origin is in use.
    pub(super) fn add_holder(&mut self, ready: usize, now: Instant) {
        *self.holders.entry(ready).or_default() += 1;
        self.used = now;
    }

    /// Number of holders. Each stands for an open stream, which needs a connection again.
    pub(super) fn holders(&self) -> usize {
        self.holders.values().sum()
    }

    pub(super) fn remove_holder(&mut self, ready: usize) {
        if let Some(holders) = self.holders.get_mut(&ready) {
            *holders = holders.saturating_sub(1);
        }
        self.holders.retain(|_, holders| *holders > 0);
        self.cut = self.cut.min(self.holders());
    }

    /// The connection of a holder was closed in the middle of a body. It will need one again.
    pub(super) fn handle_cut(&mut self) {
        self.cut = (self.cut + 1).min(self.holders());
    }

    pub(super) fn handle_request(&mut self, now: Instant) {
        self.used = now;
    }

    /// An attempt that began at `began` could not connect, or its connection broke without an answer.
    pub(super) fn handle_failed(&mut self, began: Instant, now: Instant) {
        if self.proven_at.is_none_or(|proven_at| proven_at <= began) {
            self.failed_at = Some(now);
        }
    }

    /// A new connection has brought an answer. True if the origin had failed before.
    pub(super) fn handle_answered(&mut self, now: Instant) -> bool {
        self.proven_at = Some(now);
        self.failed_at.take().is_some()
    }

    pub(super) fn handle_dial(&mut self, id: u64, now: Instant) {
        self.cut = self.cut.saturating_sub(1);
        self.dialling.push((id, now));
    }

    /// Records the result of a dial.
    pub(super) fn handle_dialled(&mut self, id: u64, is_opened: bool, now: Instant) {
        // A dial that began on another network is no longer among them, and shows nothing about this one.
        if let Some(at) = self.dialling.iter().position(|(dial, _)| *dial == id) {
            let (_, began) = self.dialling.remove(at);
            // One that is opened shows little: a load balancer accepts connections also while its servers are down.
            if !is_opened {
                self.handle_failed(began, now);
            }
        }
    }

    pub(super) fn handle_refused(&mut self, now: Instant) {
        self.refused_until = Some(now + REFUSED);
    }

    /// Forgets what the dials on the old network have shown.
    pub(super) fn change_network(&mut self, now: Instant) {
        self.failed_at = None;
        self.proven_at = Some(now);
        self.refused_until = None;
        self.cut = 0;
        self.dialling.clear();
    }

    /// Number of connections that should be ready. The same ones serve all holders.
    pub(super) fn wanted(&self) -> usize {
        let held = self.holders.last_key_value().map_or(0, |(ready, _)| *ready);
        self.wanted.max(held)
    }

    /// True if a dial should start while `ready` connections are idle. `max_age` is the time after which an origin without
    /// requests is no longer in use.
    pub(super) fn is_unmet(&self, ready: usize, max_age: Duration, now: Instant) -> bool {
        let is_slow = self.slow_at().any(|slow_at| slow_at <= now);
        let is_hopeless = self.has_failed(now) || is_slow || self.is_refused(now);
        // Others of the idle ones are for the streams whose connections they were.
        let wanted = if self.cut > 0 { self.wanted().max(self.holders()) } else { self.wanted() };
        ready + self.dialling.len() < wanted && !is_hopeless && self.used + max_age > now
    }

    /// True if there is something to remember.
    pub(super) fn is_in_use(&self, max_age: Duration, now: Instant) -> bool {
        // A refusal is remembered even if the origin is unused: otherwise it would be preconnected again.
        !(self.holders.is_empty() && self.dialling.is_empty())
            || self.used + max_age > now
            || self.is_refused(now)
    }

    /// Number of running dials.
    pub(super) fn dials(&self) -> usize {
        self.dialling.len()
    }

    /// The time at which each running dial becomes slow, or became it.
    pub(super) fn slow_at(&self) -> impl Iterator<Item = Instant> + '_ {
        self.dialling.iter().map(|(_, began)| *began + SLOW_DIAL)
    }

    fn has_failed(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|failed_at| failed_at + FAILED > now)
    }

    fn is_refused(&self, now: Instant) -> bool {
        self.refused_until.is_some_and(|until| until > now)
    }
}
