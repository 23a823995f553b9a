//! The plans to compare: what most players do, fixed pieces, the plan of windway, and the best that is possible.

use std::ops::Range;
use std::time::Duration;

use super::traces::{Scene, Trace};
use super::{Action, Figures, Net, Planner, Reader, Time, World};
use crate::bisection::{Bisection, Hint};
use crate::config::ReadAhead;
use crate::network::Network;
use crate::plan::{self, Plan, Snapshot};
use crate::prefetch;
use crate::reader_view::{self, Piece, ReaderView};
use crate::storage::RangeSet;
use crate::types::Priority;

/// Bytes of the suffix request, and of one for tags only, as in `src/source/file/suffix.rs`.
const SUFFIX: u64 = 13_824;
const TAGS: u64 = 512;

/// The plan of windway, `src/source/file/plan.rs`, used as in `src/source/file/state.rs`.
pub struct Windway {
    read_ahead: ReadAhead,
    filling: Vec<bool>,
    upcoming: Option<Range<u64>>,
    /// Range of the suffix request beside the opening, until it is sent.
    suffix: Option<Range<u64>>,
    opened: bool,
    asked_beside: bool,
    bisections: Vec<Bisection>,
    hint: Option<Hint>,
}

impl Windway {
    pub fn new(scene: &Scene) -> Self {
        Self {
            read_ahead: ReadAhead::Bytes(16 << 20),
            filling: Vec::new(),
            upcoming: scene.upcoming.clone(),
            suffix: Some(scene.len - SUFFIX..scene.len),
            opened: false,
            asked_beside: false,
            bisections: vec![Bisection::default(); scene.readers.len()],
            hint: scene.hint.clone(),
        }
    }
}

impl Windway {
    fn beside_opening(&mut self, world: &World) -> Option<Action> {
        if self.asked_beside {
            return None;
        }
        let view = |reader: &Reader| {
            let (position, waiting, run) = (reader.position, reader.waiting, reader.run);
            ReaderView { position, waiting, run, ..ReaderView::default() }
        };
        let readers: Vec<ReaderView> = world.readers.iter().map(view).collect();
        let range = plan::beside_opening(&readers)?;
        self.asked_beside = true;
        Some(Action::Start { range, urgent: true })
    }

    /// The readers as the plan sees them, after its decision whether to prefetch for them.
    fn readers(&mut self, world: &World, in_flight: &[Piece]) -> Vec<ReaderView> {
        self.filling.resize(world.readers.len(), false);
        let mut readers = Vec::new();
        for ((reader, filling), bisection) in
            world.readers.iter().zip(&mut self.filling).zip(&self.bisections)
        {
            let (position, waiting, run) = (reader.position, reader.waiting, reader.run);
            let bisection = *bisection;
            let mut view = ReaderView { position, waiting, run, filling: *filling, until: 0, bisection };
            view.refill(&world.available, in_flight, self.read_ahead);
            *filling = view.filling;
            readers.push(view);
        }
        readers
    }
}

impl Planner for Windway {
    fn plan(&mut self, world: &World) -> Option<Action> {
        if !self.opened {
            self.opened = true;
            return Some(Action::Start { range: 0..plan::OPENING, urgent: true });
        }
        let network = Network {
            bandwidth: Some(world.net.rate),
            ttfb: Some(Duration::from_secs_f64(world.net.rtt)),
            ..Network::default()
        };
        if let Some(mut range) = self.suffix.take() {
            if self.upcoming.is_none() && !network.can_share_opening(SUFFIX) {
                range.start = range.end - TAGS;
            }
            return Some(Action::Start { range, urgent: false });
        }
        if !world.available.contains(0) {
            // Nothing is known of the file before the response head arrives.
            return self.beside_opening(world);
        }
        let in_flight: Vec<Piece> = world
            .transfers
            .iter()
            .map(|transfer| Piece { next: transfer.next, end: transfer.end, retrying: None })
            .collect();
        let readers = self.readers(world, &in_flight);
        let low = world.transfers.iter().filter(|transfer| !transfer.urgent).count();
        let snapshot = Snapshot {
            readers: &readers,
            available: &world.available,
            in_flight: &in_flight,
            suffix: None,
            len: Some(world.len),
            network,
            read_ahead: self.read_ahead,
            upcoming: self.upcoming.as_slice(),
            admissible: if low >= 4 { Priority::High } else { Priority::Low },
        };
        let is_cut = |piece: &Piece| {
            !plan::is_upcoming(piece, self.upcoming.as_slice())
                && !readers.iter().any(|reader| reader_view::is_candidate(piece, reader))
                && plan::is_too_far(piece, &readers, self.read_ahead)
                && !network.ends_soon(piece.end - piece.next)
        };
        let unwanted = snapshot.poll_unwanted().or_else(|| in_flight.iter().position(is_cut));
        if let Some(unwanted) = unwanted {
            return Some(Action::Cancel { transfer: world.transfers[unwanted].id });
        }
        let Plan::Fetch { range, priority } = snapshot.plan() else { return None };
        let superseded = world
            .transfers
            .iter()
            .find(|transfer| transfer.next <= range.start && range.start < transfer.end);
        if let Some(transfer) = superseded {
            return Some(Action::Cancel { transfer: transfer.id });
        }
        Some(Action::Start { range, urgent: priority == Priority::High })
    }

