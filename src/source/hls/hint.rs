//! The thread `windway-hls-hint`, one for each low-latency stream: requests the part that comes next, which the server holds
//! until it is there.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::fetches::ranged;
use super::hook::RequestKind;
use super::requests::request;
use super::segment_sink::SegmentSink;
use super::shared::Shared;
use super::state::HintedPart;
use crate::downloader::{Fetch, Outcome, PeerHandle, Sink};
use crate::error::{Error, ErrorKind};

/// A server may be late with a part. If it is later than this, the playlist will say what became of it.
const HOLD: Duration = Duration::from_secs(10);

/// Bytes that are read at once. A part of a second has about 16 KiB.
const CHUNK: usize = 32 * 1024;

/// Starts the thread. It ends when the player is closed.
pub(super) fn start(shared: &Arc<Shared>, peer: &PeerHandle) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    let named = thread::Builder::new().name("windway-hls-hint".into());
    let run = move || {
        while let Some(part) = shared.next_hint() {
            let slot = part.slot;
            if let Err(error) = fetch(&shared, &peer, part) {
                shared.change(|state| state.handle_hint_failed(slot, &error));
            }
        }
    };
    named.spawn(run).map_err(|error| {
        Error::new(ErrorKind::Io(error.kind()), "a thread could not be started").with_cause(error)
    })
}

fn fetch(shared: &Arc<Shared>, peer: &PeerHandle, part: HintedPart) -> Result<(), Error> {
    let HintedPart { slot, url, range, needs } = part;
    let epoch = shared.hint_epoch(slot).ok_or_else(|| Error::cancelled(crate::cancel::CancelReason::Peer))?;
    // The rate at which a part arrives while it is produced says nothing of the network.
    let mut sink = Box::new(SegmentSink::new(Arc::clone(shared), slot, url, needs).unmeasured());
    let fetch = Fetch::new(request(shared, RequestKind::Segment, sink.url())?);
    let mut response = peer.execute(ranged(fetch, range).max_retries(0).epoch(&epoch).held(HOLD))?;
    sink.head(response.head())?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let offset = response.position();
        match response.read_chunk(&mut chunk)? {
            0 => break,
            got => sink.write(offset, &chunk[..got])?,
        }
    }
    sink.finish(Outcome::Done);
    Ok(())
}
