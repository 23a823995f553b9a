//! A network, readers and a plan in virtual time, to compare the plan of `src/source/file/plan.rs` with others on recorded traces. The
//! simulator jumps from event to event, never sleeps, and returns the same figures each time.
//!
//! The network has slow start: a connection sends no more than its window in a round trip, and the window doubles. As in
//! `tests/support/link.rs`, no packet is lost. The suffix request is a transfer beside the opening.
//!
//! Used by `tests/plan.rs`, which checks limits, and by `benches/plan.rs`, which prints a table.
#![allow(dead_code, unreachable_pub, reason = "the test and the bench use a part of it each")]

pub mod planners;
pub mod traces;

use std::f64::consts::LN_2;
use std::ops::Range;

use crate::storage::RangeSet;
use traces::Trace;

/// Seconds since the beginning.
pub type Time = f64;

/// Properties of the simulated network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Seconds from a request to its first byte over an open connection. A new connection takes as long again.
    pub rtt: Time,
    /// Bytes a second, shared equally by all transfers.
    pub rate: f64,
    /// Most seconds that are added to the round trip of a request.
    pub jitter: Time,
}

/// What a plan decides.
#[derive(Clone, Debug)]
pub enum Action {
    Start { range: Range<u64>, urgent: bool },
    Cancel { transfer: usize },
}

/// A transfer, as a plan sees it.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub id: usize,
    pub next: u64,
    pub end: u64,
    pub urgent: bool,
    /// Time at which its first byte arrives.
    begins: Time,
    has_begun: bool,
    /// Bytes that its connection may have in flight.
    window: f64,
    /// The fraction of a byte that has arrived.
    partial: f64,
}

/// A connection without a transfer.
#[derive(Clone, Copy, Debug)]
struct Idle {
    /// Time from which it can be used. In the future while it is being opened.
    since: Time,
    window: f64,
}

/// A reader, as a plan sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    pub position: u64,
    pub waiting: bool,
    /// Bytes read in sequence.
    pub run: u64,
}

/// The state that a plan sees.
pub struct World {
    pub readers: Vec<Reader>,
    pub available: RangeSet,
    pub transfers: Vec<Transfer>,
    pub len: u64,
    pub net: Net,
    pub now: Time,
    /// Connections of transfers that ended, and preconnected ones.
    idle: Vec<Idle>,
    next_id: usize,
    dice: u64,
}

/// Decides what to fetch. Asked after each event, until it returns `None`.
pub trait Planner {
    fn plan(&mut self, world: &World) -> Option<Action>;

    /// Called when a reader seeks: its next read does not begin where the last one ended.
    fn handle_jump(&mut self, _reader: usize, _to: u64) {}

    /// True if a connection is to be preconnected whenever none is idle, from the first response on.
    fn keeps_warm(&self) -> bool {
        false
    }
}

/// Results of a simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Number of reads that had to wait, and the sum of their seconds.
    pub stalls: u32,
    pub stalled: Time,
    /// The longest wait for a byte.
    pub worst: Time,
    pub fetched: u64,
    /// Number of different bytes that were read.
    pub read: u64,
    pub requests: u32,
    pub connections: u32,
}

/// A reader and its progress in its trace.
struct Playing<'a> {
    trace: &'a Trace,
    step: usize,
    /// Bytes of the current step that were read.
    done: u64,
    /// Time at which the current step begins, if it has not begun.
    begins: Time,
    waits_since: Option<Time>,
    /// True if the current step had to wait.
    has_waited: bool,
}

/// Most parallel transfers, and the bytes that arrive together: a packet.
const WORKERS: usize = 6;
const ARRIVAL: u64 = 1460;

/// The window of a new connection (RFC 6928).
pub const INITIAL_WINDOW: f64 = 10.0 * 1448.0;

/// A window is halved for each such time, and a round trip, without traffic (RFC 5681, 4.1, as Linux does it).
const RETRANSMISSION_TIMEOUT: Time = 0.2;

