//! Many players at once on one downloader, whose threads are few, beside pools of other sizes.
//!
//! `cargo bench --bench many`. First, 100 players open a file each at the same moment: the time to the first byte, at a round
//! trip of 40 ms. Then 30 players read 32 kB a second each from a server that gives each response 60 kB a second: the time to
//! the first byte, and how many reads came late. A read is late if its bytes arrive more than a period after they are due.
//!
//! The rows: windway's default, six workers beside which blocked readers run their own fetches; the same pool without that; and
//! pools of 40 and 100 workers without it, which stand for a pool that grows to a bound and has grown. Each row has a process
//! of its own, so that its memory is not that of the row before.
//!
//! On two cores with nothing beside, the median of three opens:
//!
//! | pool | first byte of 100 opens | late reads of 8,970 | windway's threads | memory of 100 opens |
//! |---|---|---|---|---|
//! | 6 workers and the blocked readers | 102 ms | 0 | 10 | 32 MiB |
//! | 6 workers | 650 ms | 7,472 | 10 | 12 MiB |
//! | 40 workers | 170 ms | 0 | 44 | 36 MiB |
//! | 100 workers | 102 ms | 0 | 104 | 46 MiB |
//!
//! A pool that grows does as well, as long as its bound is not below the number of blocked readers: each of them has a thread that
//! waits anyway, and beside it the pool needs one more. It has to guess the bound, to end threads again, and to keep prefetches
//! from filling what was grown for urgent work. So the pool is fixed, and blocked readers lend their threads.
//!
//! A long piece is closed only if its worker is needed and it can't be preempted with its body open (`PieceSink::is_too_long`). What
//! more cuts cost, with the players of the first row for 60 s over TLS beside other load:
//!
//! | a piece that has lasted for 8 s is cut | cuts | requests | connections | late reads of 17,970 | p99 |
//! |---|---|---|---|---|---|
//! | always | 23-24 | 192-198 | 61-64 | 5-9 | 20 ms |
//! | if a worker is wanted, also by an aged prefetch | 26 | 159 | 62 | 4 | 0.6 ms |
//! | never | 0 | 96 | 32 | 0 | 0.8-6 ms |
//!
//! With the rule as it is, for 30 s without TLS: 72 requests, 31 or 32 connections, 0 late reads of 8,970, p99 0.8 ms. To never cut is no
//! answer: pieces of 64 MiB whose bytes a caller waits for could hold all workers until they end.

mod measure;

use std::io::Read;
use std::process::Command;
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

/// Workers, and whether blocked readers run their own fetches beside them.
type Pool = (usize, bool);

const POOLS: [(&str, Pool); 4] = [
    ("6 workers and the blocked readers", (6, true)),
    ("6 workers", (6, false)),
    ("40 workers", (40, false)),
    ("100 workers", (100, false)),
];

fn main() {
    let row = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok());
    if let Some(row) = row {
        let (name, pool) = POOLS[row];
        println!("{name}:");
        (0..3).for_each(|_| opens_at_once(pool, Content::pattern(4 << 20)));
        return slow_players(pool);
    }
    let itself = std::env::current_exe().expect("the path of this program");
    for row in 0..POOLS.len() {
        let ended = Command::new(&itself).arg(row.to_string()).status().expect("a process for a row");
        assert!(ended.success(), "row {row}");
    }
}

fn downloader((workers, is_lending): Pool) -> Downloader {
    let mut config = DownloaderConfig::default();
    config.max_concurrent = workers;
    let downloader = Downloader::new(config).expect("sound options");
    if is_lending { downloader } else { downloader.without_lending() }
}

/// Threads that fetch: those of the pool, and those of players beside it. 0 where the system has no `/proc`.
fn threads() -> usize {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    threads.flatten().filter_map(name).filter(|name| name.starts_with("windway-")).count()
}

/// Resident memory of this process in MiB; 0 where the system has no `/proc`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pages * 4096) >> 20
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

fn opens_at_once(pool: Pool, content: Content) {
    let origin = Origin::start_with_rtt(RTT, move |request| Answer::file(request, &content).latency(RTT));
    let (downloader, began, before) = (downloader(pool), cpu(), resident());
    let firsts = side_by_side(OPENS, |index| {
        let began = Instant::now();
        let url = origin.url(&format!("/{index}"));
        let mut stream = downloader.open_with(&url, FileConfig::default()).expect("a file");
        stream.read_exact(&mut [0; 4096]).expect("its first bytes");
        (began.elapsed(), stream)
    });
    let (threads, memory) = (threads(), resident().saturating_sub(before));
    let firsts = Quantiles::new(firsts.iter().map(|(first, _)| *first).collect());
    let (middle, last, cpu) = (firsts.at(0.5), firsts.at(1.0), cpu() - began);
    println!(
        "  {OPENS} opens at once: first byte p50 {middle:.1?}, last {last:.1?}, cpu {cpu:.1?}, {threads} threads, {memory} MiB more"
    );
}

fn slow_players(pool: Pool) {
    let content = Content::pattern(16 << 20);
    let origin =
        Origin::start_with_rtt(RTT, move |request| Answer::file(request, &content).latency(RTT).rate(SERVED));
    let (downloader, began) = (downloader(pool), cpu());
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
    println!("  {PLAYERS} slow players: first byte p50 {middle:.1?}, last {last:.1?}, cpu {cpu:.1?}");
    let waits = delays.iter().filter(|delay| **delay >= RTT).count();
    let (all, delays) = (delays.len(), Quantiles::new(delays));
    println!("    {late} of {all} reads late, p99 {:.1?}, worst {:.1?}", delays.at(0.99), delays.at(1.0));
    let log = origin.log();
    let (requests, connections) = (log.requests.len(), log.connections);
    println!("    {waits} reads waited for a round trip; {requests} requests, {connections} connections");
}