    fn handle_jump(&mut self, reader: usize, to: u64) {
        self.bisections[reader].handle_jump(to, self.hint.as_ref());
    }

    fn keeps_warm(&self) -> bool {
        true
    }
}

/// One open-ended request, repeated at each seek, as most players do.
pub struct OneRequest;

impl Planner for OneRequest {
    fn plan(&mut self, world: &World) -> Option<Action> {
        let reader = world.readers.iter().find(|reader| reader.waiting)?;
        let position = reader.position;
        if world.available.contains(position) || position >= world.len {
            return None;
        }
        // Close enough to wait for the running transfer.
        let is_coming = |next: u64, end: u64| next <= position && position < end && position - next < 1 << 20;
        let readers = world.readers.len();
        let running = &world.transfers;
        if running.iter().any(|transfer| is_coming(transfer.next, transfer.end)) {
            return None;
        }
        if running.len() >= readers {
            return Some(Action::Cancel { transfer: running[0].id });
        }
        Some(Action::Start { range: position..world.len, urgent: true })
    }
}

/// Pieces of 64 KiB. The next one is requested when the last one is complete.
pub struct FixedPieces;

impl Planner for FixedPieces {
    fn plan(&mut self, world: &World) -> Option<Action> {
        const PIECE: u64 = 64 * 1024;
        for reader in &world.readers {
            let from = reader.position;
            let to = (from + 16 * PIECE).min(world.len);
            let Some(gap) = world.available.next_gap(from..to) else { continue };
            let start = gap.start / PIECE * PIECE;
            let is_coming =
                world.transfers.iter().any(|transfer| transfer.end > start && transfer.next <= gap.start);
            if !is_coming {
                return Some(Action::Start { range: gap.start..start + PIECE, urgent: reader.waiting });
            }
        }
        None
    }
}

/// The best possible plan: it knows the trace, and fetches the bytes in that order over one connection, each byte once, without a
/// pause.
pub fn best(net: Net, len: u64, traces: &[Trace]) -> Figures {
    ideal(net, len, traces, true)
}

/// The best plan that does not foresee jumps, and that prefetches no further than the prefetch target of windway. Each byte once, and
/// without a pause.
pub fn best_unforeseeing(net: Net, len: u64, traces: &[Trace]) -> Figures {
    ideal(net, len, traces, false)
}

/// Progress of a reader, for the ideal plans.
#[derive(Default)]
struct Course {
    step: usize,
    now: Time,
    /// The current sequential run: times, positions at these times, and bytes of the run read by then.
    run: Vec<(Time, u64, u64)>,
}

fn ideal(net: Net, len: u64, traces: &[Trace], foresees: bool) -> Figures {
    let mut figures = Figures::default();
    let mut stored = RangeSet::default();
    let mut courses: Vec<Course> = traces.iter().map(|_| Course::default()).collect();
    // Time at which the link is free. The connection has to be opened first.
    let mut sent = 2.0 * net.rtt;
    loop {
        // The reader that is furthest behind in time is served first.
        let unread = courses.iter().zip(traces).enumerate();
        let unread = unread.filter(|(_, (course, trace))| course.step < trace.steps.len());
        let next = unread.min_by(|(_, (a, _)), (_, (b, _))| a.now.total_cmp(&b.now)).map(|(index, _)| index);
        let Some(index) = next else { break };
        let course = &mut courses[index];
        let wanted = &traces[index].steps[course.step];
        let begins = course.now + wanted.after;
        let (from, to) = (wanted.at.min(len), (wanted.at + wanted.len).min(len));
        if course.run.last().is_none_or(|(_, position, _)| *position != from) {
            course.run = vec![(begins, from, 0)];
        }
        let within = |(_, position, run): &&(Time, u64, u64)| {
            from < position + prefetch::target(ReadAhead::Bytes(16 << 20), *position, *run)
        };
        let asked = course.run.iter().find(within).map_or(begins, |(at, ..)| *at);
        let new: u64 = gaps(&stored, from, to);
        stored.insert(from..to);
        figures.fetched += new;
        let mut there = begins;
        if new > 0 {
            // Bytes that were not requested before take a round trip.
            let first = if foresees || asked <= 0.0 { 0.0 } else { asked + net.rtt };
            sent = sent.max(first) + new as f64 / net.rate;
            there = there.max(sent);
        }
        if there > begins + 1e-9 {
            figures.stalls += 1;
            figures.stalled += there - begins;
            figures.worst = figures.worst.max(there - begins);
        }
        let run = course.run.last().map_or(0, |(.., run)| *run);
        course.run.push((there, to, run + to - from));
        course.now = there;
        course.step += 1;
    }
    figures.read = figures.fetched;
    figures.requests = 1;
    figures.connections = 1;
    figures
}

fn gaps(stored: &RangeSet, from: u64, to: u64) -> u64 {
    let (mut new, mut from) = (0, from);
    while let Some(gap) = stored.next_gap(from..to) {
        new += gap.end - gap.start;
        from = gap.end;
    }
    new
}
