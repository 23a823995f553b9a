//! The crate's error type: cheap to clone, and classified by [`ErrorKind`] rather than by its text.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::cancel::CancelReason;
use crate::foreign::{self, Foreign, Panic};
use crate::safe_url::SafeUrl;
use crate::types::ByteRange;

/// What went wrong, with the URL, the byte range and the cause where they are known.
///
/// Cheap to clone: every reader that waits for a failed transfer gets the same error. `Error::from(io_error)` returns
/// the original error from an [`io::Error`] that a decoder passes on.
///
/// ```
/// use windway::{Error, ErrorKind};
///
/// let io_error = std::io::Error::from(Error::new(ErrorKind::Changed, "the file was replaced"));
/// assert_eq!(Error::from(io_error).kind(), ErrorKind::Changed);
/// ```
#[derive(Clone)]
// One pointer: a `Result` that carries it stays as small as its success.
pub struct Error(Arc<Report>);

struct Report {
    kind: ErrorKind,
    detail: String,
    url: Option<SafeUrl>,
    range: Option<ByteRange>,
    retry_after: Option<Duration>,
    challenge: Option<Arc<str>>,
    cause: Option<Arc<Foreign<Box<dyn StdError + Send + Sync>>>>,
}

/// The kind of an [`Error`], for a program to decide what to do.
///
/// "Retried" means that windway repeats the request itself, up to [`max_retries`](crate::DownloaderConfig::max_retries)
/// times, before the caller gets the error; [`Error::is_retryable`] is true for these. *By the caller* means that windway
/// does not repeat it, but the same call may succeed later; `is_retryable` is false. A [`Radio`](crate::Radio) that has received
/// audio also retries `Tls`, `Protocol`, `Redirect` and `Stalled`, and for a while `Status(403)`, `Status(404)`, `NotMedia` and
/// `Forbidden`.
///
/// | kind | when | retried | what to do |
/// |---|---|---|---|
/// | `InvalidUrl`, `UnsupportedScheme` | before a request, or at a redirect | no | correct the URL |
/// | `InvalidConfig`, `InvalidInput` | in the call with the wrong value | no | correct the value that the message names |
/// | `OutOfWindow` | seek of a radio | no | seek within [`Error::range`] |
/// | `HostNotFound` | DNS lookup | yes | check the host name and the network |
/// | `ConnectTimedOut`, `Refused`, `Unreachable` | connecting | yes | check the network, or try later |
/// | `Tls` | TLS handshake | no | check the clock and [`extra_roots`](crate::ClientConfig::extra_roots) |
/// | `Silent`, `Disconnected`, `Truncated` | waiting for the response head or the body | yes | try later |
/// | `Protocol` | reading the response | no | report it to the server's operator |
/// | `Status` 408, 425, 429, 500 to 599 | response head | yes | try later, after [`Error::retry_after`] |
/// | `Status` 304 | response head | no | use what an earlier fetch has returned |
/// | `Status`, all others | response head | no | check the URL and the credentials |
/// | `ProxyStatus` 408, 425, 429, 500 to 599 | connecting | yes | try later |
/// | `ProxyStatus`, all others | connecting | no | check the credentials for the proxy, and what it allows |
/// | `Redirect` | response head | no | check the URL, or raise [`max_redirects`](crate::ClientConfig::max_redirects) |
/// | `WrongRange` | response head | no | report it to the server's operator |
/// | `RangeIgnored` | response head | yes | try later, or open the URL again |
/// | `Encoded` | response head | no | open a station as a [`Radio`](crate::Radio) |
/// | `Changed` | response head or body | no | open the URL again |
/// | `NotMedia` | response head or first bytes | at the opening no; in the middle of a file for 2 min | check the URL: it may be a login page or a playlist |
/// | `Empty` | response head or body | no | skip the file |
/// | `InvalidPlaylist` | an HLS playlist (feature `hls`), a list of tracks (feature `queue`) | no | report it to the server's operator; see [`Error::source`](StdError::source) |
/// | `Unsupported` | a segment or an initialization section of HLS; a response to [`open_any`](crate::open_any()) | no | choose another variant, or enable the feature that the message names |
/// | `Forbidden` | a URI of a playlist, or a redirect from it; a SOCKS proxy refuses | no | allow it in the configuration, if you trust the playlist; check the credentials for the proxy |
/// | `TimedOut` | a read or a wait | by the caller | read again: the stream stays usable; see [`Error::cause`] |
/// | `GaveUp` | after retries without a byte for [`give_up`](crate::FileConfig::give_up) | no | open the URL again; see [`Error::cause`] |
/// | `Interrupted` | a read or a wait, after `interrupt` | by the caller | call `resume`, then read again |
/// | `Cancelled` | any time | no | nothing: the program asked for it |
/// | `TooLarge` | [`Response::bytes`](crate::Response::bytes), `text`; a playlist | no | raise the limit, or read the body in parts |
/// | `NotText` | [`Response::text`](crate::Response::text) | no | read the bytes with [`Response::bytes`](crate::Response::bytes) |
/// | `TooManyOpenBodies` | `execute`, or detaching a body | by the caller | read or drop open responses, then try again |
/// | `WouldDeadlock` | a blocking call in a callback | no | make the call on another thread |
/// | `Panicked` | a callback | no | correct the callback |
/// | `Stalled` | a fetch without progress, with [`HangPolicy::CancelStalled`](crate::config::HangPolicy::CancelStalled) | no | find what blocks, for example a sink |
/// | `NotCached` | HLS from the cache, a part of a download (feature `cache`) | by the caller | play again when the network is back; see [`Error::source`](StdError::source) |
/// | `WrongDigest` | the end of a download (feature `cache`) | no | report it to the publisher of the digest |
/// | `Storage` | writing or reading stored bytes | no | free disk space or memory, then open the URL again |
/// | `Refusal` | a sink | no | depends on the sink |
/// | `Io` | any time | no | depends on the error |
///
/// ```no_run
/// use windway::ErrorKind;
///
/// match windway::open("https://example.com/episode.mp3") {
///     Ok(stream) => println!("{:?} bytes", stream.len()),
///     Err(error) if error.kind() == ErrorKind::Status(404) => println!("there is no such file"),
///     Err(error) if error.is_retryable() => println!("try again later: {error}"),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL can't be parsed.
    InvalidUrl,
    /// The URL is neither `http` nor `https`, here or behind a redirect.
    UnsupportedScheme,
    /// An option has an invalid value. The message names the field.
    InvalidConfig,
    /// An argument of a call is invalid.
    InvalidInput,
    /// Seek of a radio to a position that is not stored. [`Error::range`] is the range that is stored.
    OutOfWindow,
    /// The DNS lookup failed, or found no address.
    HostNotFound,
    /// The DNS lookup or the connection was not complete within its limit.
    ConnectTimedOut,
    /// The host refused the connection: nothing listens on the port.
    Refused,
    /// There is no route to the host, or the connection failed in another way.
    Unreachable,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// The server sent nothing for `silence_timeout`, or less than `min_rate`.
    Silent,
    /// The connection broke, or was closed before the end of the body.
    Disconnected,
    /// The body ended before the length that the first response gave, and a request for the rest did not return it.
    Truncated,
    /// The response is not valid HTTP.
    Protocol,
    /// The server sent this status, which is not a success. 304 is the answer to
    /// [`Fetch::if_none_match`](crate::Fetch::if_none_match): nothing has changed.
    Status(u16),
    /// The proxy sent this status for a tunnel to the server, so there is no tunnel. It says nothing of the file: a status that a
    /// proxy sends must not look like one that came over TLS.
    ProxyStatus(u16),
    /// Too many redirects, a redirect loop, or a redirect without a valid target.
    Redirect,
    /// The response has a different range than requested.
    WrongRange,
    /// The server sent the whole file instead of the requested range, although it had served ranges before, or although
    /// [`Fetch::require_range`](crate::Fetch::require_range) was set.
    RangeIgnored,
    /// The body has a content encoding although `identity` was requested, or contains a station's metadata. So offsets
    /// in it are not offsets in the file. Open a station as a [`Radio`](crate::Radio).
    Encoded,
    /// The resource has changed since the first response. Its bytes can't be joined with the stored ones.
    Changed,
    /// The response is an HTML page, a playlist or other text, a picture, a PDF or a ZIP archive, not audio.
    NotMedia,
    /// The resource exists and has no bytes.
    Empty,
    /// The text is not a playlist, or violates its format. The cause names the line.
    InvalidPlaylist,
    /// The container, the codec or the encryption is not supported, or the kind of document that a URL leads to.
    Unsupported,
    /// A playlist leads to a URL that the configuration does not allow: an unencrypted one, or a private address. Or a SOCKS proxy
    /// does not allow a connection.
    Forbidden,
    /// A read or a wait made no progress within its limit. The stream stays usable.
    TimedOut,
    /// What a read waits for was retried without receiving a byte for [`give_up`](crate::FileConfig::give_up). The stream has
    /// ended: only stored bytes can be read. The cause is the error of the last attempt.
    GaveUp,
    /// Another thread interrupted the wait. The stream stays usable.
    Interrupted,
    /// The work was cancelled, for this reason.
    Cancelled(CancelReason),
    /// The body is larger than the limit that the caller gave.
    TooLarge,
    /// The body is not UTF-8, and was read as text.
    NotText,
    /// Callers hold [`max_open_bodies`](crate::DownloaderConfig::max_open_bodies) response bodies open.
    TooManyOpenBodies,
    /// A blocking call was made in a callback, where it could wait for its own thread. The crate's documentation lists
    /// the calls that are allowed in callbacks.
    WouldDeadlock,
    /// A callback panicked.
    Panicked,
    /// The watchdog cancelled a transfer that made no progress.
    Stalled,
    /// A presentation of HLS is played from the cache, something of it is not stored, and its playlist can't be loaded. Or what a download
    /// has left is played, and these bytes are not stored.
    NotCached,
    /// A downloaded file does not have the SHA-256 digest that it should have.
    WrongDigest,
    /// Local storage failed: disk full, file removed, or out of memory.
    Storage,
    /// A sink refused the response or its bytes.
    Refusal,
    /// An [`io::Error`] that did not come from windway.
    Io(io::ErrorKind),
}

