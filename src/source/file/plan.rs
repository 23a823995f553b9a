//! Decides what to fetch next for the readers of a file. A pure function of a snapshot; reads no clock.
//!
//! ```text
//!            behind    run read in sequence     stored ahead        in flight       gap
//!   ······┊▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒░░░░░░░┊··········
//!       window                             position               next   end     target
//! ```
//!
//! A blocked reader gets an urgent piece at its position, small at first and growing while it reads in sequence. For
//! other readers pieces are prefetched, each requested shortly before the last one ends, up to the prefetch target. A
//! streaming reader gets larger pieces. They are cut if its reader does not need so much, or if they turn out to hold a worker for
//! too long that another fetch waits for.

use std::ops::Range;

use super::alignment::{piece_end, target_end};
use super::network::{Network, PIECE, STREAMING_PIECE};
use super::reader_view::{Piece, ReaderView, brings, covered_to};
use crate::config::ReadAhead;
use crate::source::prefetch;
use crate::storage::RangeSet;
use crate::types::Priority;

/// Size of the opening. Its response shows the length, the type and whether the server has ranges, along with the first bytes.
pub(crate) const OPENING: u64 = 256 * 1024;

/// The first piece after a jump; the next ones grow with what is read on in sequence.
pub(super) const FIRST_PIECE: u64 = prefetch::FIRST_TARGET;

/// What the plan is made from.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) readers: &'a [ReaderView],
    pub(crate) available: &'a RangeSet,
    pub(crate) in_flight: &'a [Piece],
    /// The bytes that the suffix request brings, until they are stored.
    pub(crate) suffix: Option<Range<u64>>,
    /// Bytes in the file, once known.
    pub(crate) len: Option<u64>,
    pub(crate) network: Network,
    pub(crate) read_ahead: ReadAhead,
    /// What a decoder reads next, as far as the file's first bytes show it.
    pub(crate) upcoming: &'a [Range<u64>],
    /// The lowest priority that may be requested now.
    pub(crate) admissible: Priority,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Fetch these bytes. What is in flight at or behind the start, up to the end, is superseded.
    Fetch { range: Range<u64>, priority: Priority },
    /// Request the last bytes of the file, beside its opening.
    Suffix,
    /// Fetch some stored bytes once more, to learn whether another server sends the same ones.
    Probe,
    /// Request the response head, which shows whether the cache has the server's version.
    #[cfg(feature = "cache")]
    Confirm,
    /// Nothing until something changes.
    Idle,
}

