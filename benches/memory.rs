//! Memory of open streams that were read for a while, and the memory that is freed when they close.
//!
//! `cargo bench --bench memory`. The server runs in the same process and uses about 10 KiB for each connection.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use support::{Content, Origin};
use windway::config::StorageConfig;
use windway::{Downloader, DownloaderConfig, FileConfig, Stream};

const MIB: u64 = 1 << 20;

fn main() {
    for (streams, len) in [(1000, 4 * MIB), (100, 64 * MIB), (1, 512 * MIB)] {
        for (name, storage) in
            [("memory", StorageConfig::Memory), ("temporary file", StorageConfig::TempFile(None))]
        {
            measure(&format!("{streams} streams of {} MiB, {name}", len / MIB), streams, len, storage);
        }
    }
    whole();
}

/// Streams of which 64 KiB each are read.
fn measure(name: &str, streams: usize, len: u64, storage: StorageConfig) {
    let origin = Origin::serving(Content::pattern(len));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let before = resident();
    let open: Vec<Stream> = (0..streams)
        .map(|_| {
            let config = FileConfig::new().storage(storage.clone());
            let mut stream = downloader.open_with(&origin.url("/a"), config).expect("a stream");
            stream.read_exact(&mut vec![0; 64 * 1024]).expect("bytes");
            stream
        })
        .collect();
    settle(&downloader);
    let held = resident().saturating_sub(before);
    drop(open);
    drop(downloader);
    drop(origin);
    println!(
        "{name:<36} {:>5} MiB held, {:>5} left when closed",
        held / MIB,
        resident().saturating_sub(before) / MIB
    );
}

/// One file that is stored as a whole, and then closed.
fn whole() {
    let origin = Origin::serving(Content::pattern(512 * MIB));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let before = resident();
    let config = FileConfig::new().storage(StorageConfig::WholeMemory);
    let mut stream = downloader.open_with(&origin.url("/a"), config).expect("a stream");
    std::io::copy(&mut stream, &mut std::io::sink()).expect("bytes");
    let held = resident().saturating_sub(before);
    drop(stream);
    let name = "512 MiB read, all in memory";
    println!(
        "{name:<36} {:>5} MiB held, {:>5} left when closed",
        held / MIB,
        resident().saturating_sub(before) / MIB
    );
}

/// Blocks until no byte was fetched for a while.
fn settle(downloader: &Downloader) {
    let mut quiet = 0;
    while quiet < 10 {
        sleep(Duration::from_millis(50));
        let stats = downloader.stats();
        let is_quiet = stats.busy_workers == 0 && stats.queued == [0; 4];
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
}

/// Resident memory of this process in bytes; 0 where the system has no `/proc`.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
