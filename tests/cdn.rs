//! The shape of the requests for a file, and what it is worth to the caches of a CDN.
//!
//! The tests with nginx, varnish and squid need these installed, so they run on demand, and print the ratios:
//! `cargo test --test cdn -- --ignored --nocapture --test-threads 1`.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use support::content::assert_pattern;
use support::daemon::{Daemon, program};
use support::{Answer, Content, Origin, Request};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Stream};

/// Bytes of a slice.
const BLOCK: u64 = 256 * 1024;

/// Bytes of each file.
const LEN: u64 = 24 << 20;

fn open(url: &str, config: FileConfig) -> Stream {
    // Each client of a CDN has its own.
    Downloader::new(DownloaderConfig::default()).unwrap().open_with(url, config).unwrap()
}

fn read_at(stream: &mut Stream, position: u64, bytes: usize) {
    stream.seek(SeekFrom::Start(position)).unwrap();
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).unwrap();
    assert_pattern(position, &got);
}

/// The ranges that were requested behind `position`, in the order of their starts.
fn ranges_behind(origin: &Origin, position: u64) -> Vec<(u64, u64)> {
    let requests = origin.log().requests;
    let mut ranges: Vec<_> = requests
        .iter()
        .filter_map(|request| request.range())
        .filter(|(first, _)| *first > position)
        .map(|(first, last)| (first, last.map_or(LEN, |last| last + 1)))
        .collect();
    ranges.sort_unstable();
    ranges
}

#[test]
fn clients_that_jump_to_other_places_request_the_same_ranges_behind_them() {
    let requested: Vec<BTreeSet<(u64, u64)>> = [3_000_001, 3_010_203]
        .map(|position| {
            let content = Content::pattern(LEN);
            // So slow that the pieces are not long ones.
            let origin = Origin::start(move |request| Answer::file(request, &content).rate(2_000_000));
            let mut stream = open(&origin.url("/a"), FileConfig::default());
            read_at(&mut stream, position, 3_000_000);
            drop(stream);
            let ranges = ranges_behind(&origin, position);
            for (start, end) in &ranges[2..] {
                // The last one ends where the suffix request begins.
                assert!(start % (64 * 1024) == 0, "{ranges:?}");
                assert!(end % (64 * 1024) == 0 || *end > LEN - 64 * 1024, "{ranges:?}");
            }
            ranges.into_iter().collect()
        })
        .into();
    let common = requested[0].intersection(&requested[1]).count();
    assert!(common >= 3, "{requested:?}");
}

#[test]
fn no_request_for_a_file_has_a_condition() {
    let content = Content::pattern(2_000_000);
    let origin = Origin::start(move |request| match request.again {
        1 | 2 => Answer::file(request, &content).close_after(100_000),
        _ => Answer::file(request, &content),
    });
    let mut stream = open(&origin.url("/a"), FileConfig::default());
    read_at(&mut stream, 0, 2_000_000);
    let requests = origin.log().requests;
    assert!(requests.len() >= 4, "{requests:?}");
    assert!(requests.iter().all(|request| request.header("if-range").is_none()), "{requests:?}");
}

#[test]
fn the_rest_of_a_piece_of_another_version_is_refused_before_a_byte_of_it_is_stored() {
    let old = Content::pattern(2_000_000);
    let new = Content::bytes(vec![b'x'; 2_000_000]);
    let origin = Origin::start(move |request| match request.again {
        0 => Answer::file(request, &old),
        1 => Answer::file(request, &old).close_after(100_000),
        _ => Answer::file(request, &new).header("ETag", "\"v2\""),
    });
    let mut stream = open(&origin.url("/a"), FileConfig::default());
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).unwrap_err();
    assert_eq!(Error::from(error).kind(), ErrorKind::Changed);
    assert_pattern(0, &got);
}

/// What a crowd of clients has read.
#[derive(Debug, Default)]
struct Crowd {
    /// File and block.
    blocks: BTreeSet<(u64, u64)>,
    files: BTreeSet<u64>,
}

const FILES: u64 = 20;
const CLIENTS: u64 = 200;

/// Clients that run at the same time.
const AT_ONCE: usize = 25;

/// Files that each client opens, and its jumps in each.
const OPENED: u64 = 2;
const JUMPS: u64 = 4;

/// Bytes that are read behind a jump.
const READ: u64 = 100_000;

/// The origin of `FILES` files. They may be stored for an hour.
fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let content = Content::pattern(LEN);
        let now = SystemTime::now();
        let [date, modified] = [now, now - Duration::from_secs(86_400)].map(httpdate::fmt_http_date);
        // Without a date squid stores nothing. An origin with a clock has to send it (RFC 9110, section 6.6.1).
        let answer = Answer::file(request, &content).header("Date", &date).header("Last-Modified", &modified);
        answer.header("Cache-Control", "public, max-age=3600")
    })
}

