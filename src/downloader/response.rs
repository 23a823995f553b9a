//! A response with an open body, which a caller or a sink reads at its own rate.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use super::bodies::OpenBody;
use crate::cancel::{CancelReason, CancelToken};
use crate::client::{self, ResponseHead, Urgency};
use crate::downloader::runtime::record::{BodyMeter, Record};
use crate::downloader::runtime::retry_state::{RetryState, pause};
use crate::error::{Error, ErrorKind};

/// Maximum number of bytes that are reserved for a body before one has arrived: the announced length may be wrong, or meant to use
/// up memory.
const FIRST_CAPACITY: u64 = 1024 * 1024;

/// Keeps a peer and its downloader alive: the handle of the peer, which a response has no other use for.
pub(super) type KeepAlive = Arc<dyn Send + Sync>;

/// The response to a fetch. Its body is open and holds no worker, so it can be read at any rate.
///
/// `read` blocks until at least one byte is available; its [`io::Error`] carries an [`Error`]. The fetch ends when the last
/// byte was read, when reading fails, or when the response is dropped. An open response keeps its peer and the downloader
/// alive.
///
/// ```no_run
/// use std::io::Read;
/// use windway::{Downloader, Fetch, Priority};
///
/// let peer = Downloader::global()?.register((), Priority::High)?;
/// let mut response = peer.execute(Fetch::get("https://example.com/a.mp3")?)?;
/// println!("{} bytes of {:?}", response.head().body_len().unwrap_or(0), response.head().content_type());
/// let mut start = [0; 4096];
/// response.read_exact(&mut start)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Response {
    body: Box<client::Response>,
    record: Record,
    retry_state: RetryState,
    /// Token of the fetch.
    token: CancelToken,
    /// The first response head, if the body was requested again.
    first: Option<ResponseHead>,
    /// Some until the end was published.
    meter: Option<BodyMeter>,
    /// How it ended. Every later read returns this.
    end: Result<(), Error>,
    /// Some while it is open.
    open: Option<OpenBody>,
    /// Of a response to `execute` or `batch`, while it is open: keeps the peer alive.
    peer: Option<KeepAlive>,
    /// Bytes that come first: they were read before, to find out what the body is.
    unread: VecDeque<u8>,
}

impl Response {
    pub(super) fn new(
        body: Box<client::Response>,
        open: OpenBody,
        record: Record,
        retry_state: RetryState,
        token: CancelToken,
    ) -> Self {
        let mut body = body;
        retry_state.hedge(&mut body, &record.control);
        let meter = Some(BodyMeter::new(&record.control));
        let open = Some(open);
        Self {
            body,
            record,
            retry_state,
            token,
            first: None,
            meter,
            end: Ok(()),
            open,
            peer: None,
            unread: VecDeque::new(),
        }
    }

    pub(super) fn keep(&mut self, peer: KeepAlive) {
        // A response that has already ended keeps nothing alive.
        self.peer = self.open.is_some().then_some(peer);
    }

