//! The downloader without streams: a peer that the downloader asks for fetches, and fetches that the caller waits for. See `--help`.

mod support;

use std::io::{self, Read};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::mpsc;

use support::demo::{Demo, Reply};
use windway::downloader::{Next, Outcome, Peer, PeerHandle, Sink};
use windway::{ByteRange, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, Priority};

const HELP: &str = "\
Fetches a file in parts in the background, and its last bytes meanwhile as urgent work.

    cargo run --release --example bare_downloader -- [URL]

URL  any file

Without a URL it starts a server on this machine, with a file of 16 MB. If the server does not support ranges, or does not say
how long the file is, it is read in one request.

Exit code: 0 if all bytes arrived, 1 if not, 2 for wrong arguments.";

const PART: u64 = 256 * 1024;

static FILE: [u8; 64 * PART as usize] = [0x77; 64 * PART as usize];

/// Returns the parts of a file, in order: a worker that is free asks for the next one.
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
            // A server that suddenly sends the whole file instead of a part fails the fetch.
            Ok(fetch) => {
                let part = Part { bytes: 0, ends: self.ends.clone() };
                Next::fetch(fetch.range(range).require_range(), Box::new(part))
            }
            Err(_) => Next::Wait, // `main` has parsed the same URL.
        }
    }
}

/// Counts the bytes of a part. A real sink would store them.
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
        drop(self.ends.send((self.bytes, outcome))); // Fails if `main` has ended.
    }
}

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = match &arguments[..] {
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [flag, ..] if flag.starts_with('-') => {
            return support::wrong_arguments(&format!("there is no option {flag}"), HELP);
        }
        [] => Demo::start(|request| Reply::file(request, &FILE, "audio/wav")).map(|demo| demo.url("/file")),
        [url] => Ok(url.clone()),
        _ => return support::wrong_arguments("one URL at a time", HELP),
    };
    match url.map_err(Into::into).and_then(|url| fetch(&url)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => support::failed(&*error),
    }
}

fn fetch(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let caller = downloader.register((), Priority::High)?;
    // One byte shows whether the server supports ranges, and the length. The drop of the response closes the rest.
    let first = caller.execute(Fetch::get(url)?.range(ByteRange::new(0, 1)))?;
    match (first.head().status(), first.head().total()) {
        (206, Some(len)) => {
            drop(first);
            fetch_parts(&downloader, &caller, url, len)?;
        }
        _ => {
            println!("the server does not support ranges, or sends no length: one request for all of it");
            let bytes = read_to_end(first)?;
            println!("{} in one request", support::bytes(bytes));
        }
    }
    println!("{:?}", downloader.stats());
    Ok(())
}

/// Reads a body in pieces, so that it needs no memory for all of it.
fn read_to_end(mut body: impl Read) -> io::Result<u64> {
    io::copy(&mut body, &mut io::sink())
}

fn fetch_parts(downloader: &Downloader, caller: &PeerHandle, url: &str, len: u64) -> Result<(), Error> {
    let parts = len.div_ceil(PART);
    let (ends, ended) = mpsc::channel();
    let pulled = downloader.register(Parts { url: url.into(), left: 0..parts, ends }, Priority::Low)?;
    pulled.wake(Priority::Low);
    let tail = Fetch::get(url)?.range(ByteRange::new(len.saturating_sub(10), len)).require_range();
    let last = caller.execute(tail)?.bytes(10)?;
    println!("the last bytes: {last:02x?}");

    let mut bytes = 0;
    for (part, outcome) in ended.iter().take(parts as usize) {
        match outcome {
            Outcome::Done => bytes += part,
            Outcome::Failed(error) => return Err(error),
            Outcome::Cancelled(reason) => {
                return Err(Error::new(ErrorKind::Cancelled(reason), "a part was cancelled"));
            }
            _ => {}
        }
    }
    println!("{} of {} in {parts} parts", support::bytes(bytes), support::bytes(len));
    Ok(())
}
