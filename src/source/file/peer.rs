//! What the scheduler gets from a file: makes a fetch and its sink of the plan's answer.

use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "cache")]
use super::caching::ConfirmSink;
use super::piece::PieceSink;
use super::plan::Plan;
use super::pool::Proof;
use super::probe::ProbeSink;
use super::shared::{Link, Shared};
use super::state::State;
use super::suffix_sink::SuffixSink;
use crate::cancel::CancelToken;
use crate::config::ReadAhead;
use crate::downloader::{Epoch, Fetch, Next, OtherTags, Peer};
use crate::types::{ByteRange, Priority};

/// The file, as the scheduler sees it.
pub(super) struct FilePeer(pub(super) Arc<Shared>);

/// The plan's answer, recorded in the state.
enum Planned {
    Piece(PlannedPiece),
    Probe(Proof, Range<u64>),
    Suffix(Epoch, u64),
    #[cfg(feature = "cache")]
    Confirm,
}

struct PlannedPiece {
    /// Its entry among the state's pieces.
    key: usize,
    range: Range<u64>,
    priority: Priority,
    epoch: Epoch,
    /// It is retried for as long as a reader waits.
    is_endless: bool,
    /// The file has at least this many bytes. `None` if the URL has not led to it before: a page in its place is not taken for
    /// that of a network that wants a login.
    promised: Option<u64>,
    /// The pieces that it makes useless.
    superseded: Vec<CancelToken>,
    /// There is something to prefetch beside it.
    has_beside: bool,
}

impl Peer for FilePeer {
    fn next_fetch(&mut self, admissible: Priority) -> Next {
        // Of a cancelled file each fetch would end at once, and its end would ask for the next one.
        let link = self.0.link.get().filter(|link| !link.epoch.is_cancelled());
        let Some(link) = link else { return Next::Wait };
        match self.plan(link, admissible) {
            Some(Planned::Piece(piece)) => self.piece(piece),
            Some(Planned::Probe(proof, range)) => self.probe(link, proof, range),
            Some(Planned::Suffix(epoch, bytes)) => self.suffix(&epoch, bytes),
            #[cfg(feature = "cache")]
            Some(Planned::Confirm) => self.confirm(link),
            None => Next::Wait,
        }
    }
}

impl FilePeer {
    /// Asks the plan, and records its answer under the same lock: from then on it counts as in flight, and is not planned
    /// twice.
    fn plan(&self, link: &Link, admissible: Priority) -> Option<Planned> {
        let network = self.0.network();
        #[cfg(feature = "cache")]
        self.0.resource.take_in_stored();
        self.0.resource.with_ranges(|ranges| {
            let mut state = self.0.state.lock();
            match state.plan(ranges, network, admissible) {
                // The sink that brings those bytes calls `replan`, which asks again.
                Plan::Fetch { range, .. } if state.awaits_overlap(range.start, ranges) => None,
                Plan::Fetch { range, priority } if priority >= admissible => {
                    Some(Planned::Piece(PlannedPiece::new(&mut state, range, priority, link.epoch.child())))
                }
                Plan::Suffix => {
                    let epoch = link.epoch.child();
                    let bytes = state.suffix.begin(epoch.token().clone())?;
                    Some(Planned::Suffix(epoch, bytes))
                }
                #[cfg(feature = "cache")]
                Plan::Confirm => {
                    state.was_asked_to_confirm = true;
                    Some(Planned::Confirm)
                }
                Plan::Probe => state.begin_probe(ranges).map(|(proof, range)| Planned::Probe(proof, range)),
                _ => None,
            }
        })
    }