impl World {
    fn roll(&mut self) -> f64 {
        // A linear congruential generator is random enough for jitter.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn carry_out(&mut self, action: Action, figures: &mut Figures) {
        match action {
            Action::Cancel { transfer } => self.transfers.retain(|other| other.id != transfer),
            Action::Start { range, urgent } => {
                let ready = self.idle.iter().rposition(|idle| idle.since <= self.now);
                let ready = ready.map(|at| self.idle.remove(at));
                figures.connections += u32::from(ready.is_none());
                let trips = if ready.is_none() { 2.0 } else { 1.0 };
                let window = ready.map_or(INITIAL_WINDOW, |idle| self.rested(idle));
                let begins = self.now + self.net.rtt * trips + self.net.jitter * self.roll();
                figures.requests += 1;
                let id = self.next_id;
                self.next_id += 1;
                let (next, end) = (range.start, range.end.min(self.len));
                let has_begun = false;
                self.transfers.push(Transfer {
                    id,
                    next,
                    end,
                    urgent,
                    begins,
                    has_begun,
                    window,
                    partial: 0.0,
                });
            }
        }
    }

    /// Opens a connection if none is idle or about to be.
    fn preconnect(&mut self, figures: &mut Figures) {
        if self.idle.is_empty() {
            self.idle.push(Idle { since: self.now + self.net.rtt, window: INITIAL_WINDOW });
            figures.connections += 1;
        }
    }

    /// The window of a connection after its idle time.
    fn rested(&self, idle: Idle) -> f64 {
        let timeouts = ((self.now - idle.since) / (self.net.rtt + RETRANSMISSION_TIMEOUT)).floor();
        (idle.window / timeouts.exp2()).max(INITIAL_WINDOW)
    }

    /// Bytes a second of each transfer: an equal share of the link, or less if its window allows less.
    fn rates(&self) -> Vec<f64> {
        let allowed = |transfer: &Transfer| {
            if transfer.has_begun { transfer.window / self.net.rtt } else { 0.0 }
        };
        let mut order: Vec<(usize, f64)> = self.transfers.iter().map(allowed).enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let (mut rates, mut left, count) = (vec![0.0; order.len()], self.net.rate, order.len());
        for (done, (index, allowed)) in order.into_iter().enumerate() {
            rates[index] = allowed.min(left / (count - done) as f64);
            left -= rates[index];
        }
        rates
    }

    /// Time at which the next bytes arrive, if any are in flight.
    fn next_arrival(&self) -> Option<Time> {
        let arrival = |(transfer, rate): (&Transfer, f64)| {
            // The last packet of a transfer is short. After it the link is free for other transfers.
            let bytes = ARRIVAL.min(transfer.end - transfer.next) as f64 - transfer.partial;
            if transfer.has_begun { self.now + bytes.max(0.0) / rate } else { transfer.begins }
        };
        self.transfers.iter().zip(self.rates()).map(arrival).min_by(f64::total_cmp)
    }

    /// Advances the time to `until`, and stores the bytes that arrive.
    fn pass(&mut self, until: Time, figures: &mut Figures) {
        let rates = self.rates();
        for (transfer, rate) in
            self.transfers.iter_mut().zip(rates).filter(|(transfer, _)| transfer.has_begun)
        {
            // A millionth of a byte makes up for the rounding of times.
            transfer.partial += rate * (until - self.now) + 1e-6;
            let end = (transfer.next + transfer.partial as u64).min(transfer.end);
            transfer.partial = transfer.partial.fract();
            figures.fetched += end - transfer.next;
            self.available.insert(transfer.next..end);
            // The window doubles each round trip. RFC 7661: an unused window does not grow.
            if rate >= transfer.window / self.net.rtt {
                transfer.window += (end - transfer.next) as f64 * LN_2;
            }
            transfer.next = end;
        }
        self.now = until;
        let now = self.now;
        self.transfers.iter_mut().for_each(|transfer| transfer.has_begun |= transfer.begins <= now);
        // A transfer that has ended leaves its connection idle.
        let ended = self.transfers.iter().filter(|transfer| transfer.next >= transfer.end);
        self.idle.extend(ended.map(|transfer| Idle { since: now, window: transfer.window }));
        self.transfers.retain(|transfer| transfer.next < transfer.end);
    }
}

