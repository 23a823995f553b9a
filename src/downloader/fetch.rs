//! What a peer asks for, where its bytes go, and how it ends: once.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::epoch::Epoch;
use super::response::Response;
use crate::cancel::{CancelReason, CancelToken};
use crate::client::{Request, ResponseHead, Urgency, Validator};
use crate::downloader::runtime::handoff::Handoff;
use crate::error::{Error, ErrorKind};
use crate::foreign::Foreign;
use crate::types::{ByteRange, Priority, RequestId};

/// One thing to fetch over HTTP, by GET.
///
/// ```
/// use windway::{ByteRange, Fetch, Priority};
///
/// let fetch = Fetch::get("http://127.0.0.1/a.flac")?
///     .range(ByteRange::new(0, 65_536))
///     .header("x-station", "7")?
///     .priority(Priority::Low);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct Fetch {
    pub(super) request: Request,
    pub(super) priority: Priority,
    pub(super) epoch: Option<Epoch>,
    pub(super) max_retries: Option<u32>,
    pub(super) validate: Option<Validate>,
    pub(super) handoff: Option<Arc<Handoff>>,
    pub(super) measured: Measured,
    /// See [`redial`](Self::redial).
    pub(super) redial: Option<Arc<dyn Urgency>>,
    pub(super) other_tags: OtherTags,
}

/// What becomes of a body that broke where its rest comes with another entity tag, beside the same length and date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OtherTags {
    /// The fetch fails with [`ErrorKind::Changed`].
    #[default]
    Change,
    /// The sink's `head` judges. Without `If-Range` the rest is asked for whatever the tag.
    AskSink { has_if_range: bool },
}

/// What the time that a fetch waits for its server says about the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Measured {
    /// Its rate and its TTFB count for the peer and for the downloader.
    #[default]
    Fully,
    /// Its rate counts for the peer only: see [`Fetch::live`].
    ForPeer,
    /// Nothing: see [`Fetch::held`].
    Not,
}

/// Refuses a response before a byte of its body is read. Shared by the clones of a fetch.
pub(super) type Validate = Arc<Foreign<Box<CheckHead>>>;

type CheckHead = dyn Fn(&ResponseHead) -> Result<(), Error> + Send + Sync;

