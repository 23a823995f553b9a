//! What is fetched next of a file in its current state, and which pieces are given up for that.

use super::mode::Mode;
use super::network::Network;
use super::plan::{self, OPENING, Plan, Snapshot};
use super::reader_view::{Piece, ReaderView};
use super::state::State;
use crate::cancel::CancelToken;
use crate::config::ReadAhead;
use crate::storage::RangeSet;
use crate::types::Priority;

impl State {
    /// What to fetch next.
    pub(crate) fn plan(&mut self, available: &RangeSet, network: Network, admissible: Priority) -> Plan {
        if self.waits.ended().is_some() {
            return Plan::Idle;
        }
        match &self.mode {
            Mode::Unusable { .. } => Plan::Idle,
            mode @ Mode::TriesWhole(_) => self.plan_sequential(available, mode.len()),
            Mode::Opening => self.plan_opening(admissible),
            // Until the probe has ended nothing may be joined to what is stored.
            Mode::Ranged(_) if self.pool.is_probing() => Plan::Idle,
            Mode::Ranged(_) if self.pool.has_suspect() => Plan::Probe,
            Mode::Ranged(_) => {
                let plan = self.plan_pieces(available, network, admissible);
                #[cfg(feature = "cache")]
                if plan == Plan::Idle && admissible == Priority::Low && self.needs_confirmation() {
                    return Plan::Confirm;
                }
                plan
            }
            Mode::Sequential(info) => self.plan_sequential(available, info.len),
        }
    }

    fn plan_opening(&self, admissible: Priority) -> Plan {
        let nothing = RangeSet::default();
        let is_urgent = |reader: &ReaderView| reader.urgent(&nothing).is_some();
        let is_wanted = self.is_preload() || self.readers.iter().any(|(_, reader)| is_urgent(reader));
        let is_asked_for = self.pieces.iter().any(|(_, in_flight)| in_flight.piece.next < OPENING);
        // Not before the opening was requested, whose connection and response come first.
        if is_asked_for && self.suffix.is_due() && admissible == Priority::Low {
            return Plan::Suffix;
        }
        let range = match (is_asked_for, self.requested_beside) {
            (false, _) => is_wanted.then_some(0..OPENING),
            (true, false) => plan::beside_opening(&self.readers()),
            (true, true) => None,
        };
        range.map_or(Plan::Idle, |range| Plan::Fetch { range, priority: Priority::High })
    }

    fn plan_sequential(&self, available: &RangeSet, len: Option<u64>) -> Plan {
        let wants =
            |reader: &ReaderView| reader.urgent(available).is_some_and(|at| len.is_none_or(|len| at < len));
        let downloads = self.limits.configured() == ReadAhead::Whole
            && self.waits.halted().is_none()
            && len.is_none_or(|len| available.run_from(0) < len);
        let is_wanted =
            self.is_preload() || downloads || self.readers.iter().any(|(_, reader)| wants(reader));
        // The request for the body is a piece until its body is detached.
        if self.one_body.is_running() || !self.pieces.is_empty() || !is_wanted {
            return Plan::Idle;
        }
        Plan::Fetch { range: 0..u64::MAX, priority: Priority::High }
    }

    fn plan_pieces(&mut self, available: &RangeSet, network: Network, admissible: Priority) -> Plan {
        let read_ahead = self.limits.target();
        let in_flight: Vec<Piece> = self.pieces.iter().map(|(_, in_flight)| in_flight.piece).collect();
        for (_, reader) in &mut self.readers {
            reader.refill(available, &in_flight, read_ahead);
        }
        let readers = self.readers();
        // After a failure only what a reader waits for is requested: prefetching on would repeat the failure in the background.
        let admissible = if self.waits.halted().is_some() { Priority::High } else { admissible };
        let snapshot = Snapshot {
            upcoming: if network.is_metered { &[] } else { self.upcoming.ranges() },
            read_ahead,
            admissible,
            ..self.snapshot(&readers, &in_flight, available, network)
        };
        snapshot.plan()
    }

    /// The tokens of pieces that no reader wants any more and that are in the way of what a reader waits for.
    pub(crate) fn unwanted(&mut self, available: &RangeSet, network: Network) -> Vec<CancelToken> {
        let mut tokens = Vec::new();
        while let Some(key) = self.poll_unwanted(available, network) {
            let in_flight = &mut self.pieces[key];
            // So that the next round does not find it again, and the plan does not wait for its bytes.
            in_flight.piece.end = in_flight.piece.next;
            tokens.push(in_flight.token.clone());
        }
        tokens
    }

    fn poll_unwanted(&self, available: &RangeSet, network: Network) -> Option<usize> {
        // The opening is never unwanted, wherever its reader has jumped: it shows what the file is.
        if !self.mode.is_ranged() {
            return None;
        }
        let (keys, in_flight): (Vec<usize>, Vec<Piece>) =
            self.pieces.iter().map(|(key, in_flight)| (key, in_flight.piece)).unzip();
        let readers = self.readers();
        let snapshot = self.snapshot(&readers, &in_flight, available, network);
        snapshot.poll_unwanted().map(|index| keys[index])
    }

    /// The state of the file for a blocked reader: only urgent work, and all that the storage keeps.
    fn snapshot<'a>(
        &'a self,
        readers: &'a [ReaderView],
        in_flight: &'a [Piece],
        available: &'a RangeSet,
        network: Network,
    ) -> Snapshot<'a> {
        Snapshot {
            readers,
            available,
            in_flight,
            suffix: self.suffix.range(self.len(), !self.first.is_empty()),
            len: self.len(),
            network,
            read_ahead: self.limits.kept(),
            upcoming: self.upcoming.ranges(),
            admissible: Priority::High,
        }
    }

    fn readers(&self) -> Vec<ReaderView> {
        self.readers.iter().map(|(_, reader)| *reader).collect()
    }
}
