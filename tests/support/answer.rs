//! Answers of the scripted origin: a response, how fast it is sent, and where it ends.

use std::time::Duration;

use super::{Content, Request};

/// A response, and how the server sends it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Content,
    /// The part of `body` that is sent.
    pub(super) part: std::ops::Range<u64>,
    pub(super) framing: Framing,
    pub(super) latency: Duration,
    pub(super) holds_head: bool,
    /// The response head is held back until the server has had this many requests.
    pub(super) awaited_requests: usize,
    pub(super) speed: Speed,
    pub(super) end: Ending,
    /// Statuses of the interim responses before this one.
    pub(super) interim: Vec<u16>,
    /// Length of the first segment of the response head, if it is sent in two.
    pub(super) split: Option<usize>,
    pub(super) trailers: Vec<(String, String)>,
    /// Number of bytes beyond the announced length.
    pub(super) extra: usize,
    /// True if the extra bytes are a chunk of a chunked body. Else they follow the body.
    pub(super) extra_is_chunk: bool,
    /// Bytes that are sent in place of everything above.
    pub(super) raw: Option<Vec<u8>>,
    pub(super) version: &'static str,
    pub(super) notifies_close: bool,
    pub(super) closes_when_idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    /// No length: the end of the connection is the end of the body.
    Close,
    Chunked,
}

/// A radio station: its audio, and its titles.
#[derive(Clone, Debug)]
pub struct Station {
    pub audio: Content,
    /// Bytes of audio between two metadata blocks. 0 for a station without titles.
    pub interval: u64,
    /// One block in this many contains a title. The others are empty.
    pub every: u64,
    /// Sent in turn.
    pub titles: Vec<&'static str>,
}

/// How fast a body is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speed {
    Full,
    /// Bytes a second.
    Rate(u64),
    /// Number of bytes that are sent together, and the delay after them.
    Chunks(u64, Duration),
}

impl Speed {
    /// Number of bytes that are sent together.
    pub(super) fn slice(self) -> u64 {
        match self {
            Self::Full => 256 * 1024,
            // A slow server sends small pieces, fifty a second or more.
            Self::Rate(rate) => (rate / 50).clamp(1, 64 * 1024),
            Self::Chunks(bytes, _) => bytes.max(1),
        }
    }

    /// Delay after `sent` bytes were sent in `taken`.
    pub(super) fn wait(self, sent: u64, taken: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Rate(rate) => Duration::from_secs_f64(sent as f64 / rate as f64).saturating_sub(taken),
            Self::Chunks(_, every) => every,
        }
    }
}

/// Where a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    /// After this many bytes of the response head.
    InHead(usize, Cut),
    /// After this many bytes of body.
    InBody(u64, Cut),
    /// After this many bytes of body, within a chunk.
    InChunk(u64),
}

/// What happens to the connection where a response ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Close,
    Reset,
    Stall,
}

impl Answer {
    /// A status with a short text.
    pub fn status(status: u16) -> Self {
        let body = Content::bytes(format!("status {status}\n").into_bytes());
        Self::whole(&body).with_status(status)
    }