    fn piece(&self, piece: PlannedPiece) -> Next {
        let shared = &self.0;
        let PlannedPiece { key, range, priority, epoch, is_endless, promised, superseded, has_beside } =
            piece;
        // Here, and not in `plan`: a cancellation runs callbacks, which must not run under the locks.
        superseded.into_iter().for_each(|piece| piece.cancel());
        let overlap = shared.overlap(range.start);
        let behind = shared.overlap_behind(range.end);
        let start = overlap.as_ref().map_or(range.start, |overlap| overlap.start);
        let end = behind.as_ref().map_or(range.end, |behind| behind.start + behind.bytes.len() as u64);
        let overlaps = [overlap, behind];
        let sink = Box::new(PieceSink::new(Arc::clone(shared), key, range.clone(), overlaps, has_beside));
        let request = shared.request(sink.target());
        // A total that equals the end of the piece may be that end (see `doubt_total`), unless the file is known to end
        // there.
        let request = if shared.len() != Some(end) { request.doubt_total() } else { request };
        let request = match promised {
            Some(promised) => request.known(sink.target(), shared.len(), promised),
            None => request,
        };
        let is_whole = range == (0..u64::MAX);
        let request = if is_whole { request } else { request.range(ByteRange::new(start, end)) };
        // Each response head is compared with the first one, so `If-Range` (RFC 9110, section 13.1.5) would add nothing.
        let fetch = Fetch::new(request).without_if_range();
        let fetch = fetch.priority(priority).epoch(&epoch).handoff(&shared.handoff);
        // Weak: a running fetch must not keep the file of a stream that was dropped.
        let weak = Arc::downgrade(shared);
        let mut fetch = fetch.urgent_while(move || {
            weak.upgrade().is_some_and(|shared| shared.state.lock().recheck_urgency(key))
        });
        if is_endless {
            fetch = fetch.max_retries(u32::MAX).dials_often();
        }
        if promised.is_some() {
            fetch = fetch.was_available();
        }
        if shared.config.server_pools {
            fetch = fetch.other_tags(OtherTags::AskSink);
        }
        Next::fetch(fetch, sink)
    }

    /// The suffix request for the last `bytes` (RFC 9110, section 14.1.2).
    fn suffix(&self, epoch: &Epoch, bytes: u64) -> Next {
        let request = self.0.request(None).suffix(bytes);
        // Tried once: if it fails no reader gets an error, and what it would have brought is requested when a reader wants it.
        let fetch = Fetch::new(request).priority(Priority::Low).epoch(epoch).max_retries(0);
        Next::fetch(fetch, Box::new(SuffixSink::new(Arc::clone(&self.0))))
    }

    /// The request that only confirms the entry of the cache.
    #[cfg(feature = "cache")]
    fn confirm(&self, link: &Link) -> Next {
        let sink = Box::new(ConfirmSink::new(Arc::clone(&self.0)));
        let request = self.0.request(None).range(sink.range());
        // One retry only: no reader waits for the answer, and without it the file is played unconfirmed.
        let fetch = Fetch::new(request).priority(Priority::Low).epoch(&link.epoch.child()).max_retries(1);
        Next::fetch(fetch, sink)
    }

    /// The fetch of a probe.
    fn probe(&self, link: &Link, proof: Proof, range: Range<u64>) -> Next {
        let shared = &self.0;
        let mut stored = vec![0; (range.end - range.start) as usize];
        let got = match proof {
            // The state keeps them also when storage has evicted them.
            Proof::Head => shared.state.lock().copy_first(&mut stored),
            Proof::Join => shared.resource.read_at(range.start, &mut stored).unwrap_or(0),
        };
        stored.truncate(got);
        let range = ByteRange::new(range.start, range.start + got as u64);
        let sink = Box::new(ProbeSink::new(Arc::clone(shared), proof, stored));
        let target = shared.state.lock().target().cloned();
        // A new connection: where a pool is shared out by connection, one that is kept alive would always meet the same server.
        let request = shared.request(target.as_ref()).range(range).over_new_connection();
        Next::fetch(Fetch::new(request).priority(Priority::High).epoch(&link.epoch.child()), sink)
    }
}

impl PlannedPiece {
    fn new(state: &mut State, range: Range<u64>, priority: Priority, epoch: Epoch) -> Self {
        let is_preload = state.take_preload();
        let is_download = state.limits.configured() == ReadAhead::Whole;
        let for_reader = priority == Priority::High && !is_preload && !is_download;
        // Endless for readers: `read_timeout` ends their reads. The caller of `open` gets the error instead.
        let is_endless = (for_reader || is_download) && !state.is_opening();
        let (key, superseded) =
            state.add_piece(&range, priority, epoch.token().clone(), is_endless && for_reader);
        let has_beside = state.suffix.is_due() || state.may_jump();
        #[cfg(feature = "cache")]
        // Nothing has shown yet that the URL still leads to what the cache has of it.
        let is_confirmed = !state.is_unconfirmed();
        #[cfg(not(feature = "cache"))]
        let is_confirmed = true;
        let promised = state.promised().filter(|_| is_confirmed);
        Self { key, range, priority, epoch, is_endless, promised, superseded, has_beside }
    }
}
