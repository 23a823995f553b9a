//! A small HTTP server on this machine, for demonstrations without a network: files with ranges, endless stations, a delay before each
//! response, a limited rate, and bodies that break. It is no example of how to write a server.
//!
//! ```text
//! let demo = Demo::start(|request| Reply::file(request, FLAC, "audio/flac").delay(MS_40).rate(400_000))?;
//! downloader.open(&demo.url("/track.flac"))
//! ```

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The tracks that the examples play.
pub(crate) static FLAC: &[u8] = include_bytes!("../../tests/data/track.flac");
pub(crate) static MP3: &[u8] = include_bytes!("../../tests/data/track.mp3");
/// Bytes in a second of the MP3 track.
pub(crate) const MP3_RATE: u64 = 12_000;

/// The server. It ends with the program.
pub(crate) struct Demo(SocketAddr);

/// A request, as far as an answer depends on it.
pub(crate) struct Request {
    /// Requests before this one, of all connections.
    pub(crate) number: usize,
    pub(crate) path: String,
    /// True if the client understands titles within the audio (`Icy-MetaData: 1`).
    wants_titles: bool,
    /// The field `Range`, in lower case.
    range: Option<String>,
}

/// A response, and how it is sent.
pub(crate) struct Reply {
    status: u16,
    fields: String,
    /// `None`: the body ends with the connection.
    len: Option<u64>,
    body: Box<dyn Read + Send>,
    delay: Duration,
    /// Bytes a second.
    rate: u64,
    break_after: u64,
}

impl Demo {
    /// Starts a server whose responses are made by `answer`.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (answer, number) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
                // Its error is that of a client which has closed the connection.
                thread::spawn(move || serve(&connection, &number, &*answer).ok());
            }
        });
        Ok(Self(address))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0)
    }
}

/// Answers the requests of one connection, one after the other.
fn serve(connection: &TcpStream, number: &AtomicUsize, answer: &dyn Fn(&Request) -> Reply) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut lines = BufReader::new(connection).lines();
    while let Some(first) = lines.next().transpose()? {
        let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let number = number.fetch_add(1, Ordering::Relaxed);
        let mut request = Request { number, path, wants_titles: false, range: None };
        for line in lines.by_ref() {
            let line = line?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("range", range)) => request.range = Some(range.to_owned()),
                Some(("icy-metadata", "1")) => request.wants_titles = true,
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let reply = answer(&request);
        let is_last = reply.len.is_none();
        reply.send(connection)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

impl Request {
    /// The requested part of a resource of `len` bytes (RFC 9110, 14.1.2).
    fn part(&self, len: u64) -> Option<Range<u64>> {
        let (first, last) = self.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
            (Some(first), last) if first < len => Some(first..last.map_or(len, |last| len.min(last + 1))),
            (None, Some(suffix)) => Some(len.saturating_sub(suffix)..len),
            _ => None,
        }
    }
}

impl Reply {
    fn new(status: u16, len: Option<u64>, body: impl Read + Send + 'static) -> Self {
        Self {
            status,
            fields: String::new(),
            len,
            body: Box::new(body),
            delay: Duration::ZERO,
            rate: u64::MAX,
            break_after: u64::MAX,
        }
    }

    /// A file, or the requested part of it.
    pub(crate) fn file(request: &Request, content: &'static [u8], media_type: &str) -> Self {
        let len = content.len() as u64;
        let part = request.part(len);
        let is_part = part.is_some();
        let part = part.unwrap_or(0..len);
        let body = Cursor::new(&content[part.start as usize..part.end as usize]);
        let reply = Self::new(if is_part { 206 } else { 200 }, Some(part.end - part.start), body)
            .field("Content-Type", media_type)
            .field("ETag", "\"1\"")
            .field("Accept-Ranges", "bytes");
        if !is_part {
            return reply;
        }
        reply.field("Content-Range", &format!("bytes {}-{}/{len}", part.start, part.end - 1))
    }

    /// A text, such as a playlist or an error.
    pub(crate) fn text(status: u16, text: String) -> Self {
        Self::new(status, Some(text.len() as u64), Cursor::new(text.into_bytes()))
    }