impl Fetch {
    /// A fetch of the whole of `url`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`]; [`ErrorKind::UnsupportedScheme`] for anything but `http` and `https`.
    pub fn get(url: &str) -> Result<Self, Error> {
        Request::get(url).map(Self::new)
    }

    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            priority: Priority::Low,
            epoch: None,
            max_retries: None,
            validate: None,
            handoff: None,
            measured: Measured::Fully,
            redial: None,
            other_tags: OtherTags::Change,
        }
    }

    /// Requests these bytes only. A server without ranges may still send the whole resource:
    /// [`ResponseHead::is_partial`] is false then. See [`require_range`](Self::require_range).
    #[must_use]
    pub fn range(mut self, range: ByteRange) -> Self {
        self.request = self.request.range(range);
        self
    }

    /// Fails with [`ErrorKind::RangeIgnored`] if the server sends the whole resource instead of the range. Its body is
    /// not read. Has no effect without a [`range`](Self::range).
    #[must_use]
    pub fn require_range(mut self) -> Self {
        self.request.require_range();
        self
    }

    /// Makes the fetch a long poll: the server may wait up to `limit` before it answers, for example until a playlist has
    /// changed. `limit` replaces `silence_timeout` of the [`ClientConfig`](crate::ClientConfig) for the response head
    /// and the body.
    ///
    /// It holds no worker: [`PeerHandle::execute`](crate::downloader::PeerHandle::execute) makes the request on the calling thread. A
    /// batch or a peer that returns such a fetch gets [`ErrorKind::InvalidInput`], and so does a `limit` of zero. It is
    /// never hedged or reported as slow or stalled, and its times count neither for the TTFB nor for the bandwidth.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use windway::{Downloader, DownloaderConfig, Fetch};
    ///
    /// let downloader = Downloader::new(DownloaderConfig::default())?;
    /// let peer = downloader.register((), Default::default())?;
    /// let reload = Fetch::get("https://example.com/live.m3u8?_HLS_msn=7")?.held(Duration::from_secs(18));
    /// let playlist = peer.execute(reload)?.text(1 << 20)?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    #[must_use]
    pub fn held(mut self, limit: Duration) -> Self {
        self.request.hold(limit);
        self.measured = Measured::Not;
        self
    }

    pub(super) fn is_held(&self) -> bool {
        self.request.held().is_some()
    }

    /// Fails for a held fetch that may not wait at all.
    pub(super) fn check_hold(&self) -> Result<(), Error> {
        if self.request.held().is_none_or(|limit| limit > Duration::ZERO) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the limit of a held fetch is zero"))
    }

    /// Fails for a held fetch, which would keep a worker waiting.
    pub(super) fn check_not_held(&self) -> Result<(), Error> {
        if !self.is_held() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidInput, "a held fetch runs by execute only");
        Err(error.with_url(self.request.url()))
    }

    /// Sends a header along. It stays behind where a redirect leads to another origin.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if HTTP does not allow the name or the value, or if windway sets the header itself: the
    /// range and its conditions, the encoding, and what concerns the connection or the proxy. The error names it.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        self.request = self.request.header(name, value)?;
        Ok(self)
    }

    /// Asks for the range only if the resource is still this one; else the whole comes, with status 200.
    #[must_use]
    pub fn if_range(mut self, validator: Validator) -> Self {
        self.request.set_if_range(validator);
        self
    }

    /// Of a live stream, to be read by [`Response::read_live`]: while it is silent and `urgency` says so, it is requested
    /// again beside itself.
    pub(crate) fn redial(mut self, urgency: Arc<dyn Urgency>) -> Self {
        self.redial = Some(urgency);
        self
    }

    /// How urgent it is beside the peer's other fetches. Default: `Low`; what `execute` and `batch` run is `High`.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Cancels this fetch with `epoch`, which [`PeerHandle::epoch`](crate::downloader::PeerHandle::epoch) of its own peer made. With an epoch
    /// of another peer it fails with [`ErrorKind::InvalidInput`], and is not sent.
    #[must_use]
    pub fn epoch(mut self, epoch: &Epoch) -> Self {
        self.epoch = Some(epoch.clone());
        self
    }

    /// Fails if it carries an epoch of another peer than that whose token this is, which could not cancel it then.
    pub(super) fn check_epoch(&self, peer: &CancelToken) -> Result<(), Error> {
        if self.epoch.as_ref().is_none_or(|epoch| epoch.is_of(peer)) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidInput, "the fetch carries an epoch of another peer");
        Err(error.with_url(self.request.url()))
    }

    /// How many attempts in a row may fail without 64 KiB, or a second, of new bytes in between; `u32::MAX` is for ever. Default: `max_retries` of
    /// [`DownloaderConfig`](crate::DownloaderConfig).
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Calls `validate` with each response head, before a byte of the body is read. Its error ends the attempt, and is
    /// retried if it [is retryable](Error::is_retryable).
    #[must_use]
    pub fn validate(
        mut self,
        validate: impl Fn(&ResponseHead) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.validate = Some(Arc::new(Foreign::new(Box::new(validate))));
        self
    }

    /// Who judges a rest with another entity tag.
    pub(crate) fn other_tags(mut self, other_tags: OtherTags) -> Self {
        self.other_tags = other_tags;
        self
    }

    /// Lets who waits for the bytes that the sink stores read the body by himself. The sink's `write` and `write_block` run on
    /// his thread then, one at a time as ever.
    pub(crate) fn handoff(mut self, handoff: &Arc<Handoff>) -> Self {
        self.handoff = Some(Arc::clone(handoff));
        self
    }

    /// Its bytes are sent at the pace of their source, as a station's are: what they show of the network counts for its peer
    /// only.
    pub(crate) fn live(mut self) -> Self {
        self.measured = Measured::ForPeer;
        self
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("request", &self.request)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// Bytes that a worker reads at once, at most.
pub(super) const BLOCK: usize = 256 * 1024;

/// Where the bytes of a pulled fetch go. Its methods run on a worker thread and must not block; what they may call is listed
/// in the documentation of the crate.
pub trait Sink: Send {
    /// The fetch was accepted under this id, by which it can be promoted. Called first, once.
    fn accepted(&mut self, request: RequestId) {
        let _ = request; // Most sinks have no use for it.
    }

    /// A head came and is valid; its body begins at [`ResponseHead::start`]. Called again when the fetch was interrupted and
    /// goes on. An error ends the fetch with it, before a byte of the body is read.
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        let _ = head; // Most sinks know what they asked for.
        Ok(Flow::Stream)
    }

    /// The open body, which `head` asked for with [`Flow::Detach`]; `finish` will not come. The fetch ends when the
    /// body ends, fails or is dropped, and holds no worker until then.
    fn detached(self: Box<Self>, body: Response) {
        drop(body);
    }

    /// Takes the next bytes, which lie at `offset` of the resource. An error ends the fetch with it.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Takes the next bytes, like [`write`](Self::write), in the buffer that they fill. A sink may keep the buffer instead
    /// of copying it, and leave another or an empty one in its place. Do not rely on a length: which parts of a body come
    /// in this way, and how long they are, may change in any version.
    fn write_block(&mut self, offset: u64, block: &mut Box<[u8]>) -> Result<(), Error> {
        self.write(offset, block)
    }

    /// The fetch met `error` and will be tried again at `at`.
    fn retrying(&mut self, error: &Error, at: Instant) {
        let _ = (error, at); // Most sinks just wait.
    }

    /// The one end. Comes exactly once, whatever happens, on one of windway's threads.
    fn finish(self: Box<Self>, outcome: Outcome);
}

