//! Many players at once on one downloader with its default configuration, which has six workers.
//!
//! `cargo bench --bench many`. First, 100 players open a file each at the same moment: the time to the first byte, at a round
//! trip of 40 ms. Then 30 players read 32 kB a second each from a server that gives each response 60 kB a second: the time to
//! the first byte, and how many reads came late. A read is late if its bytes arrive more than a period after they are due.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use measure::{Quantiles, cpu};
use support::{Answer, Content, Origin};
use windway::{Downloader, DownloaderConfig, FileConfig};

const RTT: Duration = Duration::from_millis(40);
const OPENS: usize = 100;
const PLAYERS: usize = 30;
/// Bytes a second that a player reads.
const PLAYED: u64 = 32_000;
/// Bytes a second of each response.
const SERVED: u64 = 60_000;
const PERIOD: Duration = Duration::from_millis(100);
/// Reads of each player after the first one: 30 s.
const READS: u32 = 299;

fn main() {
    let opens = || opens_at_once(Content::pattern(4 << 20));
    (0..3).for_each(|_| opens());
    slow_players();
}

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).expect("sound options")
}

/// Runs `player` on this number of threads, which begin together.
fn side_by_side<T: Send>(players: usize, player: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(players);
    thread::scope(|scope| {
        let running: Vec<_> = (0..players)
            .map(|index| {
                let (barrier, player) = (&barrier, &player);
                scope.spawn(move || {
                    barrier.wait();
                    player(index)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a player")).collect()
    })
}

fn opens_at_once(content: Content) {
    let origin = Origin::start_with_rtt(RTT, move |asked| Answer::file(asked, &content).latency(RTT));
    let (downloader, began) = (downloader(), cpu());
    let firsts = side_by_side(OPENS, |index| {
        let began = Instant::now();
        let url = origin.url(&format!("/{index}"));
        let mut stream = downloader.open_with(&url, FileConfig::default()).expect("a file");
        stream.read_exact(&mut [0; 4096]).expect("its first bytes");
        (began.elapsed(), stream)
    });
    let firsts = Quantiles::new(firsts.iter().map(|(first, _)| *first).collect());
    let (middle, last) = (firsts.at(0.5), firsts.at(1.0));
    println!(
        "{OPENS} opens at once: first byte p50 {middle:.1?}, last {last:.1?}, cpu {:.1?}",
        cpu() - began
    );
}

fn slow_players() {
    let content = Content::pattern(16 << 20);
    let origin =
        Origin::start_with_rtt(RTT, move |asked| Answer::file(asked, &content).latency(RTT).rate(SERVED));
    let (downloader, began) = (downloader(), cpu());
    let players = side_by_side(PLAYERS, |index| {
        let began = Instant::now();
        let url = origin.url(&format!("/{index}"));
        let config = FileConfig::default().read_timeout(None);
        let mut stream = downloader.open_with(&url, config).expect("a file");
        let mut buffer = vec![0; (PLAYED as f64 * PERIOD.as_secs_f64()) as usize];
        stream.read_exact(&mut buffer).expect("its first bytes");
        let (first, start) = (began.elapsed(), Instant::now());
        let delays: Vec<Duration> = (1..=READS)
            .map(|read| {
                let due = start + PERIOD * read;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                stream.read_exact(&mut buffer).expect("its bytes");
                due.elapsed()
            })
            .collect();
        (first, delays)
    });
    let cpu = cpu() - began;
    let firsts = Quantiles::new(players.iter().map(|(first, _)| *first).collect());
    let delays: Vec<Duration> = players.into_iter().flat_map(|(_, delays)| delays).collect();
    let late = delays.iter().filter(|delay| **delay > PERIOD).count();
    let (middle, last) = (firsts.at(0.5), firsts.at(1.0));
    println!("{PLAYERS} slow players: first byte p50 {middle:.1?}, last {last:.1?}, cpu {cpu:.1?}");
    let (all, delays) = (delays.len(), Quantiles::new(delays));
    println!("  {late} of {all} reads late, p99 {:.1?}, worst {:.1?}", delays.at(0.99), delays.at(1.0));
}
