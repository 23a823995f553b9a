use std::any::Any;
use std::time::Duration;

use windway::downloader::{Next, Outcome, Peer, PeerHandle, Sink};
use windway::{Downloader, DownloaderConfig, Error, Fetch, Priority, Stream};

use super::{ReadSeek, Subject, time_cancel};
use crate::Failure;

pub(super) struct Windway {
    downloader: Downloader,
    peer: PeerHandle,
}

impl Windway {
    pub(super) fn new() -> Result<Self, Failure> {
        let downloader = Downloader::new(DownloaderConfig::default())?;
        let peer = downloader.register((), Priority::High)?;
        Ok(Self { downloader, peer })
    }
}

impl ReadSeek for Stream {
    fn byte_len(&self) -> Option<u64> {
        self.len()
    }
}

/// Fetches one URL `left` times, as prefetches.
struct Downloads {
    url: String,
    left: usize,
}

struct Discard;

impl Peer for Downloads {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some(left) = self.left.checked_sub(1) else { return Next::Wait };
        self.left = left;
        Fetch::get(&self.url).map_or(Next::Wait, |fetch| Next::fetch(fetch, Box::new(Discard)))
    }
}

impl Sink for Discard {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {}
}

impl Subject for Windway {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        Ok(self.peer.execute(Fetch::get(url)?)?.bytes(1 << 20)?.len())
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        Ok(Box::new(self.downloader.open(url)?))
    }

    /// Its scheduler limits them, so the program does not.
    fn background(&mut self, url: &str, count: usize, _: usize) -> Result<Box<dyn Any>, Failure> {
        let peer = self.downloader.register(Downloads { url: url.into(), left: count }, Priority::Low)?;
        peer.wake(Priority::Low);
        Ok(Box::new(peer))
    }

    fn cancel(&mut self, url: &str) -> Result<Duration, Failure> {
        let stream = self.downloader.open(url)?;
        let handle = stream.handle();
        time_cancel(stream, || handle.cancel())
    }
}
