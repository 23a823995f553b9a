//! The downloader without streams: a peer that the downloader asks for fetches, and a fetch that the caller waits for.
//!
//! cargo run --release --example bare_downloader [URL]
//!
//! Fetches the parts of a file in the background: when a worker is free, the peer returns the next part. Meanwhile the
//! main thread fetches the last bytes of the file as urgent work. Without a URL it starts a server with a file.

#[path = "../tests/support/mod.rs"]
mod support;

use std::ops::Range;
use std::sync::mpsc;

use support::{Content, Origin};
use windway::downloader::{Next, Outcome, Peer, Sink};
use windway::{ByteRange, Downloader, DownloaderConfig, Error, Fetch, Priority};

const PART: u64 = 256 * 1024;

/// Returns the parts of a file, in order.
struct Parts {
    url: String,
    left: Range<u64>,
    ends: mpsc::Sender<(u64, Outcome)>,
}

impl Peer for Parts {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some(start) = self.left.next() else { return Next::Wait };
        let range = ByteRange::new(start * PART, (start + 1) * PART);
        match Fetch::get(&self.url) {
            Ok(fetch) => {
                Next::fetch(fetch.range(range), Box::new(Part { bytes: 0, ends: self.ends.clone() }))
            }
            Err(_) => Next::Wait, // `main` has parsed the same URL.
        }
    }
}

/// Counts the bytes of a part. A real sink would store them.
struct Part {
    bytes: u64,
    ends: mpsc::Sender<(u64, Outcome)>,
}

impl Sink for Part {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        drop(self.ends.send((self.bytes, outcome))); // Fails if `main` has ended.
    }
}

fn main() -> Result<(), Error> {
    env_logger::init();
    let origin = Origin::serving(Content::pattern(64 * PART));
    let url = std::env::args().nth(1).unwrap_or_else(|| origin.url("/file"));
    let downloader = Downloader::new(DownloaderConfig::default())?;

    let asking = downloader.register((), Priority::High)?;
    let first = asking.execute(Fetch::get(&url)?.range(ByteRange::new(0, 1)))?;
    let len = first.head().total().unwrap_or(PART);
    let parts = len.div_ceil(PART);

    let (ends, ended) = mpsc::channel();
    let pulled = downloader.register(Parts { url: url.clone(), left: 0..parts, ends }, Priority::Low)?;
    pulled.wake(Priority::Low);
    let tail = Fetch::get(&url)?.range(ByteRange::new(len.saturating_sub(10), len));
    let last = asking.execute(tail)?.bytes(10)?;
    println!("the last bytes: {last:02x?}");

    let bytes: u64 = ended.iter().take(parts as usize).map(|(bytes, _)| bytes).sum();
    println!("{bytes} of {len} bytes in {parts} parts; {:?}", downloader.stats());
    Ok(())
}
