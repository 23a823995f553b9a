//! The cost of a fetch beside many idle peers, and the memory of such a peer.
//!
//! `cargo bench --bench scale`. The server refuses each request at once, so that mainly the downloader is measured.

mod measure;

use measure::report;
use support::{Answer, Origin};
use windway::downloader::PeerHandle;
use windway::{Downloader, DownloaderConfig, Fetch, Priority};

fn main() {
    let origin = Origin::start(|_| Answer::status(404));
    for idle in [0, 10, 100, 1000, 10_000, 100_000] {
        let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
        let before = resident();
        let peers: Vec<PeerHandle> = (0..idle)
            .map(|_| downloader.register((), Priority::High).expect("a running downloader"))
            .collect();
        let each = if idle < 1000 { 0 } else { resident().saturating_sub(before) / idle };
        let busy = downloader.register((), Priority::High).expect("a running downloader");
        report(&format!("a fetch beside {idle} idle peers"), 3000, || {
            let refused = busy.execute(Fetch::get(&origin.url("/a")).expect("a URL"));
            assert_eq!(refused.expect_err("a refusal").status(), Some(404));
        });
        if each > 0 {
            println!("{:<44} {each} bytes", "  memory of an idle peer");
        }
        drop(peers);
    }
}

/// Resident memory of this process in bytes; 0 where the system has no `/proc`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