impl Error {
    /// Makes an error. `detail` says what went wrong, in lower case and without a full stop.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Arc::new(Report {
            kind,
            detail: detail.into(),
            url: None,
            range: None,
            retry_after: None,
            challenge: None,
            cause: None,
        }))
    }

    pub(crate) fn cancelled(reason: CancelReason) -> Self {
        Self::new(ErrorKind::Cancelled(reason), format!("cancelled: {reason}"))
    }

    /// The error of a read of a response that met the silence limit.
    pub(crate) fn silent(limit: Duration) -> Self {
        Self::new(ErrorKind::Silent, format!("read timed out: no data for {limit:?}"))
    }

    /// The error of the thread `windway-{name}`, which could not be started.
    pub(crate) fn no_thread(name: &str, cause: io::Error) -> Self {
        let kind = match cause.kind() {
            // POSIX, `pthread_create`: EAGAIN beyond a limit. In a read it would mean that the bytes have not arrived.
            io::ErrorKind::WouldBlock => io::ErrorKind::ResourceBusy,
            kind => kind,
        };
        Self::new(ErrorKind::Io(kind), format!("the thread windway-{name} could not be started"))
            .with_cause(cause)
    }

    /// Fails in a callback that windway runs. Each call that may block on another thread checks this first: see
    /// [`foreign`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldDeadlock`], naming `call`.
    pub(crate) fn check_may_block(call: &str) -> Result<(), Self> {
        if !foreign::in_callback() {
            return Ok(());
        }
        let why = format!("{call} was called in a callback, where it could block forever");
        Err(Self::new(ErrorKind::WouldDeadlock, why))
    }

    /// Adds the URL that the error is about, if it has none yet. The error's text shows the URL without its secrets:
    /// see [`SafeUrl`].
    #[must_use]
    pub fn with_url(self, url: impl Into<SafeUrl>) -> Self {
        self.edit(|report| {
            // Not replaced: the code where the error is made knows the URL of the redirect that failed, its callers only the
            // first one.
            report.url.get_or_insert(url.into());
        })
    }

    /// Adds the byte range that the error is about, if it has none yet.
    #[must_use]
    pub fn with_range(self, range: ByteRange) -> Self {
        self.edit(|report| {
            // Not replaced, for the same reason: callers know the range of the whole fetch, not that of the attempt.
            report.range.get_or_insert(range);
        })
    }

    pub(crate) fn with_retry_after(self, after: Duration) -> Self {
        self.edit(|report| report.retry_after = Some(after))
    }

    /// Says that the error is about the way to the proxy, which the user may not know of, and not about the way to the URL.
    pub(crate) fn on_the_way_to_the_proxy(self) -> Self {
        self.edit(|report| report.detail = format!("can't connect to the proxy: {}", report.detail))
    }

    /// Says that the error is about a tunnel, which the user may not know of. It may come from the proxy, and not from the server.
    pub(crate) fn through_the_proxy(self, proxy: &str) -> Self {
        self.edit(|report| report.detail += &format!(", through the proxy {proxy}"))
    }

    /// Adds why QUIC, which was tried first, did not work either.
    #[cfg(feature = "http3")]
    pub(crate) fn and_over_quic(self, error: &Self) -> Self {
        self.edit(|report| report.detail += &format!("; over QUIC: {}", error.0.detail))
    }

    pub(crate) fn with_challenge(self, challenge: &str) -> Self {
        self.edit(|report| report.challenge = Some(challenge.into()))
    }

    /// Sets the cause of the error.
    #[must_use]
    pub fn with_cause(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|report| report.cause = Some(Arc::new(Foreign::new(cause.into()))))
    }

    fn edit(mut self, change: impl FnOnce(&mut Report)) -> Self {
        // Usually not shared yet: an error is completed where it is made.
        match Arc::get_mut(&mut self.0) {
            Some(report) => change(report),
            None => {
                let shared = &self.0;
                let mut report = Report {
                    kind: shared.kind,
                    detail: shared.detail.clone(),
                    url: shared.url.clone(),
                    range: shared.range,
                    retry_after: shared.retry_after,
                    challenge: shared.challenge.clone(),
                    cause: shared.cause.clone(),
                };
                change(&mut report);
                self.0 = Arc::new(report);
            }
        }
        self
    }

    /// The windway error inside `error`, if there is one: for code that has to return `error` unchanged. `Error::from` takes any
    /// [`io::Error`].
    ///
    /// ```
    /// use std::io;
    /// use windway::{Error, ErrorKind};
    ///
    /// let error = io::Error::from(Error::new(ErrorKind::Changed, "the file was replaced"));
    /// assert_eq!(Error::of(&error).map(Error::kind), Some(ErrorKind::Changed));
    /// assert!(Error::of(&io::Error::other("disk on fire")).is_none());
    /// ```
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without the URL and the range.
    #[cfg(feature = "queue")]
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The URL that the error is about, if any.
    pub fn url(&self) -> Option<&SafeUrl> {
        self.0.url.as_ref()
    }

    /// The byte range that the error is about, if any: usually the requested one.
    pub fn range(&self) -> Option<ByteRange> {
        self.0.range
    }

    /// Delay from the response's `Retry-After` header, of this error or of its cause.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after.or_else(|| self.cause()?.retry_after())
    }

    /// The `WWW-Authenticate` header of a response with status 401, of this error or of its cause: how the server wants the
    /// request to be authenticated. Several fields are joined by commas (RFC 9110, section 11.6.1).
    pub fn challenge(&self) -> Option<&str> {
        self.0.challenge.as_deref().or_else(|| self.cause()?.challenge())
    }

    /// HTTP status of [`ErrorKind::Status`], of this error or of its cause.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            ErrorKind::Status(status) => Some(status),
            _ => self.cause()?.status(),
        }
    }

    /// The cause, if it is a windway error. For [`TimedOut`](ErrorKind::TimedOut) it is the error of the last attempt.
    /// [`source`](StdError::source) also returns causes of other types.
    pub fn cause(&self) -> Option<&Self> {
        self.source()?.downcast_ref()
    }

    /// True if the network or the server failed in a way that may pass, so the same request may succeed later.
    ///
    /// windway retries these errors itself before it returns one. False for errors of the program: a call that was
    /// interrupted or cancelled, or a limit that the program has set.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::HostNotFound
            | ErrorKind::ConnectTimedOut
            | ErrorKind::Refused
            | ErrorKind::Unreachable
            | ErrorKind::Silent
            | ErrorKind::Disconnected
            | ErrorKind::Truncated
            // RFC 9110, section 14.2: a server may ignore `Range` in one response and honour it in the next.
            | ErrorKind::RangeIgnored => true,
            // RFC 9110, section 15.5.9 (408), RFC 8470, section 5.2 (425), RFC 6585, section 4 (429): the client may repeat the
            // request. RFC 9110, section 15.6: with 5xx the server says that the failure is its own.
            ErrorKind::Status(status) | ErrorKind::ProxyStatus(status) => {
                matches!(status, 408 | 425 | 429 | 500..=599)
            }
            _ => false,
        }
    }

    /// True if a server may refuse a range by it, and answer the same request without one. For what is requested on a guess: a file that a
    /// program names is requested without a range after any refusal.
    pub(crate) fn may_refuse_range(&self) -> bool {
        match self.status() {
            // A missing file or a missing right stays missing without a range. 403 is not among them: a server may refuse ranges by it.
            Some(401 | 404 | 407 | 410) => false,
            // 408, 425 and 429 are about the moment and not about the range: the second request would meet them too.
            Some(400..=499) => !self.is_retryable(),
            _ => false,
        }
    }

    /// True if there was no connection.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Refused
                | ErrorKind::HostNotFound
                | ErrorKind::Unreachable
                | ErrorKind::ConnectTimedOut
        )
    }

    /// True if a time limit was exceeded: while connecting, by a server that sent nothing, in a read or a wait, or by a
    /// transfer that the watchdog ended.
    ///
    /// ```
    /// use windway::{Error, ErrorKind};
    ///
    /// assert!(Error::new(ErrorKind::Silent, "no data for 10 s").is_timeout());
    /// assert!(!Error::new(ErrorKind::Refused, "connection refused").is_timeout());
    /// ```
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::ConnectTimedOut
                | ErrorKind::Silent
                | ErrorKind::TimedOut
                | ErrorKind::GaveUp
                | ErrorKind::Stalled
        )
    }

    /// True if the work was cancelled, for any reason.
    ///
    /// False for [`ErrorKind::Interrupted`]: after an `interrupt` the same read can succeed, once `resume` was called. A program that
    /// stops a player by `interrupt`, and shows errors, has to look for both:
    ///
    /// ```
    /// use windway::{Error, ErrorKind};
    ///
    /// fn is_stopped(error: &Error) -> bool {
    ///     error.kind() == ErrorKind::Interrupted || error.is_cancelled()
    /// }
    /// assert!(is_stopped(&Error::new(ErrorKind::Interrupted, "interrupted")));
    /// assert!(!Error::new(ErrorKind::Interrupted, "interrupted").is_cancelled());
    /// ```
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Cancelled(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &*self.0;
        // Without the causes: a caller that prints `source` as well would show each of them twice. Only errors that say nothing
        // without their cause have its text in `detail`.
        f.write_str(&report.detail)?;
        match (&report.url, report.range) {
            (Some(url), Some(range)) => write!(f, " ({url}, bytes {range})"),
            (Some(url), None) => write!(f, " ({url})"),
            (None, Some(range)) => write!(f, " (bytes {range})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = format!("{:?}: {self}", self.0.kind);
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors give the reason themselves, where their own text would explain nothing without it.
            if !shown.contains(&text) {
                shown.push_str(": ");
                shown.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&shown)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause: &(dyn StdError + 'static) = &**self.0.cause.as_ref()?.get();
        Some(cause)
    }
}

impl From<Panic> for Error {
    fn from(panic: Panic) -> Self {
        Self::new(ErrorKind::Panicked, panic.to_string())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        // Never `Interrupted`: std's helpers, such as `read_exact`, retry it at once and would spin.
        let kind = match error.kind() {
            ErrorKind::InvalidUrl
            | ErrorKind::UnsupportedScheme
            | ErrorKind::InvalidConfig
            | ErrorKind::InvalidInput
            | ErrorKind::OutOfWindow => io::ErrorKind::InvalidInput,
            ErrorKind::HostNotFound | ErrorKind::Status(404 | 410) => io::ErrorKind::NotFound,
            ErrorKind::Status(401 | 403) | ErrorKind::ProxyStatus(403 | 407) | ErrorKind::Forbidden => {
                io::ErrorKind::PermissionDenied
            }
            ErrorKind::ConnectTimedOut
            | ErrorKind::Silent
            | ErrorKind::TimedOut
            | ErrorKind::GaveUp
            | ErrorKind::Stalled => io::ErrorKind::TimedOut,
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            // Never `UnexpectedEof`: decoders treat it as the end of the file.
            ErrorKind::Disconnected | ErrorKind::Truncated => io::ErrorKind::ConnectionAborted,
            ErrorKind::Protocol
            | ErrorKind::WrongRange
            | ErrorKind::RangeIgnored
            | ErrorKind::Encoded
            | ErrorKind::Changed
            | ErrorKind::NotMedia
            | ErrorKind::InvalidPlaylist
            | ErrorKind::Unsupported
            | ErrorKind::Empty => io::ErrorKind::InvalidData,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            // A source of the user may have failed with it. `read_to_end` and others of std repeat a read that fails so, without end.
            ErrorKind::Io(io::ErrorKind::Interrupted) => io::ErrorKind::Other,
            ErrorKind::Io(kind) => kind,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match Error::of(&error) {
            Some(ours) => ours.clone(),
            None => Error::new(ErrorKind::Io(error.kind()), error.to_string()).with_cause(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_passes_through_io_error_unchanged() {
        let error = Error::new(ErrorKind::Changed, "the file was replaced")
            .with_url("http://host/a.flac")
            .with_range(ByteRange::new(5, 9));
        let back = Error::from(io::Error::from(error.clone()));
        assert_eq!(back.kind(), ErrorKind::Changed);
        assert_eq!(back.to_string(), "the file was replaced (http://host/a.flac, bytes 5-8)");
    }

    #[test]
    fn a_change_to_a_shared_error_is_made_on_a_copy() {
        let error = Error::new(ErrorKind::Refused, "connection refused");
        let shared = error.clone();
        assert_eq!(error.with_url("http://host/").url(), Some(&SafeUrl::from("http://host/")));
        assert_eq!(shared.url(), None);
    }

    #[test]
    fn no_io_error_has_the_kind_interrupted() {
        for kind in [ErrorKind::Interrupted, ErrorKind::Io(io::ErrorKind::Interrupted)] {
            let io_error = io::Error::from(Error::new(kind, "stopped"));
            assert_ne!(io_error.kind(), io::ErrorKind::Interrupted);
        }
    }

    #[test]
    fn a_cause_whose_text_is_in_the_error_is_shown_once() {
        let error = Error::new(ErrorKind::InvalidPlaylist, "line 3: no duration");
        let error = error.with_url("http://h/a").with_cause(io::Error::other("line 3: no duration"));
        assert_eq!(format!("{error:?}"), "InvalidPlaylist: line 3: no duration (http://h/a)");
        let error = Error::new(ErrorKind::Disconnected, "broke").with_cause(io::Error::other("reset"));
        assert_eq!(format!("{error:?}"), "Disconnected: broke: reset");
    }

    #[test]
    fn a_url_without_a_scheme_is_an_error_that_says_so() {
        for (url, kind) in [
            ("example.com/a.mp3", ErrorKind::InvalidUrl),
            ("localhost:8000/a.mp3", ErrorKind::UnsupportedScheme),
            ("example.com:8000", ErrorKind::UnsupportedScheme),
        ] {
            let error = crate::safe_url::HttpUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), kind, "{url}");
            assert!(error.to_string().contains("\"https://\" is missing"), "{error}");
        }
        let other = crate::safe_url::HttpUrl::parse("ftp://h/a").unwrap_err();
        assert!(other.to_string().contains("only http and https"), "{other}");
    }

    #[test]
    fn the_cause_is_kept() {
        let error = Error::from(io::Error::other("disk on fire"));
        assert!(error.source().is_some_and(|cause| cause.to_string() == "disk on fire"));
    }
}
