//! The downloader without files: a peer of one's own that is pulled, and a fetch that is asked for.
//!
//! cargo run --release --example bare_downloader [URL]
//!
//! Without a URL it serves a file of its own. Fetches the file's parts in the background, as a peer that is asked for its
//! next part whenever a worker is free; and in the midst of it the file's last bytes, as somebody who waits for them.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::ops::Range;
use std::sync::mpsc;

use support::{Content, Origin};
use windway::downloader::{Next, Outcome, Peer, Sink};
use windway::{ByteRange, Downloader, DownloaderConfig, Error, Fetch, Priority};

const PART: u64 = 256 * 1024;

/// Wants a file's parts, one after another.
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
            Err(_) => Next::Wait, // It was parsed before, in main.
        }
    }
}

/// Counts a part's bytes. Another sink would keep them.
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
        drop(self.ends.send((self.bytes, outcome))); // If main has ended, nobody needs to know.
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
    let mut tail = asking.execute(Fetch::get(&url)?.range(ByteRange::new(len.saturating_sub(10), len)))?;
    let mut last = Vec::new();
    tail.read_to_end(&mut last)?;
    println!("the last bytes: {last:02x?}");

    let bytes: u64 = ended.iter().take(parts as usize).map(|(bytes, _)| bytes).sum();
    println!("{bytes} of {len} bytes in {parts} parts; {:?}", downloader.stats());
    Ok(())
}
