//! Reading one large body to its end by `Stream::read`, for each storage, compared with plain ureq and a raw socket. The same
//! body into sinks of the program's own, by a pulled peer. And reading stored bytes again.
//!
//! `cargo bench --bench throughput`. The server runs in the same process: its CPU time and memory are in all figures alike.
//!
//! Compare the rates of two rows only if their sleeps are alike. A reader that is faster than this server finds the socket empty and
//! sleeps, and to wake it takes the server's time: 20 to 30 µs on a virtual machine, for an interrupt of the other processor. So
//! ureq, whose reader takes as long as the server, reaches twice the rate in some runs, with a tenth of the sleeps. The CPU time of
//! the reader says what a library costs its user. The server of `compare/` sends one buffer again and again, and so has more time
//! left than this one, which composes each chunk.

mod measure;

use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use measure::{cpu, thread_cpu};
use support::{Content, Origin};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::{Buffer, Next, Outcome, Peer, Sink};
use windway::{Downloader, DownloaderConfig, Error, Fetch, FileConfig, Priority};

const LEN: u64 = 512 << 20;
const CHUNK: usize = 64 * 1024;

/// Rounds of each comparison. The middle one counts.
const ROUNDS: usize = 5;

/// `cargo bench --bench throughput -- [row ..]` measures the named rows only, or all of them.
fn main() {
    let rows: Vec<String> = std::env::args().skip(1).filter(|row| !row.starts_with("--")).collect();
    let is_chosen = |row: &str| rows.is_empty() || rows.iter().any(|chosen| chosen == row);
    let origin = Origin::serving(Content::pattern(LEN));
    measure("a raw socket", || raw(&origin));
    for (row, name, storage) in [
        ("memory", "windway, windowed memory", StorageConfig::Memory),
        ("window", "windway, windowed temporary file", StorageConfig::WindowedTempFile(None)),
        ("file", "windway, temporary file", StorageConfig::TempFile(None)),
        ("whole", "windway, all in memory", StorageConfig::WholeMemory),
    ] {
        if is_chosen(row) {
            let run = || {
                let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
                let config = FileConfig::new().storage(storage.clone());
                let mut stream = downloader.open_with(&origin.url("/a"), config).expect("a stream");
                let len = drain(&mut stream);
                let stats = stream.handle().stats();
                println!(
                    "{} requests, {} blocked reads for {:.1?} together",
                    stats.requests, stats.stalls, stats.stalled
                );
                len
            };
            beside_ureq(&origin, name, run);
            if row == "file" {
                beside(&origin, "ureq that writes a file", || stored_by_ureq(&origin), name, run);
            }
        }
    }
    if is_chosen("sinks") {
        let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
        let url = origin.url("/a");
        beside_ureq(&origin, "a sink that copies, 64 KiB at once", || copied(&downloader, &url));
        beside_ureq(&origin, "a sink that keeps blocks, and a reader", || kept(&downloader, &url));
    }
    if is_chosen("stored") {
        stored(&origin);
    }
}

fn beside_ureq(origin: &Origin, name: &str, run: impl Fn() -> u64) {
    beside(origin, "plain ureq", || by_ureq(origin), name, run);
}

/// Runs in turn with a peer, so that both meet the same load, and prints the middle ratios.
fn beside(origin: &Origin, peer: &str, by_peer: impl Fn() -> u64, name: &str, run: impl Fn() -> u64) {
    let mut ratios = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let ureq = measure(peer, &by_peer);
        // As below.
        raw(origin);
        let own = measure(name, &run);
        // The next request must not run beside the disk thread, which closes the temporary file for 30 ms.
        raw(origin);
        ratios[0].push(own.rate / ureq.rate);
        ratios[1].push(own.reader.as_secs_f64() / ureq.reader.as_secs_f64());
    }
    let [rate, reader] = ratios.map(|mut ratios| {
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    });
    println!("{name:<40} {rate:.2} of the rate of {peer}, {reader:.2} of the reader's CPU time\n");
}

fn by_ureq(origin: &Origin) -> u64 {
    let mut response = ureq::get(origin.url("/a")).call().expect("an answer");
    drain(&mut response.body_mut().as_reader())
}

/// The limit for a temporary file: the bytes are also written, by a second thread, and nothing else is done with them. Chunks in
/// memory are limited as they are in windway.
fn stored_by_ureq(origin: &Origin) -> u64 {
    let file = tempfile::tempfile().expect("a temporary file");
    let mut response = ureq::get(origin.url("/a")).call().expect("an answer");
    let mut body = response.body_mut().as_reader();
    let (full, to_write) = mpsc::sync_channel::<Vec<u8>>(64);
    let (written, free) = mpsc::channel::<Vec<u8>>();
    let writer = std::thread::spawn(move || {
        let mut file = file;
        for chunk in to_write {
            file.write_all(&chunk).expect("space");
            drop(written.send(chunk));
        }
    });
    let mut len = 0;
    loop {
        let mut chunk = free.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let got = body.read(&mut chunk).expect("bytes");
        if got == 0 {
            break;
        }
        len += got as u64;
        chunk.truncate(got);
        full.send(chunk).expect("a writer");
    }
    drop(full);
    writer.join().expect("no panic");
    len
}

/// Fetches one thing into a sink.
struct Once<S>(Option<(String, S)>);