    /// All of `content`, whatever was requested.
    pub fn whole(content: &Content) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: content.clone(),
            part: 0..content.len(),
            framing: Framing::Length,
            latency: Duration::ZERO,
            holds_head: false,
            awaited_requests: 0,
            speed: Speed::Full,
            end: Ending::Whole,
            interim: Vec::new(),
            split: None,
            trailers: Vec::new(),
            extra: 0,
            extra_is_chunk: false,
            raw: None,
            version: "HTTP/1.1",
            notifies_close: true,
            closes_when_idle: false,
        }
    }

    /// As a good server answers: the requested range, 416 beyond the end, an entity tag.
    pub fn file(request: &Request, content: &Content) -> Self {
        let answer = Self::whole(content).header("ETag", &content.etag()).header("Accept-Ranges", "bytes");
        let len = content.len();
        if let Some(suffix) = request.suffix().filter(|_| len > 0) {
            return answer.partial(len.saturating_sub(suffix)..len);
        }
        let Some((first, last)) = request.range() else { return answer };
        if first >= len {
            let range = format!("bytes */{len}");
            return Self::status(416).header("Content-Range", &range);
        }
        let end = last.map_or(len, |last| len.min(last.saturating_add(1)));
        answer.partial(first..end)
    }

    /// As Icecast answers: no length, and titles if they are requested.
    pub fn station(request: &Request, station: &Station) -> Self {
        let Station { audio, interval, every, titles } = station;
        let answer =
            |content: &Content| Self::whole(content).no_length().header("Content-Type", "audio/mpeg");
        if request.header("icy-metadata") != Some("1") || *interval == 0 {
            return answer(audio).header("icy-name", "Scripted");
        }
        answer(&Content::icy(audio, *interval, *every, titles))
            .header("icy-name", "Scripted")
            .header("icy-metaint", &interval.to_string())
    }

    /// A part, with its `Content-Range`.
    pub fn partial(mut self, part: std::ops::Range<u64>) -> Self {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, self.body.len());
        self.part = part;
        self.with_status(206).header("Content-Range", &range)
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header("Location", location)
    }

    /// These bytes unchanged, at the speed of a body, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::status(200) }
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    /// Delays the response head.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Delays the response head until the origin is released or dropped.
    pub fn latency_until_released(mut self) -> Self {
        self.holds_head = true;
        self
    }

    /// Delays the response head until the server has had this many requests, this one included, such as a hedged request beside it.
    pub fn latency_until_requests(mut self, requests: usize) -> Self {
        self.awaited_requests = requests;
        self
    }

    /// Sends the body at this rate.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.speed = Speed::Rate(bytes_per_second);
        self
    }

    /// Sends the body in pieces of `bytes_per_chunk`, each as its own chunk or segment, and waits `every` after each.
    pub fn chunks_of(mut self, bytes_per_chunk: u64, every: Duration) -> Self {
        self.speed = Speed::Chunks(bytes_per_chunk, every);
        self
    }

    /// No `Content-Length`: the body ends with the connection.
    pub fn no_length(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends these after the last chunk.
    pub fn trailers(mut self, trailers: &[(&str, &str)]) -> Self {
        self.trailers = trailers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.chunked()
    }

    /// Sends more bytes than announced, together with the last ones.
    pub fn extra_bytes(mut self, bytes: usize) -> Self {
        self.extra = bytes;
        self
    }

    /// Sends more bytes than announced, as an additional chunk before the last one.
    pub fn extra_chunk(mut self, bytes: usize) -> Self {
        self.extra_is_chunk = true;
        self.extra_bytes(bytes).chunked()
    }

    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// HTTP/1.0 with `Connection: keep-alive`.
    pub fn keep_alive_http10(self) -> Self {
        self.http10().header("Connection", "keep-alive")
    }

    /// The status line of SHOUTcast, `ICY 200 OK`, and the end of the connection after the body.
    pub fn icy(mut self) -> Self {
        self.version = "ICY";
        self.with_status(200)
    }

    /// Sends an interim response with this status, 100 or 103, before any latency. Each call adds one.
    pub fn interim(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// Sends the response head in two segments. `at` is the length of the first one.
    pub fn split_head(mut self, at: usize) -> Self {
        self.split = Some(at);
        self
    }

    /// Closes the connection after this many bytes of the response head.
    pub fn close_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Close);
        self
    }

    /// Resets the connection after this many bytes of the response head.
    pub fn reset_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Reset);
        self
    }

    /// Falls silent after this many bytes of the response head, until the origin is released or dropped.
    pub fn stall_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Stall);
        self
    }

    /// Closes the connection after this many bytes of body.
    pub fn close_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Close);
        self
    }

    /// Closes the connection after this many bytes of body, in the middle of a chunk.
    pub fn cut_chunk_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InChunk(bytes);
        self.chunked()
    }

    /// Resets the connection after this many bytes of body.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Reset);
        self
    }

    /// Falls silent after this many bytes of body, until the origin is released or dropped.
    pub fn stall_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Stall);
        self
    }

    /// Closes the connection after the response without `Connection: close`, as when a keep-alive time is over.
    pub fn close_when_idle(mut self) -> Self {
        self.closes_when_idle = true;
        self
    }

    /// Over TLS: closes the connection without a close_notify alert, as if it were cut.
    pub fn without_close_notify(mut self) -> Self {
        self.notifies_close = false;
        self
    }
}