impl Snapshot<'_> {
    /// The next fetch, the most urgent first.
    pub(crate) fn plan(&self) -> Plan {
        let urgent = self.readers.iter().find_map(|reader| self.urgent(reader));
        if let Some(range) = urgent {
            return Plan::Fetch { range, priority: Priority::High };
        }
        if self.admissible == Priority::High {
            return Plan::Idle;
        }
        let ahead = || self.readers.iter().find_map(|reader| self.ahead(reader));
        let ahead = self.candidate().or_else(|| self.upcoming()).or_else(ahead).or_else(|| self.left_out());
        ahead.map_or(Plan::Idle, |range| Plan::Fetch { range, priority: Priority::Low })
    }

    /// What is in flight, wanted by no reader, and in the way: a reader waits, and the rest would take longer than a new
    /// connection. A reader wants what continues where its bytes end, or begins before its prefetch target.
    pub(crate) fn poll_unwanted(&self) -> Option<usize> {
        // What the suffix request brings needs no other one, so nothing is in its way.
        let waits = |reader: &ReaderView| {
            reader.urgent(self.available).is_some_and(|position| !self.is_in_suffix(position))
        };
        if !self.readers.iter().any(waits) {
            return None;
        }
        let wanted_to = |reader: &ReaderView, read_ahead| {
            covered_to(reader.position, self.available, self.in_flight).max(reader.target_end(read_ahead))
        };
        let wants = |piece: &Piece, reader: &ReaderView| {
            // A download wants everything, but a long piece that goes on elsewhere can do so later.
            let is_long = piece.end.saturating_sub(piece.next) > PIECE.end;
            let read_ahead = if is_long { prefetch::windowed(self.read_ahead) } else { self.read_ahead };
            piece.end > reader.position && piece.next <= wanted_to(reader, read_ahead)
        };
        let is_candidate = |piece: &Piece, reader| self.candidates(reader).any(|range| brings(piece, &range));
        self.in_flight.iter().position(|piece| {
            let is_wanted = is_upcoming(piece, self.upcoming)
                || self.readers.iter().any(|reader| wants(piece, reader) || is_candidate(piece, reader));
            !is_wanted && !self.network.ends_soon(piece.end.saturating_sub(piece.next))
        })
    }

    /// What a waiting reader needs and nothing in flight brings soon.
    fn urgent(&self, reader: &ReaderView) -> Option<Range<u64>> {
        let position = reader.urgent(self.available)?;
        if self.is_in_suffix(position) {
            return None;
        }
        if self.len.is_some_and(|len| position >= len) {
            return None;
        }
        let join_distance = self.network.join_distance();
        // The distance is counted from the end of what is stored: `next` is updated shortly after the bytes are stored.
        let is_coming = |piece: &Piece| {
            piece.retrying != Some(Priority::Low)
                && piece.next <= position
                && position < piece.end
                && position.saturating_sub(self.available.run_from(piece.next)) <= join_distance
        };
        // All its bytes are here, so its connection is free at once. A request over another one would have to wait, or start
        // slowly.
        let needs_connection = self.network.single_connection || self.keeps_connection(reader);
        let is_ending =
            |piece: &Piece| needs_connection && piece.retrying.is_none() && piece.next >= piece.end;
        if self.in_flight.iter().any(|piece| is_coming(piece) || is_ending(piece)) {
            return None;
        }
        let ahead = reader.until.saturating_sub(position);
        let most = self.network.piece().max(self.streaming_size(reader));
        let size = FIRST_PIECE.max(reader.run).max(ahead).min(most).max(self.cold_size(reader));
        // Not for a thread that waits for more bytes than the probe has.
        let probe = reader.bisection.at_probe(position).filter(|_| reader.until <= position);
        let end = probe.map_or_else(|| piece_end(position, size), |probe| probe.end);
        let gap = self.available.next_gap(position..self.clip(end))?;
        // Up to where a later piece begins. A piece that contains the position, but is too far from it, is cancelled when this
        // one is added.
        let ahead = self.in_flight.iter().filter(|piece| piece.next > position && piece.retrying.is_none());
        let suffix = self.suffix.as_ref().map(|suffix| suffix.start).filter(|start| *start > position);
        let end = ahead.map(|piece| piece.next).chain(suffix).min().unwrap_or(u64::MAX).min(gap.end);
        Some(position..end)
    }

    /// What is missing where a reader that bisects, and waits, jumps next.
    fn candidate(&self) -> Option<Range<u64>> {
        let waits = |reader: &&ReaderView| reader.urgent(self.available).is_some();
        let candidates = self.readers.iter().filter(waits).flat_map(|reader| self.candidates(reader));
        candidates.map(|range| range.start..self.clip(range.end)).find_map(|range| self.first_gap(range))
    }

    /// Where `reader` jumps next, if that is worth fetching on this network.
    fn candidates(&self, reader: &ReaderView) -> impl Iterator<Item = Range<u64>> + use<> {
        let is_worth_it = self.network.foresees(reader.bisection.look());
        reader.bisection.candidates().filter(move |_| is_worth_it)
    }

    /// What is missing of the ranges that a decoder reads next.
    fn upcoming(&self) -> Option<Range<u64>> {
        if self.network.single_connection && !self.in_flight.is_empty() {
            return None;
        }
        self.upcoming.iter().find_map(|range| self.first_gap(range.clone()))
    }

    /// The next piece to read ahead for a reader, if it is time for one.
    fn ahead(&self, reader: &ReaderView) -> Option<Range<u64>> {
        if !reader.filling {
            return None;
        }
        let from = reader.position;
        let prefetch_target = self.clip(reader.target_end(self.read_ahead));
        let gap = self.first_gap(from..prefetch_target)?;
        if self.network.single_connection && !self.in_flight.is_empty() {
            return None;
        }
        let keeps_connection = self.keeps_connection(reader);
        let lead = self.network.pipeline_lead();
        // All bytes of one that ends where the reader waits are stored, and its connection is still in use.
        let is_ending = |piece: &Piece| keeps_connection && piece.end == from;
        let busy = |piece: &&Piece| piece.next < prefetch_target && (piece.end > from || is_ending(piece));
        let mut running = self.in_flight.iter().filter(busy);
        // One that ends, and the one after it.
        let full = running.clone().count() >= 2
            || running.any(|piece| {
                keeps_connection || piece.retrying.is_some() || piece.end.saturating_sub(piece.next) > lead
            });
        if full {
            return None;
        }
        let ahead = reader.until.saturating_sub(gap.start);
        // Doubles what lies between the start of the sequential run and the gap.
        let run = gap.start.saturating_sub(reader.position.saturating_sub(reader.run));
        let streaming_size = self.streaming_size(reader).max(self.cold_size(reader));
        let size = FIRST_PIECE.max(run).max(ahead).min(self.network.piece()).max(streaming_size);
        // The limit does not apply to a streaming reader: if that stops reading, its piece is cut where it has enough.
        let prefetch_limit = prefetch_limit(self.read_ahead).max(streaming_size);
        let limit = target_end(from.saturating_add(prefetch_limit), prefetch_limit).max(reader.until);
        let end = piece_end(gap.start, size).min(self.clip(limit));
        // Beyond the prefetch target too: what is requested is a piece, not what is missing just now.
        self.first_gap(gap.start..end)
    }

    /// True if the next piece of this reader waits for the connection of the one before it, which has left its slow start behind.
    fn keeps_connection(&self, reader: &ReaderView) -> bool {
        // To wait costs one round trip without bytes. The window of another connection fills the network only after several, and
        // its bytes wait in the queue meanwhile: two or more round trips at 10 Mbit/s and 100 ms. That pays where a piece is long.
        let is_long = self.network.has_slow_start() && self.streaming_size(reader) > self.network.piece();
        is_long || self.cold_size(reader) > 0
    }

    /// How large a piece may be because of what this streaming reader has read.
    fn streaming_size(&self, reader: &ReaderView) -> u64 {
        let ahead = self.available.run_from(reader.position) - reader.position;
        if !prefetch::is_streaming(self.read_ahead, ahead) || self.network.single_connection {
            return 0;
        }
        reader.run.min(self.network.streaming_piece())
    }

    /// How large a piece may be for a reader that streams from the start of the file, or for a download, while the bandwidth is that
    /// of a connection's beginning: up to the end of the file.
    fn cold_size(&self, reader: &ReaderView) -> u64 {
        let (end, position) = (self.available.run_from(reader.position), reader.position);
        let streams = prefetch::streams_from_start(position, reader.run, end - position);
        let is_download = self.read_ahead == ReadAhead::Whole && reader.run >= position;
        let is_large = prefetch::full_target(self.read_ahead) >= prefetch::STREAMING_AHEAD;
        // Beyond the largest piece the bandwidth has been measured over a long body, so it can be trusted.
        let is_cold = end <= PIECE.end && self.network.has_slow_start() && !self.network.single_connection;
        // To the end, so that the first connection, once it is fast, serves all of it. The piece is cut where its reader has
        // enough.
        if is_cold && is_large && (streams || is_download) { STREAMING_PIECE } else { 0 }
    }

    /// With everything wanted: the first of what the readers' read-ahead leaves out, one piece at a time.
    fn left_out(&self) -> Option<Range<u64>> {
        let len = self.len?;
        // One at a time: no reader waits for these bytes, and they must not delay those of other streams.
        if self.read_ahead != ReadAhead::Whole || !self.in_flight.is_empty() {
            return None;
        }
        let gap = self.first_gap(0..len)?;
        Some(gap.start..gap.end.min(piece_end(gap.start, self.network.piece())))
    }

    fn is_in_suffix(&self, position: u64) -> bool {
        self.suffix.as_ref().is_some_and(|suffix| suffix.contains(&position))
    }

    fn clip(&self, end: u64) -> u64 {
        self.len.map_or(end, |len| end.min(len))
    }

    /// The first bytes in `within` that are neither stored nor on their way.
    fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        let mut from = within.start;
        loop {
            let gap = self.available.next_gap(from..within.end)?;
            let over = |coming: &Range<u64>| coming.start < gap.end && coming.end > gap.start;
            let in_flight = self.in_flight.iter().map(|piece| piece.next..piece.end);
            let coming = in_flight.chain(self.suffix.clone()).filter(over);
            let Some(first) = coming.min_by_key(|coming| coming.start) else { return Some(gap) };
            if first.start > gap.start {
                return Some(gap.start..first.start);
            }
            from = first.end;
            if from >= within.end {
                return None;
            }
        }
    }
}