impl<S: Sink + 'static> Peer for Once<S> {
    fn next_fetch(&mut self, _: Priority) -> Next {
        let Some((url, sink)) = self.0.take() else { return Next::Wait };
        Next::last(Fetch::get(&url).expect("a URL").priority(Priority::High), Box::new(sink))
    }
}

/// Copies all bytes into a small buffer of its own, as a program does that hands them to a decoder.
struct Copies {
    own: Box<[u8]>,
    len: u64,
    end: mpsc::Sender<u64>,
}

impl Sink for Copies {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(self.own.len()) {
            self.own[..part.len()].copy_from_slice(part);
            self.len += std::hint::black_box(&self.own[..part.len()]).len() as u64;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {
        self.end.send(self.len).expect("a waiter");
    }
}

fn copied(downloader: &Downloader, url: &str) -> u64 {
    let (end, ended) = mpsc::channel();
    let sink = Copies { own: vec![0; CHUNK].into(), len: 0, end };
    let peer = downloader.register(Once(Some((url.to_owned(), sink))), Priority::High);
    let peer = peer.expect("a running downloader");
    peer.wake(Priority::High);
    ended.recv().expect("an end")
}

/// Hands what it gets to a thread that reads it.
struct Keeps(mpsc::SyncSender<Buffer>);

impl Sink for Keeps {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write_block(offset, &mut Buffer::from(bytes.to_vec()))
    }

    fn write_block(&mut self, _: u64, block: &mut Buffer) -> Result<(), Error> {
        self.0.send(std::mem::take(block)).expect("a reader");
        Ok(())
    }

    fn finish(self: Box<Self>, _: Outcome) {}
}

fn kept(downloader: &Downloader, url: &str) -> u64 {
    let (blocks, arrived) = mpsc::sync_channel(16);
    let peer = downloader.register(Once(Some((url.to_owned(), Keeps(blocks)))), Priority::High);
    let peer = peer.expect("a running downloader");
    peer.wake(Priority::High);
    arrived.iter().map(|block| drain(&mut &block[..])).sum()
}

/// Reads to the end. Returns the number of bytes.
fn drain(from: &mut impl Read) -> u64 {
    let mut buf = vec![0; CHUNK];
    let mut len = 0;
    loop {
        match from.read(&mut buf).expect("bytes") {
            0 => return len,
            got => len += got as u64,
        }
    }
}

fn raw(origin: &Origin) -> u64 {
    let mut socket = TcpStream::connect(origin.address()).expect("a connection");
    socket.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a request");
    let mut buf = vec![0; CHUNK];
    let mut len = 0;
    while len < LEN {
        len += socket.read(&mut buf).expect("bytes") as u64;
    }
    LEN
}

/// What one run took.
struct Run {
    /// MB/s.
    rate: f64,
    /// CPU time of the thread that reads.
    reader: Duration,
}

fn measure(name: &str, run: impl FnOnce() -> u64) -> Run {
    reset_peak();
    let before = status("VmRSS:");
    let (began, cpu_before, reader_before, sleeps) = (Instant::now(), cpu(), thread_cpu(), sleeps());
    assert_eq!(run(), LEN);
    let sleeps = self::sleeps() - sleeps;
    let (took, cpu, reader) = (began.elapsed(), cpu() - cpu_before, thread_cpu() - reader_before);
    let peak = status("VmHWM:").saturating_sub(before) / 1024;
    let rate = LEN as f64 / took.as_secs_f64() / 1e6;
    let (all, own) = (cpu.as_secs_f64(), reader.as_secs_f64());
    println!(
        "{name:<40} {rate:>6.0} MB/s  cpu {all:>5.2} s, reader {own:>6.3} s, {sleeps:>5} sleeps  {peak:>4} MiB more at the peak"
    );
    Run { rate, reader }
}

/// Stored bytes that are read repeatedly.
fn stored(origin: &Origin) {
    for (name, storage) in [
        ("stored bytes, memory", StorageConfig::WholeMemory),
        ("stored bytes, temporary file", StorageConfig::TempFile(None)),
    ] {
        let downloader = Downloader::new(DownloaderConfig::default()).expect("sound options");
        let mut config = FileConfig::default();
        config.storage = storage;
        config.read_ahead = ReadAhead::Whole;
        let mut stream = downloader.open_with(&origin.url("/a"), config).expect("a stream");
        drain(&mut stream);
        let (began, calls) = (Instant::now(), system_calls());
        let mut read = 0;
        while began.elapsed() < Duration::from_secs(2) {
            stream.rewind().expect("a seek");
            read += drain(&mut stream);
        }
        let rate = read as f64 / began.elapsed().as_secs_f64() / 1e9;
        println!(
            "{name:<36} {rate:>6.2} GB/s  in 64 KiB reads, {} reads by system call",
            system_calls() - calls
        );
    }
}

/// Number of read system calls of this process so far.
fn system_calls() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok()).unwrap_or(0)
}

/// How often this thread has slept so far.
fn sleeps() -> u64 {
    field_of("/proc/thread-self/status", "voluntary_ctxt_switches:")
}

/// A field of `/proc/self/status` in KiB.
fn status(field: &str) -> u64 {
    field_of("/proc/self/status", field)
}

/// 0 where the system has no `/proc`.
fn field_of(path: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Resets the peak of the resident memory to its current size. Does nothing where the system has no `/proc`.
fn reset_peak() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}
