//! The server that all libraries talk to: HTTP/1.1 with ranges, on a thread for each connection.
//!
//! The query of a URL says how it answers: `rtt` is a round-trip time in milliseconds, which the first request of a connection pays
//! twice, for the handshake of TCP too; `rate` is a limit in bytes a second; `link` is one that all its responses share equally,
//! as a fair queue at a bottleneck does; `slots` is how many of its responses are sent at a time, in the order of the requests,
//! each over a connection that is closed afterwards.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// Bytes written at once.
const CHUNK: usize = 256 * 1024;

static TRACK: &[u8] = include_bytes!("../../tests/data/track.flac");

/// The byte at a position of a file: a false offset is found by almost every byte.
pub(crate) fn pattern(position: u64) -> u8 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The URLs of an origin.
pub(crate) struct Urls(pub(crate) SocketAddr);

impl Urls {
    /// 1 KiB.
    pub(crate) fn small(&self, rtt: u64) -> String {
        format!("http://{}/zeros/1024?rtt={rtt}", self.0)
    }

    pub(crate) fn zeros(&self, len: u64, rtt: u64, rate: u64) -> String {
        format!("http://{}/zeros/{len}?rtt={rtt}&rate={rate}", self.0)
    }

    /// Over a link of 2 MB/s.
    pub(crate) fn linked(&self, len: u64, rtt: u64) -> String {
        format!("http://{}/zeros/{len}?rtt={rtt}&link=2000000", self.0)
    }

    /// At 1 MB/s, 6 at a time.
    pub(crate) fn queued(&self, len: u64, rtt: u64) -> String {
        format!("http://{}/zeros/{len}?rtt={rtt}&rate=1000000&slots=6", self.0)
    }

    /// A file with `pattern`.
    pub(crate) fn file(&self, len: u64, rtt: u64, rate: u64) -> String {
        format!("http://{}/file/{len}?rtt={rtt}&rate={rate}", self.0)
    }

    /// A body that begins and then sends nothing.
    pub(crate) fn silent(&self) -> String {
        format!("http://{}/silent/1000000", self.0)
    }

    pub(crate) fn track(&self, rtt: u64) -> String {
        format!("http://{}/track/{}?rtt={rtt}", self.0, TRACK.len())
    }
}

/// When the shared link is free again.
static LINK: Mutex<Option<Instant>> = Mutex::new(None);

/// Sends `bytes` over the link. Each connection sends one chunk and queues again, so all get equal shares.
fn pass_link(bytes: usize, rate: u64) {
    let sent = {
        let mut free = LINK.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let from = free.unwrap_or(now).max(now);
        *free.insert(from + Duration::from_secs_f64(bytes as f64 / rate as f64))
    };
    thread::sleep(sent.saturating_duration_since(Instant::now()));
}

/// Requests that have come, and responses that have been sent, of those with `slots`.
#[derive(Default)]
struct Queue {
    came: u64,
    ended: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { came: 0, ended: 0 });
static TURN: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A turn among the responses that are sent at a time.
struct Slot;

impl Slot {
    /// Waits for it, first come, first served.
    fn wait(slots: u64) -> Self {
        let mut queue = queue();
        let number = queue.came;
        queue.came += 1;
        while number >= queue.ended + slots {
            queue = TURN.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        queue().ended += 1;
        TURN.notify_all();
    }
}

/// Serves until its process is killed.
pub(crate) fn run() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    for connection in listener.incoming().flatten() {
        // An error is that of a client which has closed its connection.
        thread::spawn(move || serve(&connection).ok());
    }
    Ok(())
}

fn serve(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut trips = 2;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut range = None;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let field = line.trim().to_ascii_lowercase();
            range = field.strip_prefix("range: bytes=").map(str::to_owned).or(range);
        }
        line.clear();
        answer(connection, &path, range.as_deref(), trips)?;
        trips = 1;
    }
    Ok(())
}

fn answer(mut connection: &TcpStream, path: &str, range: Option<&str>, trips: u64) -> io::Result<()> {
    let query = |name: &str| {
        let (_, query) = path.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    let mut segments = path.split('?').next().unwrap_or_default().split('/').skip(1);
    let (kind, len) = (segments.next().unwrap_or_default(), segments.next().and_then(|len| len.parse().ok()));
    let len: u64 = len.unwrap_or(0);
    let slot = query("slots").map(Slot::wait);
    thread::sleep(Duration::from_millis(trips * query("rtt").unwrap_or(0)));
    let (start, end) = range.and_then(|range| part(range, len)).unwrap_or((0, len));
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nETag: \"1\"\r\nContent-Type: audio/flac\r\n",
        end - start
    );
    if range.is_some() {
        head += &format!("Content-Range: bytes {start}-{}/{len}\r\n", end.saturating_sub(1));
    }
    if slot.is_some() {
        head += "Connection: close\r\n";
    }
    head += "\r\n";
    connection.write_all(head.as_bytes())?;
    if kind == "silent" {
        connection.write_all(&[0; 1000])?;
        // Ends when the client closes the connection.
        io::copy(&mut &*connection, &mut io::sink())?;
        return Ok(());
    }
    send(connection, kind, start..end, query("rate").unwrap_or(u64::MAX), query("link"))?;
    if slot.is_some() {
        connection.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

/// RFC 9110, 14.1.2.
fn part(range: &str, len: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), last) => Some((first.min(len), last.map_or(len, |last| len.min(last + 1)))),
        (None, Some(suffix)) => Some((len.saturating_sub(suffix), len)),
        (None, None) => None,
    }
}

fn send(
    mut connection: &TcpStream,
    kind: &str,
    part: std::ops::Range<u64>,
    rate: u64,
    link: Option<u64>,
) -> io::Result<()> {
    // Fifty times a second, if the rate is limited. Over a link, in a few packets.
    let chunk = if link.is_some() { 8 * 1024 } else { CHUNK.min((rate / 50).max(1) as usize) };
    let mut buf = vec![0; chunk];
    let (began, start) = (Instant::now(), part.start);
    let mut at = part.start;
    while at < part.end {
        let len = chunk.min((part.end - at) as usize);
        match kind {
            "file" => (at..).zip(&mut buf[..len]).for_each(|(at, byte)| *byte = pattern(at)),
            "track" => buf[..len].copy_from_slice(&TRACK[at as usize..at as usize + len]),
            _ => {}
        }
        if let Some(link) = link {
            pass_link(len, link);
        }
        connection.write_all(&buf[..len])?;
        at += len as u64;
        if rate != u64::MAX {
            let due = Duration::from_secs_f64((at - start) as f64 / rate as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    Ok(())
}
