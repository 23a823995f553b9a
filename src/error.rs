//! The one error of this crate: cloneable, asked by kind, never compared by text.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::cancel::CancelReason;
use crate::foreign::{self, Foreign, Panic};
use crate::safe_url::SafeUrl;
use crate::types::ByteRange;

/// What went wrong, where, and why.
///
/// Cheap to clone, so that every waiter of a failed transfer gets the same error. It survives a trip through
/// [`io::Read`]: a decoder that hands an [`io::Error`] up can turn it back with `Error::from(io_error)`.
#[derive(Clone)]
pub struct Error(Arc<Report>);

struct Report {
    kind: ErrorKind,
    detail: String,
    url: Option<SafeUrl>,
    range: Option<ByteRange>,
    retry_after: Option<Duration>,
    cause: Option<Arc<Foreign<Box<dyn StdError + Send + Sync>>>>,
}

/// The kind of an [`Error`]: what a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL can't be parsed.
    InvalidUrl,
    /// The URL is neither `http` nor `https`, here or behind a redirect.
    UnsupportedScheme,
    /// An option has a value that makes no sense; the message names the field.
    InvalidConfig,
    /// A call had an argument that makes no sense.
    InvalidInput,
    /// A radio was sought to a byte that it does not keep; [`Error::range`] tells which bytes it keeps.
    OutOfWindow,
    /// The name lookup found no address, or failed.
    HostNotFound,
    /// The name lookup or the connection was not there within its limit.
    ConnectTimedOut,
    /// The host answered that nobody listens on the port.
    Refused,
    /// There is no route to the host, or the connection failed in another way.
    Unreachable,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// The server sent nothing for as long as the silence limit allows.
    Silent,
    /// The connection broke, or ended before the body did.
    Disconnected,
    /// The body ended before the end that the first answer had promised, and asking for the rest did not bring it.
    Truncated,
    /// What the server sent is not HTTP, or breaks its rules.
    Protocol,
    /// The server, or the proxy that was asked for a tunnel to it, answered with this status, which is not a success.
    Status(u16),
    /// More redirects than allowed, or a redirect that leads in a circle or nowhere.
    Redirect,
    /// The answer does not cover the range that was asked for.
    WrongRange,
    /// The whole came instead of the range that was asked for, from a server that had served ranges before.
    RangeIgnored,
    /// The body came encoded although identity was asked for, or has a station's titles in between: its offsets mean
    /// nothing. A station is for a [`Radio`](crate::Radio).
    Encoded,
    /// The resource is another one than before: joining the two would be noise.
    Changed,
    /// The answer is a page, not audio.
    NotMedia,
    /// The resource exists and has no bytes.
    Empty,
    /// A read or a wait made no progress within its limit. The stream stays usable.
    TimedOut,
    /// Another thread interrupted the wait. The stream stays usable.
    Interrupted,
    /// The work was cancelled, and by whom.
    Cancelled(CancelReason),
    /// More response bodies are open in callers' hands than allowed.
    TooManyOpenBodies,
    /// A blocking call was made in a callback, where it could wait for itself. The documentation of the crate has the table
    /// of what is allowed in which callback.
    WouldDeadlock,
    /// A callback panicked.
    Panicked,
    /// The watchdog ended a transfer that did not move.
    Stalled,
    /// The local storage failed: disk full, file removed, no memory.
    Storage,
    /// A sink refused the answer or the bytes for a reason of its own.
    Refusal,
    /// An [`io::Error`] that did not come from windway.
    Io(io::ErrorKind),
}

