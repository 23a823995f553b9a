//! The cache while processes that use it are killed at random, and while several evict each other's entries: a byte served is
//! the byte that the server has.
//!
//! The children are this executable once more: the test that is named `child` and does nothing else.
#![cfg(feature = "cache")]

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::content::assert_pattern;
use support::{Answer, Content, Origin};
use windway::cache::{Cache, CacheConfig};
use windway::config::ReadAhead;
use windway::{Downloader, DownloaderConfig, FileConfig};

/// Files at the origin, of different lengths.
const FILES: u64 = 6;

/// How a child finds its origin, its directory and its quota.
const CHILD: &str = "WINDWAY_CACHE_CHILD";

fn len(file: u64) -> u64 {
    700_000 + file * 333_333
}

fn origin() -> Origin {
    Origin::start(|request| {
        let file: u64 = request.path.trim_start_matches('/').parse().unwrap();
        Answer::file(request, &Content::pattern(len(file))).header("Cache-Control", "max-age=3600")
    })
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Reads parts of random files, and holds each byte against the origin's.
fn read_at_random(cache: &Cache, url: &str, random: &mut Random, files: usize) {
    let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
    for _ in 0..files {
        let file = random.below(FILES);
        let config = FileConfig::new().read_ahead(ReadAhead::Bytes(400_000)).cache(cache.clone());
        let mut stream = downloader.open_with(&format!("{url}{file}"), config).unwrap();
        assert_eq!(stream.len(), Some(len(file)));
        for _ in 0..4 {
            let at = random.below(len(file));
            stream.seek(SeekFrom::Start(at)).unwrap();
            let mut buf = vec![0; (random.below(300_000) + 1).min(len(file) - at) as usize];
            stream.read_exact(&mut buf).unwrap();
            assert_pattern(at, &buf);
        }
    }
}

fn spawn(directory: &Path, origin: &Origin, max_bytes: u64, seed: u64, files: usize) -> Child {
    let arguments = format!("{}|{}|{max_bytes}|{seed}|{files}", directory.display(), origin.url("/"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture"]).env(CHILD, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
#[ignore = "a process that the other tests start"]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let arguments: Vec<&str> = arguments.split('|').collect();
    let number = |index: usize| arguments[index].parse::<u64>().unwrap();
    let config = CacheConfig::new().max_bytes(number(2)).keep_free(0);
    let cache = Cache::open(arguments[0], config).unwrap();
    read_at_random(&cache, arguments[1], &mut Random(number(3)), number(4) as usize);
}

/// Fails with what the child has printed, unless it ended well or was killed.
fn check(child: Child, was_killed: bool) {
    let output = child.wait_with_output().unwrap();
    // A process that is killed has no exit code on Unix, and 1 on Windows. One whose test fails has 101.
    let killed = if cfg!(windows) { Some(1) } else { None };
    let is_fine = output.status.success() || (was_killed && output.status.code() == killed);
    assert!(is_fine, "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Kills one child after the other at random, while another one and this process read and write the same entries.
fn kill(kills: u64) {
    let (directory, origin) = (tempfile::tempdir().unwrap(), origin());
    let max_bytes = 4_000_000;
    let mut random = Random(kills);
    let mut bystander = spawn(directory.path(), &origin, max_bytes, 1, 40);
    for round in 0..kills {
        let mut child = spawn(directory.path(), &origin, max_bytes, round + 2, 1000);
        // At any point of its life.
        let until = Instant::now() + Duration::from_micros(random.below(60_000));
        if round % 10 == 0 {
            let cache = open(directory.path(), max_bytes);
            read_at_random(&cache, &origin.url("/"), &mut random, 2);
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
        child.kill().unwrap();
        check(child, true);
        if bystander.try_wait().unwrap().is_some() {
            check(bystander, false);
            bystander = spawn(directory.path(), &origin, max_bytes, round + 5000, 40);
        }
    }
    check(bystander, false);
    // What is left is right, and is counted.
    let cache = open(directory.path(), max_bytes);
    read_at_random(&cache, &origin.url("/"), &mut random, 20);
    let entries = cache.entries().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry.stored <= entry.len), "{entries:?}");
}

fn open(directory: &Path, max_bytes: u64) -> Cache {
    Cache::open(directory, CacheConfig::new().max_bytes(max_bytes).keep_free(0)).unwrap()
}

#[test]
fn processes_that_are_killed_leave_no_wrong_byte() {
    kill(50);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_processes_that_are_killed_leave_no_wrong_byte() {
    kill(1000);
}

/// Four processes, in a cache that holds two or three of the six files.
fn share(files: usize) {
    let (directory, origin) = (tempfile::tempdir().unwrap(), origin());
    let max_bytes = 4_000_000;
    let children: Vec<Child> =
        (0..4).map(|seed| spawn(directory.path(), &origin, max_bytes, seed + 100, files)).collect();
    children.into_iter().for_each(|child| check(child, false));
    let cache = open(directory.path(), max_bytes);
    assert!((1..=max_bytes).contains(&cache.size()), "{} bytes are left", cache.size());
}

#[test]
fn processes_that_evict_each_others_entries_read_no_wrong_byte() {
    share(40);
}

#[test]
#[ignore = "takes minutes"]
fn processes_that_evict_each_others_entries_for_minutes_read_no_wrong_byte() {
    share(4000);
}