    /// Puts back `bytes`, the last ones that were read: the next reads return them again.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        debug_assert!(self.unread.is_empty(), "bytes are put back once");
        self.unread.extend(bytes);
    }

    /// Keeps the peer alive no more: its owner reads the body.
    pub(crate) fn release_peer(&mut self) {
        self.peer = None;
    }

    /// True once all of the body has been received.
    pub(crate) fn is_received(&self) -> bool {
        self.meter.is_none() && self.end.is_ok()
    }

    /// Makes it the response to a fetch that was [`live`](super::Fetch::live), without retries, and with
    /// [`redial`](super::Fetch::redial): its body has shown that it is a station's.
    pub(crate) fn make_live(&mut self, urgency: Arc<dyn Urgency>) {
        self.retry_state.make_live(urgency);
        if let Some(meter) = &mut self.meter {
            meter.make_live();
        }
        self.retry_state.hedge(&mut self.body, &self.record.control);
    }

    fn take_unread(&mut self, buf: &mut [u8]) -> usize {
        // `VecDeque` reads without an error.
        self.unread.read(buf).unwrap_or_default()
    }

    /// The response head: status, headers, URL and range. If the body was requested again, that of the first response.
    pub fn head(&self) -> &ResponseHead {
        self.first.as_ref().unwrap_or_else(|| self.body.head())
    }

    /// The fetch's id in events.
    pub fn request_id(&self) -> crate::types::RequestId {
        self.record.id
    }

    /// Position of the next byte in the resource.
    pub fn position(&self) -> u64 {
        self.retry_state.offset().unwrap_or_else(|| self.body.position()) - self.unread.len() as u64
    }

    /// Reads like [`Read::read`], with a typed error. Blocks until at least one byte is available. 0 means the end of the
    /// body, and never that the connection broke.
    ///
    /// If the connection breaks, this thread requests the rest of the body, up to the fetch's number of retries.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, such as [`ErrorKind::Disconnected`],
    /// [`ErrorKind::Silent`], or [`ErrorKind::Truncated`] if the
    /// body is shorter than the first response announced; [`ErrorKind::Changed`] if the resource has changed; [`ErrorKind::Cancelled`].
    pub fn read_chunk(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if !self.unread.is_empty() {
            return Ok(self.take_unread(buf));
        }
        if buf.is_empty() || self.meter.is_none() {
            // The same each time: a caller may read again after the end, or after an error.
            return self.end.clone().map(|()| 0);
        }
        let result = self.read_counted(buf);
        match &result {
            Ok(0) => self.end(Ok(())),
            Ok(bytes) => {
                self.record.received += *bytes as u64;
                // A caller that reads exactly the announced bytes never sees the 0 after them.
                if self.retry_state.is_complete() {
                    self.end(Ok(()));
                }
            }
            Err(error) => self.end(Err(error.clone())),
        }
        result
    }

    /// Reads the rest of the body, which must not be longer than `limit` bytes. Blocks until all of it has arrived.
    ///
    /// ```no_run
    /// # let peer = windway::Downloader::global()?.register((), Default::default())?;
    /// let cover = peer.execute(windway::Fetch::get("https://example.com/cover.jpg")?)?.bytes(8 << 20)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], without reading if the server announced the length; those of
    /// [`read_chunk`](Self::read_chunk).
    pub fn bytes(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let url = self.retry_state.request().url().clone();
        let too_large = |what: String| {
            let why = format!("{what}, and the limit is {limit} bytes");
            Error::new(ErrorKind::TooLarge, why).with_url(&url)
        };
        let end = self.head().body_len().map(|len| self.head().start() + len);
        // From the position on: the body may have been continued, and bytes may have been read before.
        let left = end.map_or(0, |end| end.saturating_sub(self.position()));
        if left > limit as u64 {
            return Err(too_large(format!("the body has {left} bytes")));
        }
        let mut bytes = Vec::with_capacity(left.min(FIRST_CAPACITY) as usize);
        // One byte more, to see whether there is one.
        (&mut self).take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(too_large("the body is longer".into()));
        }
        Ok(bytes)
    }

    /// Reads the rest of the body like [`bytes`](Self::bytes), as text in UTF-8. A byte order mark at its start is removed.
    /// The `charset` of the content type is ignored.
    ///
    /// ```no_run
    /// # let peer = windway::Downloader::global()?.register((), Default::default())?;
    /// let playlist = peer.execute(windway::Fetch::get("https://example.com/list.m3u8")?)?.text(1 << 20)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotText`] if the body is not UTF-8; those of [`bytes`](Self::bytes).
    pub fn text(self, limit: usize) -> Result<String, Error> {
        let url = self.retry_state.request().url().clone();
        let text = String::from_utf8(self.bytes(limit)?).map_err(|error| {
            let error = error.utf8_error();
            let why = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
            Error::new(ErrorKind::NotText, why).with_url(&url).with_cause(error)
        })?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// True if the body may have ended with the requested range, although its response announced the whole resource. To be
    /// called at its end.
    pub(crate) fn is_doubtful_end(&self) -> bool {
        self.retry_state.is_doubtful_end()
    }

    /// As [`read_chunk`](Self::read_chunk), for a fetch with [`redial`](super::Fetch::redial). `None` means that the next bytes
    /// are from another connection and do not continue the ones before. [`head`](Self::head) is then that of the other
    /// connection.
    pub(crate) fn read_live(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        if !self.unread.is_empty() {
            return Ok(Some(self.take_unread(buf)));
        }
        if buf.is_empty() || self.meter.is_none() {
            return self.end.clone().map(|()| Some(0));
        }
        let at = self.body.position();
        let got = match self.read_once(buf) {
            Ok(got) => got,
            Err(error) => {
                let Some(mut body) = self.body.take_winner() else {
                    self.end(Err(error.clone()));
                    return Err(error);
                };
                self.retry_state.go_live(&mut body, &self.record.control);
                // A station's other connection may have other titles and another interval, so its own head counts from here on.
                (self.body, self.first) = (body, None);
                return Ok(None);
            }
        };
        self.record.received += got as u64;
        if got == 0 {
            self.end(Ok(()));
        } else if let Err(error) = self.retry_state.take(at, &buf[..got], self.body.last_read_at()) {
            self.end(Err(error.clone()));
            return Err(error);
        }
        Ok(Some(got))
    }

    /// Reads once from the body, as soon as `max_bandwidth` lets it.
    fn read_once(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let Some(meter) = &mut self.meter else { return self.body.read_chunk(buf) };
        let most = match meter.try_admit(&self.body, buf.len()) {
            Some(most) => most,
            None => {
                let token = self.body.token().unwrap_or(&self.token).clone();
                let share = meter.await_share(&mut self.body, buf.len(), &token, || false);
                share.ok_or_else(|| {
                    let reason = token.reason().unwrap_or(CancelReason::Fetch);
                    Error::cancelled(reason).with_url(self.retry_state.request().url())
                })?
            }
        };
        let read = self.body.read_chunk(&mut buf[..most]);
        // Also of a read that failed or brought nothing: it has waited for the network.
        meter.advance(&mut self.body, *read.as_ref().unwrap_or(&0));
        read
    }

    /// Reads, and shows meanwhile that the body is being read.
    fn read_counted(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        // Out of `self` during the read, which borrows all of it.
        let open = self.open.take();
        let result = {
            let _read = open.as_ref().map(OpenBody::begin_read);
            self.read_on(buf)
        };
        self.open = open;
        result
    }

    /// Reads until there are bytes that were not received before.
    fn read_on(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            if self.retry_state.is_complete() {
                return Ok(0);
            }
            let at = self.body.position();
            let got = match self
                .read_once(buf)
                .and_then(|got| if got == 0 { self.retry_state.check_end(at).map(|()| 0) } else { Ok(got) })
            {
                Ok(0) => return Ok(0),
                Ok(got) => got,
                Err(error) => {
                    match self.body.take_winner() {
                        Some(body) => self.go_on(body)?,
                        None => self.open_again(error)?,
                    }
                    continue;
                }
            };
            let (offset, new) = self.retry_state.take(at, &buf[..got], self.body.last_read_at())?;
            let new = new.len();
            if new > 0 {
                // A response may repeat bytes that were received before, and send some that were not requested.
                let first = (offset - at) as usize;
                buf.copy_within(first..first + new, 0);
                return Ok(new);
            }
        }
    }

    /// Continues with the body that was requested over another connection while this one was silent.
    fn go_on(&mut self, mut body: Box<client::Response>) -> Result<(), Error> {
        self.retry_state.go_on(&mut body, &self.record.control)?;
        let silent = std::mem::replace(&mut self.body, body);
        // Callers keep the head that they have seen, whatever the new response says.
        self.first.get_or_insert_with(|| silent.head().clone());
        Ok(())
    }

    /// Requests the rest of a broken body. Blocks until its response head arrives, or all retries have failed.
    fn open_again(&mut self, error: Error) -> Result<(), Error> {
        await_retry(&mut self.record, &mut self.retry_state, &self.token, error)?;
        let mut body = open_body(&mut self.record, &mut self.retry_state, &self.token)?;
        self.retry_state.hedge(&mut body, &self.record.control);
        let broken = std::mem::replace(&mut self.body, body);
        self.first.get_or_insert_with(|| broken.head().clone());
        Ok(())
    }

    /// Ends it with `error`, which its reader has found. Has no effect after its end.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.end(Err(error.clone()));
    }

    fn end(&mut self, result: Result<(), Error>) {
        if self.meter.take().is_none() {
            return;
        }
        self.record.end(&result);
        self.end = result;
        self.open = None;
        self.peer = None;
    }
}

