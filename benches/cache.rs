//! What the persistent cache costs: filling it beside a temporary file, hits at first touch and after it beside reading a plain
//! file, span files as Media3 has them and blobs in SQLite, and opening a directory of many entries.
//!
//! `cargo bench --bench cache --features cache`. Rounds are interleaved, and the best of each is shown: on a busy machine
//! compare the ratios. Everything is read from the page cache.

mod measure;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use measure::cpu;
use support::{Answer, Content, Origin};
use windway::cache::{Cache, CacheConfig};
use windway::config::{ReadAhead, StorageConfig};
use windway::{Downloader, DownloaderConfig, FileConfig, Stream};

const LEN: u64 = 256 << 20;
const CHUNK: usize = 64 * 1024;
const ROUNDS: usize = 7;

/// Bytes of a span file.
const SPAN: usize = 5 << 20;

/// Entries of the large directory.
const ENTRIES: usize = 20_000;

/// The best round of each.
struct Best(Vec<(&'static str, Duration, Duration)>);

fn main() {
    filling();
    hits();
    many_entries();
}

impl Best {
    fn note(&mut self, name: &'static str, run: impl FnOnce()) {
        let (began, before) = (Instant::now(), cpu());
        run();
        let (took, cpu) = (began.elapsed(), cpu() - before);
        match self.0.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, best, least)) => (*best, *least) = (took.min(*best), cpu.min(*least)),
            None => self.0.push((name, took, cpu)),
        }
    }

    fn show(&self) {
        let (_, first, first_cpu) = self.0[0];
        for (name, took, cpu) in &self.0 {
            let rate = LEN as f64 / took.as_secs_f64() / 1e9;
            let ratio = first.as_secs_f64() / took.as_secs_f64();
            let cpu_ratio = cpu.as_secs_f64() / first_cpu.as_secs_f64().max(0.01);
            println!("{name:<44} {rate:>6.2} GB/s  {ratio:>5.2} x the first, cpu {cpu:.2?} {cpu_ratio:.2} x");
        }
    }
}

fn origin() -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| Answer::file(request, &content).header("Cache-Control", "max-age=86400"))
}

fn open(directory: &Path) -> Cache {
    Cache::open(directory, CacheConfig::new().max_bytes(8 << 30).keep_free(0)).expect("a cache")
}

fn stream(downloader: &Downloader, origin: &Origin, config: FileConfig) -> Stream {
    downloader.open_with(&origin.url("/a"), config).expect("a stream")
}

fn drain(from: &mut impl Read) {
    let mut buf = vec![0; CHUNK];
    let mut len = 0;
    loop {
        match from.read(&mut buf).expect("bytes") {
            0 => break,
            got => len += got as u64,
        }
    }
    assert_eq!(len, LEN);
}

/// A whole file from a server on this machine.
fn filling() {
    println!("a file of {} MiB, streamed and stored", LEN >> 20);
    let (origin, mut best) = (origin(), Best(Vec::new()));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let whole = || FileConfig::new().read_ahead(ReadAhead::Whole);
    for _ in 0..ROUNDS {
        let temporary = || whole().storage(StorageConfig::TempFile(None));
        best.note("in a temporary file", || drain(&mut stream(&downloader, &origin, temporary())));
        let directory = tempfile::tempdir().expect("a directory");
        let cached = whole().cache(open(directory.path()));
        best.note("in the cache", || drain(&mut stream(&downloader, &origin, cached)));
    }
    best.show();
}