impl Playing<'_> {
    /// Target of the reader's seek, if its next read does not begin where the last one ended.
    fn jump(&self, reader: &Reader, now: Time) -> Option<u64> {
        let step = self.trace.steps.get(self.step).filter(|_| now + 1e-9 >= self.begins)?;
        Some(step.at + self.done).filter(|at| *at != reader.position)
    }

    /// Reads the bytes that are there. True if the reader made progress.
    fn advance(&mut self, reader: &mut Reader, world: (&RangeSet, u64, Time), figures: &mut Figures) -> bool {
        let (available, file_len, now) = world;
        let Some(step) = self.trace.steps.get(self.step) else {
            reader.waiting = false;
            return false;
        };
        if now + 1e-9 < self.begins {
            return false;
        }
        let end = (step.at + step.len).min(file_len);
        let at = step.at + self.done;
        if reader.position != at {
            *reader = Reader { position: at, waiting: false, run: 0 };
        }
        let until = available.run_from(at).min(end);
        if until > at {
            if let Some(since) = self.waits_since.take() {
                let waited = now - since;
                figures.stalled += waited;
                figures.worst = figures.worst.max(waited);
            }
            *reader = Reader { position: until, waiting: false, run: reader.run + until - at };
            self.done += until - at;
        }
        if at >= end || until >= end {
            self.step += 1;
            self.done = 0;
            self.has_waited = false;
            self.begins = now + self.trace.steps.get(self.step).map_or(0.0, |next| next.after);
            return true;
        }
        if !reader.waiting {
            reader.waiting = true;
            self.waits_since = Some(now);
            figures.stalls += u32::from(!std::mem::replace(&mut self.has_waited, true));
            return true;
        }
        until > at
    }
}

/// Runs the traces, one reader each, with a plan.
pub fn simulate(net: Net, len: u64, traces: &[Trace], planner: &mut dyn Planner) -> Figures {
    let mut world = World {
        readers: vec![Reader::default(); traces.len()],
        available: RangeSet::default(),
        transfers: Vec::new(),
        len,
        net,
        now: 0.0,
        idle: Vec::new(),
        next_id: 0,
        dice: 7,
    };
    let mut figures = Figures::default();
    let begin =
        |trace| Playing { trace, step: 0, done: 0, begins: 0.0, waits_since: None, has_waited: false };
    let mut playing: Vec<Playing<'_>> = traces.iter().map(begin).collect();
    while playing.iter().any(|reader| reader.step < reader.trace.steps.len()) {
        let mut moved = false;
        for (index, (reader, playing)) in world.readers.iter_mut().zip(&mut playing).enumerate() {
            loop {
                if let Some(to) = playing.jump(reader, world.now) {
                    planner.handle_jump(index, to);
                }
                if !playing.advance(reader, (&world.available, len, world.now), &mut figures) {
                    break;
                }
                moved = true;
            }
        }
        let mut asked = 0;
        while let Some(action) = planner.plan(&world) {
            world.carry_out(action, &mut figures);
            asked += 1;
            assert!(asked < 1000, "the plan never comes to an end");
        }
        if planner.keeps_warm() && figures.fetched > 0 {
            world.preconnect(&mut figures);
        }
        assert!(world.transfers.len() <= 4 * WORKERS, "too many transfers");
        let steps = playing.iter().filter(|reader| reader.step < reader.trace.steps.len());
        let step = steps.map(|reader| reader.begins).filter(|begins| *begins > world.now + 1e-9);
        let next = step.chain(world.next_arrival()).min_by(f64::total_cmp);
        let Some(next) = next else {
            assert!(moved, "a reader waits and nothing comes");
            continue;
        };
        world.pass(next.max(world.now), &mut figures);
    }
    let mut read = RangeSet::default();
    for step in traces.iter().flat_map(|trace| &trace.steps) {
        read.insert(step.at.min(len)..(step.at + step.len).min(len));
    }
    figures.read = read.iter().map(|range| range.end - range.start).sum();
    figures
}

/// The 20 networks: mobile to fibre, near to far, with jitter of a quarter of the round trip.
pub fn networks() -> Vec<Net> {
    let rates = [60e3, 200e3, 600e3, 2.5e6, 20e6];
    let trips = [0.01, 0.04, 0.1, 0.3];
    let net = |rate, rtt| Net { rtt, rate, jitter: rtt / 4.0 };
    rates.iter().flat_map(|rate| trips.map(|rtt| net(*rate, rtt))).collect()
}