impl Error {
    /// An error of `kind`; `detail` says what was wrong, in lower case and without a full stop.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Arc::new(Report {
            kind,
            detail: detail.into(),
            url: None,
            range: None,
            retry_after: None,
            cause: None,
        }))
    }

    pub(crate) fn cancelled(reason: CancelReason) -> Self {
        Self::new(ErrorKind::Cancelled(reason), format!("cancelled: {reason}"))
    }

    /// Fails in a callback of windway's. Every call that may block until another thread has done something asks this first:
    /// see [`foreign`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldDeadlock`], naming `call`.
    pub(crate) fn check_may_block(call: &str) -> Result<(), Self> {
        if !foreign::in_callback() {
            return Ok(());
        }
        let why = format!("{call} was called in a callback, which it could wait for forever");
        Err(Self::new(ErrorKind::WouldDeadlock, why))
    }

    /// The same error with the URL it concerns. A URL that is already there stays. The error's text shows it without its
    /// secrets: see [`SafeUrl`].
    #[must_use]
    pub fn with_url(self, url: impl Into<SafeUrl>) -> Self {
        self.edit(|report| {
            report.url.get_or_insert(url.into());
        })
    }

    /// The same error with the byte range it concerns. A range that is already there stays.
    #[must_use]
    pub fn with_range(self, range: ByteRange) -> Self {
        self.edit(|report| {
            report.range.get_or_insert(range);
        })
    }

    pub(crate) fn with_retry_after(self, after: Duration) -> Self {
        self.edit(|report| report.retry_after = Some(after))
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_cause(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|report| report.cause = Some(Arc::new(Foreign::new(cause.into()))))
    }

    fn edit(mut self, change: impl FnOnce(&mut Report)) -> Self {
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
                    cause: shared.cause.clone(),
                };
                change(&mut report);
                self.0 = Arc::new(report);
            }
        }
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The URL that was asked for, where one is concerned.
    pub fn url(&self) -> Option<&SafeUrl> {
        self.0.url.as_ref()
    }

    /// The bytes that were asked for, where a range is concerned.
    pub fn range(&self) -> Option<ByteRange> {
        self.0.range
    }

    /// How long the server asked to be left alone, if it did, here or in what caused this.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after.or_else(|| self.cause()?.retry_after())
    }

    /// The HTTP status, if that is what went wrong, here or in what caused this.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            ErrorKind::Status(status) => Some(status),
            _ => self.cause()?.status(),
        }
    }

    /// What caused this, if that was an error of windway's: what the attempts failed of, in one that says
    /// [`TimedOut`](ErrorKind::TimedOut). [`source`](StdError::source) has the others, too.
    pub fn cause(&self) -> Option<&Self> {
        self.source()?.downcast_ref()
    }

    /// True if the same request may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::HostNotFound
            | ErrorKind::ConnectTimedOut
            | ErrorKind::Refused
            | ErrorKind::Unreachable
            | ErrorKind::Silent
            | ErrorKind::Disconnected
            | ErrorKind::Truncated
            | ErrorKind::RangeIgnored
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::TooManyOpenBodies => true,
            ErrorKind::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// True if the work was cancelled, whoever did it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Cancelled(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &*self.0;
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
        write!(f, "{:?}: {self}", self.0.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
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
        // Never `Interrupted`: std's helpers try again at once on it, and would spin.
        let kind = match error.kind() {
            ErrorKind::InvalidUrl
            | ErrorKind::UnsupportedScheme
            | ErrorKind::InvalidConfig
            | ErrorKind::InvalidInput
            | ErrorKind::OutOfWindow => io::ErrorKind::InvalidInput,
            ErrorKind::HostNotFound | ErrorKind::Status(404 | 410) => io::ErrorKind::NotFound,
            ErrorKind::Status(401 | 403) => io::ErrorKind::PermissionDenied,
            ErrorKind::ConnectTimedOut | ErrorKind::Silent | ErrorKind::TimedOut | ErrorKind::Stalled => {
                io::ErrorKind::TimedOut
            }
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            // Never `UnexpectedEof`: decoders take it for the end.
            ErrorKind::Disconnected | ErrorKind::Truncated => io::ErrorKind::ConnectionAborted,
            ErrorKind::Protocol
            | ErrorKind::WrongRange
            | ErrorKind::RangeIgnored
            | ErrorKind::Encoded
            | ErrorKind::Changed
            | ErrorKind::NotMedia
            | ErrorKind::Empty => io::ErrorKind::InvalidData,
            ErrorKind::Io(io::ErrorKind::Interrupted) => io::ErrorKind::Other,
            ErrorKind::Io(kind) => kind,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let inside = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inside {
            Some(ours) => ours.clone(),
            None => Error::new(ErrorKind::Io(error.kind()), error.to_string()).with_cause(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_a_trip_through_io() {
        let error = Error::new(ErrorKind::Changed, "the file was replaced")
            .with_url("http://host/a.flac")
            .with_range(ByteRange::new(5, 9));
        let back = Error::from(io::Error::from(error.clone()));
        assert_eq!(back.kind(), ErrorKind::Changed);
        assert_eq!(back.to_string(), "the file was replaced (http://host/a.flac, bytes 5-8)");
    }

    #[test]
    fn a_shared_error_is_edited_by_copy() {
        let error = Error::new(ErrorKind::Refused, "connection refused");
        let shared = error.clone();
        assert_eq!(error.with_url("http://host/").url(), Some(&SafeUrl::from("http://host/")));
        assert_eq!(shared.url(), None);
    }

    #[test]
    fn no_io_error_says_interrupted() {
        for kind in [ErrorKind::Interrupted, ErrorKind::Io(io::ErrorKind::Interrupted)] {
            let io_error = io::Error::from(Error::new(kind, "stopped"));
            assert_ne!(io_error.kind(), io::ErrorKind::Interrupted);
        }
    }

    #[test]
    fn the_cause_is_kept() {
        let error = Error::from(io::Error::other("disk on fire"));
        assert!(error.source().is_some_and(|cause| cause.to_string() == "disk on fire"));
    }
}