/// A file that is stored already.
fn hits() {
    println!("a file of {} MiB that is stored, in reads of 64 KiB", LEN >> 20);
    let (origin, mut best) = (origin(), Best(Vec::new()));
    let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
    let directory = tempfile::tempdir().expect("a directory");
    let config = || FileConfig::new().read_ahead(ReadAhead::Whole).cache(open(directory.path()));
    drain(&mut stream(&downloader, &origin, config()));
    let requests = downloader.stats().requests;
    let plain = directory.path().join("plain");
    let mut bytes = Vec::new();
    Content::pattern(LEN).append(&mut bytes, 0..LEN);
    fs::write(&plain, &bytes).expect("a file");
    let spans: Vec<_> = bytes
        .chunks(SPAN)
        .enumerate()
        .map(|(number, span)| write_span(directory.path(), number, span))
        .collect();
    drop(bytes);
    for _ in 0..ROUNDS {
        best.note("a plain file", || drain(&mut File::open(&plain).expect("a file")));
        best.note("span files, unchecked", || {
            let files = spans.iter().map(|span| File::open(span).expect("a span"));
            drain(
                &mut files
                    .fold(Box::new(std::io::empty()) as Box<dyn Read>, |all, span| Box::new(all.chain(span))),
            );
        });
        let mut cached = stream(&downloader, &origin, config());
        best.note("the cache, first touch", || drain(&mut cached));
        cached.rewind().expect("a seek");
        best.note("the cache, after it", || drain(&mut cached));
    }
    assert_eq!(downloader.stats().requests, requests);
    best.show();
    match sqlite(directory.path(), &plain) {
        Some(took) => {
            let rate = LEN as f64 / took.as_secs_f64() / 1e9;
            println!("{:<44} {rate:>6.2} GB/s", "blobs of 256 KiB in SQLite, by python3");
        }
        None => println!("blobs in SQLite: not measured, python3 with sqlite3 is missing"),
    }
}

/// Stores the file named first in the database named second, and prints the seconds of the best of seven times of reading it. By
/// Python, since a crate would add a build of SQLite to that of all benches; it adds one copy of each blob.
const SQLITE: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[2])
db.execute('CREATE TABLE blocks (number INTEGER PRIMARY KEY, bytes BLOB)')
with open(sys.argv[1], 'rb') as file:
    for number, block in enumerate(iter(lambda: file.read(262144), b'')):
        db.execute('INSERT INTO blocks VALUES (?, ?)', (number, block))
db.commit()
best = float('inf')
for _ in range(7):
    began, length, number = time.perf_counter(), 0, 0
    while row := db.execute('SELECT bytes FROM blocks WHERE number = ?', (number,)).fetchone():
        length, number = length + len(row[0]), number + 1
    best = min(best, time.perf_counter() - began)
print(length, best)
";

/// How long it takes to read the whole file from a database. `None` without Python.
fn sqlite(directory: &Path, plain: &Path) -> Option<Duration> {
    let mut command = Command::new("python3");
    command.args(["-c", SQLITE]).arg(plain).arg(directory.join("blobs.sqlite"));
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (len, seconds) = text.trim().split_once(' ')?;
    assert_eq!(len.parse(), Ok(LEN));
    Some(Duration::from_secs_f64(seconds.parse().ok()?))
}

fn write_span(directory: &Path, number: usize, bytes: &[u8]) -> std::path::PathBuf {
    let span = directory.join(format!("{number}.span"));
    File::create(&span).and_then(|mut file| file.write_all(bytes)).expect("a span");
    span
}

/// A directory with many entries.
fn many_entries() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    let root = directory.path().join("windway-cache-1");
    for number in 0..ENTRIES {
        let folder = root.join(format!("{:02x}", number % 256));
        fs::create_dir_all(&folder).expect("a directory");
        let name = format!("{:02x}{number:030x}-{number:016x}", number % 256);
        fs::write(folder.join(name), [0; 100]).expect("an entry");
    }
    let (mut opened, mut counted, before) = (Duration::MAX, Duration::MAX, cpu());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let cache = open(directory.path());
        opened = opened.min(began.elapsed());
        assert!(cache.size() >= ENTRIES as u64 * 100);
        counted = counted.min(began.elapsed());
    }
    let cpu = (cpu() - before) / ROUNDS as u32;
    println!(
        "a directory of {ENTRIES} entries: opened after {opened:.1?}, counted after {counted:.1?}, cpu {cpu:.1?}"
    );
}
