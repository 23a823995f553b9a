//! A fetch: the request, with its priority and its rules for retries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::epoch::Epoch;
use super::rules::{Measured, OtherTags, Rules};
use crate::cancel::CancelToken;
use crate::client::{Request, ResponseHead, Urgency, Validator};
use crate::downloader::runtime::handoff::Handoff;
use crate::error::{Error, ErrorKind};
use crate::foreign::Foreign;
use crate::types::{ByteRange, Priority};

/// A GET request over HTTP, with its priority and its rules for retries.
///
/// A clone fetches the same again.
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
    pub(super) rules: Rules,
    pub(super) handoff: Option<Arc<Handoff>>,
    /// See [`urgent_while`](Self::urgent_while).
    pub(super) is_still_urgent: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

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
            rules: Rules::default(),
            handoff: None,
            is_still_urgent: None,
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
        self.rules.measured = Measured::Not;
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

    /// Adds a header to the request. It is not sent to another origin that a redirect leads to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], naming the header, if HTTP does not allow the name or the value, or if windway sets the
    /// header itself: the range, the conditions, which have methods of their own, the accepted encodings, and headers of the
    /// connection or the proxy.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        self.request = self.request.header(name, value)?;
        Ok(self)
    }

    /// Requests the range only if the resource still has this validator. Otherwise the server sends the whole resource, with
    /// status 200.
    #[must_use]
    pub fn if_range(mut self, validator: Validator) -> Self {
        self.request.set_if_range(validator);
        self
    }

    /// Fetches the resource only if its entity tag is not `etag`, the value of the header `ETag` of an earlier response, also one that
    /// begins with `W/`. If it is, the fetch fails with [`ErrorKind::Status`] 304. For a playlist or a feed that is
    /// polled: [`guide::offline`](crate::guide::offline) shows it. Together with
    /// [`if_modified_since`](Self::if_modified_since) it serves a server that knows only one of them. Both are also sent to the
    /// origins that redirects lead to.
    ///
    /// ```no_run
    /// use windway::{Downloader, ErrorKind, Fetch, Priority};
    ///
    /// let peer = Downloader::global()?.register((), Priority::High)?;
    /// match peer.execute(Fetch::get("https://example.com/feed.xml")?.if_none_match("\"17\"")?) {
    ///     Ok(response) => println!("{} bytes", response.text(16 << 20)?.len()),
    ///     Err(error) if error.kind() == ErrorKind::Status(304) => println!("nothing new"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if HTTP does not allow the value.
    pub fn if_none_match(mut self, etag: &str) -> Result<Self, Error> {
        self.request.set_condition("if-none-match", etag)?;
        Ok(self)
    }

    /// As [`if_none_match`](Self::if_none_match), by `date`, the value of the header `Last-Modified`. A server that compares entity
    /// tags ignores it (RFC 9110, section 13.2.2).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if HTTP does not allow the value.
    pub fn if_modified_since(mut self, date: &str) -> Result<Self, Error> {
        self.request.set_condition("if-modified-since", date)?;
        Ok(self)
    }

    /// For a live stream that is read by [`Response::read_live`](super::Response::read_live): while it sends nothing and
    /// `urgency` is true, the same request is sent over another connection too.
    pub(crate) fn redial(mut self, urgency: Arc<dyn Urgency>) -> Self {
        self.rules.redial = Some(urgency);
        self
    }

    /// Priority relative to the peer's other fetches. Default: `Low`. `execute` and `batch` always use `High`.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Cancels this fetch with `epoch`, which must be made by
    /// [`PeerHandle::epoch`](crate::downloader::PeerHandle::epoch) of its own peer. With an epoch of another peer it fails
    /// with [`ErrorKind::InvalidInput`], and no request is sent.
    #[must_use]
    pub fn epoch(mut self, epoch: &Epoch) -> Self {
        self.epoch = Some(epoch.clone());
        self
    }

    /// Fails if its epoch is not of the peer that `peer` is the token of.
    pub(super) fn check_epoch(&self, peer: &CancelToken) -> Result<(), Error> {
        // A peer that ends cancels its own epochs only: another peer's would go on without it.
        if self.epoch.as_ref().is_none_or(|epoch| epoch.is_of(peer)) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidInput, "the epoch of the fetch was made by another peer");
        Err(error.with_url(self.request.url()))
    }

    /// Maximum number of retries. The count starts again when an attempt has received 64 KiB, or new bytes over at least one
    /// second. `u32::MAX` retries forever. Default: [`DownloaderConfig::max_retries`](crate::DownloaderConfig::max_retries).
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.rules.max_retries = Some(retries);
        self
    }

    /// Calls `validate` with each response head, before a byte of the body is read. Its error ends the attempt, and is
    /// retried if it [is retryable](Error::is_retryable).
    #[must_use]
    pub fn validate(
        mut self,
        validate: impl Fn(&ResponseHead) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.rules.validate = Some(Arc::new(Foreign::new(Box::new(validate))));
        self
    }

    /// Longest delay between two attempts, unless the server asks for a longer one. For a source that a listener waits for.
    #[cfg(feature = "hls")]
    pub(crate) fn max_retry_delay(mut self, delay: Duration) -> Self {
        self.rules.max_retry_delay = Some(delay);
        self
    }

    /// Earlier fetches from this server have just failed, so the delays between its attempts do not begin with the shortest.
    #[cfg(feature = "hls")]
    pub(crate) fn in_outage(mut self, is_out: bool) -> Self {
        self.rules.in_outage = is_out;
        self
    }

    /// Does not retry while there is no response: if the host can't be reached, or if it asks to wait for longer than
    /// `wait_limit`. For a caller that a user waits for. `None` is any time.
    pub(crate) fn fail_fast(mut self, wait_limit: Option<Duration>) -> Self {
        self.rules.wait_limit = Some(wait_limit.unwrap_or(Duration::MAX));
        self
    }

    /// Calls `on_retry` with the error of each attempt that is followed by another one: for a caller of `execute`, which has no sink
    /// to learn it by. It is called without a lock, and must not block.
    #[cfg(feature = "hls")]
    pub(crate) fn on_retry(mut self, on_retry: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.rules.on_retry = Some(Arc::new(on_retry));
        self
    }

    /// The resource was there before, so it is requested often while its server can't be reached. An HTML page that comes in its
    /// place, or a redirect that is forbidden, is retried for a while: the network wants a login.
    pub(crate) fn was_available(mut self) -> Self {
        self.rules.was_available = true;
        self
    }

    /// While its server can't be reached it is dialled often, although nothing has shown yet that the resource is there. For what
    /// is wanted whenever the network is back.
    pub(crate) fn dials_often(mut self) -> Self {
        self.rules.dials_often = true;
        self
    }

    /// What to do if the rest of a broken body has another entity tag.
    pub(crate) fn other_tags(mut self, other_tags: OtherTags) -> Self {
        self.rules.other_tags = other_tags;
        self
    }

    /// Requests the rest of a broken body without `If-Range`. That it is of the same representation is checked anyway. With the
    /// header, a cache that stores slices begins at the first one (nginx), or asks the origin.
    pub(crate) fn without_if_range(mut self) -> Self {
        self.rules.omits_if_range = true;
        self
    }

    /// Lets an urgent fetch become a prefetch when no reader waits for its bytes any more. `is_still_urgent` is called at a chunk
    /// while other urgent work waits for a worker. Without it the fetch stays urgent to its end.
    pub(crate) fn urgent_while(mut self, is_still_urgent: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.is_still_urgent = Some(Arc::new(is_still_urgent));
        self
    }

    /// Lets the reader that waits for the sink's bytes drive the transfer. The sink's `write` and `write_block` then run on
    /// the reader's thread, still one call at a time.
    pub(crate) fn handoff(mut self, handoff: &Arc<Handoff>) -> Self {
        self.handoff = Some(Arc::clone(handoff));
        self
    }

    /// The server sends at the rate of a live source, such as a station. So its rate shows nothing about the network, and
    /// counts for the peer only.
    pub(crate) fn live(mut self) -> Self {
        self.rules.measured = Measured::ForPeer;
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
