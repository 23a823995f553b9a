//! What the scripted origin answers, as tests describe it.

use std::time::Duration;

use super::{Asked, Content};

/// What the server answers, and how it sends it.
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
    pub(super) pace: Pace,
    pub(super) end: Ending,
    /// Statuses of the answers before this one.
    pub(super) interim: Vec<u16>,
    /// Where the head is split.
    pub(super) split: Option<usize>,
    pub(super) trailers: Vec<(String, String)>,
    /// Bytes more than announced.
    pub(super) extra: usize,
    /// They are a chunk of a chunked body, and not what follows it.
    pub(super) extra_is_chunk: bool,
    /// Sent instead of all the above.
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

/// A radio station: what it plays, and how often it says so.
#[derive(Clone, Debug)]
pub struct Station {
    pub audio: Content,
    /// Bytes of audio between two metadata blocks; 0 for a station that says nothing.
    pub interval: u64,
    /// One block in so many says a title, the others are empty.
    pub every: u64,
    /// Said in turn.
    pub titles: Vec<&'static str>,
}

/// How fast a body is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    Full,
    /// Bytes a second.
    Rate(u64),
    /// So many bytes, each time.
    Trickle(u64, Duration),
}

impl Pace {
    /// How many bytes go out together.
    pub(super) fn slice(self) -> u64 {
        match self {
            Self::Full => 256 * 1024,
            // A slow server sends small pieces, ten a second or more.
            Self::Rate(rate) => (rate / 50).clamp(1, 64 * 1024),
            Self::Trickle(bytes, _) => bytes.max(1),
        }
    }

    /// How long to wait when `sent` bytes went out in `taken`.
    pub(super) fn wait(self, sent: u64, taken: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Rate(rate) => Duration::from_secs_f64(sent as f64 / rate as f64).saturating_sub(taken),
            Self::Trickle(_, every) => every,
        }
    }
}

/// How far an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    /// So many bytes of head.
    InHead(usize, Cut),
    /// So many bytes of body.
    InBody(u64, Cut),
    /// So many bytes of body, the last chunk without its end.
    InChunk(u64),
}

/// What happens where an answer ends early.
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

    /// All of `content`, whatever was asked for.
    pub fn whole(content: &Content) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: content.clone(),
            part: 0..content.len(),
            framing: Framing::Length,
            latency: Duration::ZERO,
            holds_head: false,
            pace: Pace::Full,
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

    /// What a good server says: the range that was asked for, 416 behind the end, an entity tag.
    pub fn file(asked: &Asked, content: &Content) -> Self {
        let answer = Self::whole(content).header("ETag", &content.etag()).header("Accept-Ranges", "bytes");
        let len = content.len();
        if let Some(suffix) = asked.suffix().filter(|_| len > 0) {
            return answer.partial(len.saturating_sub(suffix)..len);
        }
        let Some((first, last)) = asked.range() else { return answer };
        if first >= len {
            let range = format!("bytes */{len}");
            return Self::status(416).header("Content-Range", &range);
        }
        let end = last.map_or(len, |last| len.min(last.saturating_add(1)));
        answer.partial(first..end)
    }

    /// What Icecast says: no length, and titles for those who ask for them.
    pub fn station(asked: &Asked, station: &Station) -> Self {
        let Station { audio, interval, every, titles } = station;
        let answer =
            |content: &Content| Self::whole(content).no_length().header("Content-Type", "audio/mpeg");
        if asked.header("icy-metadata") != Some("1") || *interval == 0 {
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

    /// These bytes as they are, at the pace of a body, and then the end of the connection.
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

    /// Waits so long before the head.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Waits with the head until the origin is released or dropped.
    pub fn latency_until_released(mut self) -> Self {
        self.holds_head = true;
        self
    }

    /// Sends the body at so many bytes a second.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.pace = Pace::Rate(bytes_per_second);
        self
    }

    /// Sends so many bytes of body at a time, each as a chunk or a segment of its own, and waits after each.
    pub fn trickle(mut self, bytes_per_chunk: u64, every: Duration) -> Self {
        self.pace = Pace::Trickle(bytes_per_chunk, every);
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

    /// Sends so many bytes more than announced, together with the last ones.
    pub fn extra_bytes(mut self, bytes: usize) -> Self {
        self.extra = bytes;
        self
    }

    /// Sends so many bytes more than announced, as a chunk of their own before the last one.
    pub fn extra_chunk(mut self, bytes: usize) -> Self {
        self.extra_is_chunk = true;
        self.extra_bytes(bytes).chunked()
    }

    pub fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// HTTP/1.0 with a connection that is kept, and says so.
    pub fn keep_alive_http10(self) -> Self {
        self.http10().header("Connection", "keep-alive")
    }

    /// The status line of SHOUTcast, `ICY 200 OK`, and the end of the connection after the body.
    pub fn icy(mut self) -> Self {
        self.version = "ICY";
        self.with_status(200)
    }

    /// Answers with this status first, 100 or 103, before any latency; one more for each call.
    pub fn interim(mut self, status: u16) -> Self {
        self.interim.push(status);
        self
    }

    /// Sends the head in two segments, the first one of so many bytes.
    pub fn split_head(mut self, at: usize) -> Self {
        self.split = Some(at);
        self
    }

    /// Closes the connection after so many bytes of head.
    pub fn close_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Close);
        self
    }

    /// Resets the connection after so many bytes of head.
    pub fn reset_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Reset);
        self
    }

    /// Falls silent after so many bytes of head, until the origin is released or dropped.
    pub fn stall_in_head(mut self, after_bytes: usize) -> Self {
        self.end = Ending::InHead(after_bytes, Cut::Stall);
        self
    }

    /// Closes the connection after so many bytes of body.
    pub fn close_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Close);
        self
    }

    /// Closes the connection after so many bytes of body, in the middle of a chunk.
    pub fn cut_chunk_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InChunk(bytes);
        self.chunked()
    }

    /// Resets the connection after so many bytes of body.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Reset);
        self
    }

    /// Falls silent after so many bytes of body, until the origin is released or dropped.
    pub fn stall_after(mut self, bytes: u64) -> Self {
        self.end = Ending::InBody(bytes, Cut::Stall);
        self
    }

    /// Closes the connection after the whole answer without having said so, as when a keep-alive runs out.
    pub fn close_when_idle(mut self) -> Self {
        self.closes_when_idle = true;
        self
    }

    /// Over TLS, a connection that is closed after this just ends, as if it were cut.
    pub fn without_close_notify(mut self) -> Self {
        self.notifies_close = false;
        self
    }
}