impl Crowd {
    /// Opens files and jumps in them, as all clients do through the cache at `port`.
    fn run(port: u16) -> Self {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut crowd = Self::default();
            loop {
                let client = next.fetch_add(1, Ordering::Relaxed) as u64;
                if client >= CLIENTS {
                    return crowd;
                }
                crowd.run_client(port, client);
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let crowds = threads.into_iter().map(|thread| thread.join().unwrap());
            crowds.fold(Self::default(), |mut all, mut crowd| {
                all.blocks.append(&mut crowd.blocks);
                all.files.append(&mut crowd.files);
                all
            })
        })
    }

    fn run_client(&mut self, port: u16, client: u64) {
        let mut dice = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        for _ in 0..OPENED {
            let file = roll(FILES);
            let mut stream = downloader.open(&format!("http://127.0.0.1:{port}/{file}")).unwrap();
            self.files.insert(file);
            for _ in 0..JUMPS {
                let position = roll(LEN - READ);
                read_at(&mut stream, position, READ as usize);
                self.touch(file, position..position + READ);
            }
        }
    }

    fn touch(&mut self, file: u64, bytes: Range<u64>) {
        self.blocks.extend((bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)).map(|block| (file, block)));
    }
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // For servers that give up the rights of root.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    directory
}

/// Writes the configuration in `tests/data/cdn`, with its variables replaced.
fn configure(directory: &Path, name: &str, text: &str, port: u16, origin: &Origin) -> std::path::PathBuf {
    let text = text
        .replace("@PORT@", &port.to_string())
        .replace("@ORIGIN@", &origin.address().port().to_string())
        .replace("@DIRECTORY@", &directory.display().to_string());
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn print(name: &str, origin: &Origin, of: u64, what: &str) -> f64 {
    let log = origin.log();
    let ratio = log.sent as f64 / of as f64;
    println!(
        "{name}: {} requests, {} bytes from the origin, {ratio:.3} x {what}",
        log.requests.len(),
        log.sent
    );
    ratio
}

#[test]
#[ignore = "needs nginx"]
fn nginx_fetches_each_slice_once() {
    let origin = origin();
    let nginx = Daemon::start("nginx-light", directory(), |directory, port| {
        let text = include_str!("data/cdn/nginx.conf");
        let mut command = program("nginx");
        command.arg("-p").arg(directory).arg("-c").arg(configure(
            directory,
            "nginx.conf",
            text,
            port,
            &origin,
        ));
        command
    });
    let crowd = Crowd::run(nginx.port.number);
    // What was sent to clients, as nginx logs it: read-ahead, too.
    let log = fs::read_to_string(nginx.directory.path().join("access.log")).unwrap();
    let mut sent = Crowd::default();
    for line in log.lines() {
        sent.add_line(line);
    }
    let read = crowd.blocks.len() as u64 * BLOCK;
    print("nginx", &origin, read, "the blocks that were read");
    let sent = sent.blocks.len() as u64 * BLOCK;
    let ratio = print("nginx", &origin, sent, "the blocks that were touched");
    assert!(ratio <= 1.1, "{ratio}");
}

impl Crowd {
    /// Adds a line of the log: path, status, bytes of body that were sent, requested range.
    fn add_line(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [path, _, sent, range] = fields[..] else { panic!("{line}") };
        let file = path.trim_start_matches('/').parse().unwrap();
        let range = range.trim_start_matches("bytes=").split_once('-');
        let (first, last) = range.unwrap_or(("0", ""));
        let start = match (first.parse(), last.parse::<u64>()) {
            (Ok(first), _) => first,
            (Err(_), Ok(suffix)) => LEN - suffix,
            _ => 0,
        };
        let sent: u64 = sent.parse().unwrap();
        self.touch(file, start..(start + sent.max(1)).min(LEN));
    }
}

#[test]
#[ignore = "needs varnish"]
fn varnish_fetches_each_file_once() {
    let origin = origin();
    let varnish = Daemon::start("varnish", directory(), |directory, port| {
        let text = include_str!("data/cdn/varnish.vcl");
        let vcl = configure(directory, "varnish.vcl", text, port, &origin);
        let mut command = program("varnishd");
        command.arg("-F").arg("-f").arg(vcl).arg("-a").arg(format!("127.0.0.1:{port}"));
        command.arg("-n").arg(directory.join("work")).args(["-s", "malloc,1g"]);
        command
    });
    let crowd = Crowd::run(varnish.port.number);
    let ratio = print("varnish", &origin, crowd.files.len() as u64 * LEN, "the files that were touched");
    assert!(ratio <= 1.1, "{ratio}");
}

#[test]
#[ignore = "needs squid"]
fn squid_fetches_each_file_once() {
    let origin = origin();
    let squid = Daemon::start("squid", directory(), |directory, port| {
        let text = include_str!("data/cdn/squid.conf");
        let mut command = program("squid");
        // A single process, so that killing it ends the server.
        command.arg("-N").arg("-d").arg("1").arg("-f").arg(configure(
            directory,
            "squid.conf",
            text,
            port,
            &origin,
        ));
        command
    });
    let crowd = Crowd::run(squid.port.number);
    let ratio = print("squid", &origin, crowd.files.len() as u64 * LEN, "the files that were touched");
    assert!(ratio <= 1.1, "{ratio}");
}