/// What a sink wants done with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// The worker reads it and writes it to the sink.
    Stream,
    /// The sink gets it as a value, to be read at its own pace on a thread of its own.
    Detach,
}

/// How a fetch ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole body arrived.
    Done,
    /// It failed, after what retries were allowed.
    Failed(Error),
    /// It was cancelled, and by whom.
    Cancelled(CancelReason),
}

impl From<Result<(), Error>> for Outcome {
    fn from(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => match error.kind() {
                ErrorKind::Cancelled(reason) => Self::Cancelled(reason),
                _ => Self::Failed(error),
            },
        }
    }
}

/// A sink that is finished exactly once, and whose panics end its fetch and nothing else.
pub(super) struct GuardedSink(Option<Foreign<Box<dyn Sink>>>);

impl GuardedSink {
    pub(super) fn new(sink: Box<dyn Sink>) -> Self {
        Self(Some(Foreign::new(sink)))
    }

    pub(super) fn accepted(&mut self, request: RequestId) -> Result<(), Error> {
        let told = self.call("accepted", |sink| {
            sink.accepted(request);
            Ok(())
        });
        told.map(|_| ())
    }

    pub(super) fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.call("head", |sink| sink.head(head)).map(|flow| flow.unwrap_or(Flow::Stream))
    }

    pub(super) fn detached(mut self, body: Response) {
        let Some(sink) = self.0.take() else { return };
        // A panic is logged. The body ends the fetch where it is dropped.
        let _ = sink.consume("detached", |sink| sink.detached(body));
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.call("write", |sink| sink.write(offset, bytes)).map(|_| ())
    }

    pub(super) fn write_block(&mut self, offset: u64, block: &mut Box<[u8]>) -> Result<(), Error> {
        self.call("write_block", |sink| sink.write_block(offset, block)).map(|_| ())
    }

    pub(super) fn retrying(&mut self, error: &Error, at: Instant) -> Result<(), Error> {
        let told = self.call("retrying", |sink| {
            sink.retrying(error, at);
            Ok(())
        });
        told.map(|_| ())
    }

    fn call<T>(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut dyn Sink) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let Some(sink) = &mut self.0 else { return Ok(None) };
        sink.call(name, |sink| call(&mut **sink))?.map(Some)
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        self.finish_as(outcome);
    }

    fn finish_as(&mut self, outcome: Outcome) {
        let Some(sink) = self.0.take() else { return };
        // A panic is logged. There is nothing more to be ended.
        let _ = sink.consume("finish", |sink| sink.finish(outcome));
    }
}

impl Drop for GuardedSink {
    fn drop(&mut self) {
        self.finish_as(Outcome::from(Err(abandoned())));
    }
}

/// Why a fetch ends that nobody has ended: what held it is gone with the downloader, or was unwound.
pub(super) fn abandoned() -> Error {
    if thread::panicking() {
        Error::new(ErrorKind::Panicked, "what ran the fetch panicked")
    } else {
        Error::cancelled(CancelReason::Shutdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Probe {
        ends: mpsc::Sender<Outcome>,
        panics: bool,
    }

    impl Sink for Probe {
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
            assert!(!self.panics, "as asked");
            Ok(())
        }

        fn finish(self: Box<Self>, outcome: Outcome) {
            self.ends.send(outcome).unwrap();
        }
    }

    #[test]
    fn a_forgotten_sink_is_finished_as_cancelled() {
        let (ends, end) = mpsc::channel();
        drop(GuardedSink::new(Box::new(Probe { ends, panics: false })));
        let outcomes: Vec<_> = end.iter().collect();
        assert!(matches!(outcomes[..], [Outcome::Cancelled(CancelReason::Shutdown)]));
    }

    #[test]
    fn a_panicking_sink_fails_its_fetch_and_is_finished_once() {
        let (ends, end) = mpsc::channel();
        let mut sink = GuardedSink::new(Box::new(Probe { ends, panics: true }));
        let error = sink.write(0, b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        sink.finish(Outcome::Failed(error));
        assert_eq!(end.iter().count(), 1);
    }
}