/// How far ahead of a reader bytes may be requested.
pub(crate) fn prefetch_limit(read_ahead: ReadAhead) -> u64 {
    prefetch::full_target(read_ahead).max(OPENING)
}

/// What a reader waits for far from the opening, to be requested beside it. It may fail.
pub(crate) fn beside_opening(readers: &[ReaderView]) -> Option<Range<u64>> {
    let nothing = RangeSet::default();
    let far = |reader: &ReaderView| {
        let position = reader.urgent(&nothing).filter(|position| *position >= OPENING)?;
        // `u64::MAX` stands for the end of the file, which can't be requested before the length is known.
        position.checked_add(FIRST_PIECE)?;
        // Small, because before the first head has come nothing shows that the server serves ranges, or that the file goes so far.
        Some(position..piece_end(position, FIRST_PIECE))
    };
    readers.iter().find_map(far)
}

/// True if `piece` is as far ahead of every reader as may be requested. It is to be cut, unless it
/// [ends soon](Network::ends_soon): its reader streams no longer, or has gone back.
pub(crate) fn is_too_far<'a>(
    piece: &Piece,
    readers: impl IntoIterator<Item = &'a ReaderView>,
    read_ahead: ReadAhead,
) -> bool {
    let wants = |reader: &ReaderView| {
        piece.next < reader.position.saturating_add(prefetch_limit(read_ahead)).max(reader.until)
    };
    // Ignore readers that are already past this piece. If all are past it, the piece ends by itself.
    let mut behind = readers.into_iter().filter(|reader| reader.position < piece.end).peekable();
    behind.peek().is_some() && !behind.any(wants)
}

/// True if `piece` brings some of what a decoder reads next.
pub(crate) fn is_upcoming(piece: &Piece, upcoming: &[Range<u64>]) -> bool {
    upcoming.iter().any(|range| brings(piece, range))
}