    /// A station as Icecast sends it: `audio` over and over, and the titles in turn.
    pub(crate) fn station(request: &Request, audio: &'static [u8], titles: &'static [&'static str]) -> Self {
        let is_titled = request.wants_titles;
        let body = Station { audio, titles, is_titled, sent: 0, pending: Vec::new() };
        let reply = Self::new(200, None, body)
            .field("Content-Type", "audio/mpeg")
            .field("icy-name", "The station of the example");
        if is_titled { reply.field("icy-metaint", &Station::INTERVAL.to_string()) } else { reply }
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields += &format!("{name}: {value}\r\n");
        self
    }

    /// Time before the response: that of a round trip.
    pub(crate) fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Bytes a second, at most.
    pub(crate) fn rate(self, rate: u64) -> Self {
        Self { rate, ..self }
    }

    /// Closes the connection after this many bytes of body.
    pub(crate) fn break_after(self, bytes: u64) -> Self {
        Self { break_after: bytes, ..self }
    }

    fn send(mut self, mut connection: &TcpStream) -> io::Result<()> {
        thread::sleep(self.delay);
        let len = self.len.map_or("Connection: close".into(), |len| format!("Content-Length: {len}"));
        write!(connection, "HTTP/1.1 {} -\r\n{len}\r\n{}\r\n", self.status, self.fields)?;
        // Fifty times a second.
        let mut buf = vec![0; (self.rate / 50).clamp(1, 64 * 1024) as usize];
        let (began, mut sent) = (Instant::now(), 0);
        loop {
            let got = self.body.read(&mut buf)?;
            if got == 0 {
                return Ok(());
            }
            connection.write_all(&buf[..got])?;
            sent += got as u64;
            if sent >= self.break_after {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let due = Duration::from_secs_f64(sent as f64 / self.rate as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
}

/// The body of a station: audio, and after each `INTERVAL` bytes of it a block with the title.
struct Station {
    audio: &'static [u8],
    titles: &'static [&'static str],
    is_titled: bool,
    /// Bytes of audio.
    sent: usize,
    /// The rest of a block.
    pending: Vec<u8>,
}

impl Station {
    const INTERVAL: usize = 8192;
    /// Each title lasts for this many blocks.
    const BLOCKS: usize = 4;
}

impl Read for Station {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.pending.is_empty() {
            let len = buf.len().min(self.pending.len());
            buf[..len].copy_from_slice(&self.pending[..len]);
            self.pending.drain(..len);
            return Ok(len);
        }
        let position = self.sent % self.audio.len();
        let block = Self::INTERVAL - self.sent % Self::INTERVAL;
        let len = buf.len().min(block).min(self.audio.len() - position);
        buf[..len].copy_from_slice(&self.audio[position..position + len]);
        self.sent += len;
        if self.is_titled && len == block {
            // A length in units of 16 bytes, and the text, padded. An empty block: the title has not changed.
            let number = self.sent / Self::INTERVAL - 1;
            self.pending = vec![0];
            if number % Self::BLOCKS == 0 {
                let title = self.titles[number / Self::BLOCKS % self.titles.len()];
                let text = format!("StreamTitle='{title}';");
                self.pending = vec![text.len().div_ceil(16) as u8];
                self.pending.extend(text.bytes());
                self.pending.resize(1 + text.len().div_ceil(16) * 16, 0);
            }
        }
        Ok(len)
    }
}

/// Answers for a live HLS stream of the MP3 track in segments of a second, with three variants.
pub(crate) struct LiveHls(Instant);

impl LiveHls {
    /// Segments in the window.
    const WINDOW: u64 = 12;
    const VARIANTS: [u64; 3] = [64_000, 96_000, 128_000];

    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn answer(&self, request: &Request) -> Reply {
        if request.path == "/live.m3u8" {
            let variants = Self::VARIANTS.map(|rate| {
                format!("#EXT-X-STREAM-INF:BANDWIDTH={rate},CODECS=\"mp4a.40.34\"\n/{rate}/list.m3u8\n")
            });
            return Reply::text(200, format!("#EXTM3U\n{}", variants.concat()));
        }
        if request.path.ends_with("list.m3u8") {
            return Reply::text(200, self.playlist());
        }
        let name = request.path.rsplit('/').next().and_then(|name| name.strip_suffix(".mp3"));
        let Some(index) = name.and_then(|name| name.parse::<usize>().ok()) else {
            return Reply::text(404, "there is no such file\n".into());
        };
        let second = MP3_RATE as usize;
        let from = index % (MP3.len() / second) * second;
        Reply::file(request, &MP3[from..from + second], "audio/mpeg")
    }

    /// RFC 8216, 4.3: the newest segments.
    fn playlist(&self) -> String {
        let first = self.0.elapsed().as_secs();
        let segments: String =
            (first..first + Self::WINDOW).map(|index| format!("#EXTINF:1,\n{index}.mp3\n")).collect();
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
    }
}
