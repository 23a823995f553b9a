//! The memory budget of a downloader, `max_buffered`, with real streams.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use support::content::assert_pattern;
use support::dice::Dice;
use support::peers::downloader;
use support::{Content, Origin, in_time};
use windway::{Downloader, FileConfig, Priority, Stream};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// What each stream may hold beyond the limit: its first bytes, and its last ones.
const MIN_SHARE: u64 = 256 * KIB + 16 * KIB;

/// One test at a time: one of them measures the memory of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(downloader: &Downloader, origin: &Origin, priority: Priority) -> Stream {
    downloader.open_with(&origin.url("/a"), FileConfig::new().priority(priority)).unwrap()
}

/// A stream that was read for 64 KiB, and then left.
fn open_and_leave(downloader: &Downloader, origin: &Origin) -> Stream {
    let mut stream = open(downloader, origin, Priority::Low);
    stream.read_exact(&mut [0; 64 * KIB as usize]).unwrap();
    stream
}

fn held(streams: &[Stream]) -> u64 {
    streams.iter().flat_map(|stream| stream.handle().buffered()).map(|range| range.end - range.start).sum()
}

/// Blocks until no fetch runs or waits.
fn settle(downloader: &Downloader) {
    let events = downloader.subscribe();
    loop {
        let stats = downloader.stats();
        if stats.busy_workers == 0 && stats.queued == [0; 4] {
            return;
        }
        // A fetch that runs ends with an event; a peer that is only asked for one publishes none.
        let _ = events.recv_timeout(Duration::from_millis(20));
    }
}

#[test]
fn many_streams_that_were_left_stay_within_the_budget_and_play_on() {
    const STREAMS: u64 = 200;
    const LIMIT: u64 = 64 * MIB;
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(4 * MIB));
    let downloader = downloader(|config| config.max_buffered = LIMIT);
    let mut streams: Vec<_> = (0..STREAMS).map(|_| open_and_leave(&downloader, &origin)).collect();
    settle(&downloader);
    let held = held(&streams);
    assert!(held <= LIMIT + STREAMS * MIN_SHARE, "{} MiB", held / MIB);
    for stream in streams.iter_mut().step_by(40) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len() as u64, 4 * MIB - 64 * KIB);
        assert_pattern(64 * KIB, &rest);
    }
}

#[test]
fn a_stream_that_plays_keeps_its_window_beside_many_that_were_left() {
    const LIMIT: u64 = 64 * MIB;
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(64 * MIB));
    let downloader = downloader(|config| config.max_buffered = LIMIT);
    let mut player = open(&downloader, &origin, Priority::High);
    let mut streams: Vec<_> = (0..100).map(|_| open_and_leave(&downloader, &origin)).collect();
    let mut part = vec![0; MIB as usize];
    for number in 0..4 {
        player.read_exact(&mut part).unwrap();
        assert_pattern(number * MIB, &part);
        player.handle().wait_buffered(12 * MIB, PATIENCE).unwrap();
    }
    settle(&downloader);
    streams.push(player);
    let held = held(&streams);
    assert!(held <= LIMIT + 101 * MIN_SHARE, "{} MiB", held / MIB);
}

#[test]
fn a_single_stream_has_all_of_its_window() {
    let _alone = alone();
    let origin = Origin::serving(Content::pattern(64 * MIB));
    let downloader = downloader(|_| ());
    let mut player = open(&downloader, &origin, Priority::High);
    player.read_exact(&mut vec![0; MIB as usize]).unwrap();
    player.handle().wait_buffered(15 * MIB, PATIENCE).unwrap();
}

/// Resident memory of this process in bytes. `None` where the system does not tell it this way.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4 * KIB)
}

#[test]
fn the_memory_of_closed_streams_goes_back_to_the_system() {
    let _alone = alone();
    let Some(before) = resident() else { return };
    let origin = Origin::serving(Content::pattern(64 * MIB));
    let downloader = downloader(|_| ());
    let mut streams: Vec<_> = (0..8).map(|_| open(&downloader, &origin, Priority::High)).collect();
    for stream in &mut streams {
        stream.read_exact(&mut vec![0; MIB as usize]).unwrap();
        stream.handle().wait_buffered(12 * MIB, PATIENCE).unwrap();
    }
    settle(&downloader);
    let held = resident().unwrap().saturating_sub(before);
    assert!(held >= 64 * MIB, "{} MiB", held / MIB);
    drop((streams, downloader, origin));
    let left = resident().unwrap().saturating_sub(before);
    assert!(left <= held / 4, "{} of {} MiB", left / MIB, held / MIB);
}

/// What a reader does with its stream, at random. Panics at a wrong byte, or where none comes.
fn use_at_random(downloader: &Downloader, origin: &Origin, seed: u64) {
    let mut dice = Dice(seed);
    for _ in 0..6 {
        let mut stream = open(downloader, origin, Priority::Low);
        let handle = stream.handle();
        for _ in 0..dice.roll(8) {
            if dice.roll(3) == 0 {
                let position = dice.roll(LEN - 300_000);
                stream.seek(SeekFrom::Start(position)).unwrap();
            }
            if dice.roll(3) == 0 {
                handle.set_priority(if dice.roll(2) == 0 { Priority::Low } else { Priority::High });
            }
            let position = stream.stream_position().unwrap();
            let mut part = vec![0; (1 + dice.roll(300_000)).min(LEN - position) as usize];
            stream.read_exact(&mut part).unwrap();
            assert_pattern(position, &part);
        }
    }
}

const LEN: u64 = 2 * MIB;

#[test]
fn readers_get_their_bytes_however_small_the_budget_is() {
    let _alone = alone();
    for limit in [1, 3 * MIB] {
        let origin = Origin::serving(Content::pattern(LEN));
        in_time("all readers", move || {
            let downloader = downloader(|config| config.max_buffered = limit);
            thread::scope(|scope| {
                for seed in 0..8 {
                    let (downloader, origin) = (&downloader, &origin);
                    scope.spawn(move || use_at_random(downloader, origin, seed));
                }
            });
            // What these streams held has come back: others get it.
            let mut stream = open(&downloader, &origin, Priority::Low);
            stream.read_exact(&mut [0; 64 * KIB as usize]).unwrap();
            let expected = (limit / 3).max(64 * KIB);
            stream.handle().wait_buffered(expected, PATIENCE).unwrap();
        });
    }
}