/// Requests on this thread what a fetch has not received. Blocks until a body continues it, or its retries are used up.
pub(super) fn open_body(
    record: &mut Record,
    retry_state: &mut RetryState,
    token: &CancelToken,
) -> Result<Box<client::Response>, Error> {
    loop {
        let attempt = token.child(CancelReason::Fetch);
        let sent = Instant::now();
        match retry_state.open(&attempt, &record.control) {
            Ok(mut body) => {
                record.record_head(sent.elapsed(), &body);
                body.keep(attempt);
                retry_state.begin(body.head());
                return Ok(body);
            }
            Err(error) => await_retry(record, retry_state, token, error)?,
        }
    }
}

/// Blocks until the attempt after `error` may begin. Returns the error if there is none.
fn await_retry(
    record: &mut Record,
    retry_state: &mut RetryState,
    token: &CancelToken,
    error: Error,
) -> Result<(), Error> {
    let after = retry_state.plan_retry(&error, token, false);
    let Some(after) = after else {
        // Cancelled before the retry: to the caller it is cancelled, as in the pause.
        let cancelled = token.reason().filter(|_| error.is_retryable());
        return Err(cancelled.map_or(error, Error::cancelled));
    };
    record.retry(&error, after);
    // A cancel ends the pause early. The next attempt finds the token cancelled and sends nothing.
    pause(token, after);
    record.start();
    Ok(())
}

impl Read for Response {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_chunk(buf)?)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if self.meter.is_some() {
            self.end(Err(Error::cancelled(CancelReason::Fetch)));
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("request", &self.record.id)
            .field("head", self.head())
            .finish_non_exhaustive()
    }
}
