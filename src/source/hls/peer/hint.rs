//! The thread `windway-hls-hint`, one for each low-latency stream: requests the next part, and the server holds the
//! request until that part is produced.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fetches::ranged;
use super::requests::{final_url, request};
use super::segment_sink::{SegmentSink, store_resource};
use super::sinks::MOST_RESOURCE;
use crate::cancel::CancelReason;
use crate::downloader::{Fetch, Outcome, PeerHandle, Sink};
use crate::error::Error;
use crate::source::hls::hook::RequestKind;
use crate::source::hls::shared::Shared;
use crate::source::hls::state::{Hinted, HintedPart, ResourceKey};
use crate::thread;

/// Longest time that a server may hold the request: a part is due within a target duration, which has 4 to 6 s. After that the
/// next version of the playlist decides.
const HOLD: Duration = Duration::from_secs(10);

/// Bytes that are read at once. A part of a second has about 16 KiB.
const CHUNK: usize = 32 * 1024;

/// Starts the thread. It ends when the player is closed.
pub(crate) fn start(shared: &Arc<Shared>, peer: &PeerHandle) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    thread::start("hls-hint", move || {
        while let Some(hinted) = shared.next_hint() {
            match hinted {
                Hinted::Map(key) => fetch_map(&shared, &peer, key),
                Hinted::Part(part) => {
                    let id = part.id;
                    if let Err(error) = fetch(&shared, &peer, *part) {
                        shared.change(|state| state.handle_hint_failed(id, &error));
                    }
                }
            }
        }
    })
}

/// Fetches an initialization section that the next segments will need.
fn fetch_map(shared: &Arc<Shared>, peer: &PeerHandle, key: ResourceKey) {
    match load_map(shared, peer, &key) {
        Ok(bytes) => store_resource(shared, key, bytes),
        Err(error) => {
            let hook = shared.config.hook.as_ref();
            // Before the state is locked: the hook is code of the application, and may block.
            let fresh = hook.and_then(|hook| hook.fresh_url(key.kind, &key.url, &error));
            shared.change(|state| {
                // The downloader requests it by that.
                let is_taken = fresh.is_some_and(|fresh| state.handle_fresh_resource(&key, fresh));
                if !is_taken {
                    state.handle_hinted_map_failed(&key, &error, Instant::now());
                }
            });
        }
    }
}

fn load_map(shared: &Arc<Shared>, peer: &PeerHandle, key: &ResourceKey) -> Result<Vec<u8>, Error> {
    let epoch = shared.epoch().ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
    let fetch = Fetch::new(request(shared, key.kind, &key.url)?);
    // Without retries: a segment that needs it requests it again.
    let response = peer.execute(ranged(fetch, key.range).max_retries(0).epoch(&epoch).held(HOLD))?;
    final_url(shared, response.head(), &key.url)?;
    response.bytes(MOST_RESOURCE)
}

fn fetch(shared: &Arc<Shared>, peer: &PeerHandle, part: HintedPart) -> Result<(), Error> {
    let HintedPart { id, url, range, needs } = part;
    let epoch = shared.hint_epoch(id).ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
    // A part arrives as fast as it is produced, which is not the throughput of the network.
    let mut sink = Box::new(SegmentSink::new(Arc::clone(shared), id, url, needs).unmeasured());
    let fetch = Fetch::new(request(shared, RequestKind::Segment, sink.url())?);
    // Without retries: what the playlist lists in its place is fetched as usual.
    let mut response = peer.execute(ranged(fetch, range).max_retries(0).epoch(&epoch).held(HOLD))?;
    // This thread calls the sink itself. After an error its caller records the failure, in the place of `finish`.
    sink.head(response.head())?;
    shared.with(|state| state.handle_hint_answered(id));
    let mut chunk = vec![0; CHUNK];
    loop {
        let offset = response.position();
        match response.read_chunk(&mut chunk)? {
            0 => break,
            got => sink.write(offset, &chunk[..got])?,
        }
    }
    // Before the end is recorded: the part may be placed at once, and the epoch of one that is not waited for any more is cancelled,
    // which would close the connection.
    drop(response);
    sink.finish(Outcome::Done);
    Ok(())
}
