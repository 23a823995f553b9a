//! Converts errors of ureq and of sockets into windway's.

use std::io;
use std::time::Duration;

use ureq::Timeout;

use super::head;
use crate::error::{Error, ErrorKind};

/// Converts an error of ureq. One that wraps an error of windway is unwrapped. `silence` is the silence limit that it may have met.
pub(crate) fn describe(error: ureq::Error, silence: Duration) -> Error {
    let (kind, what) = match &error {
        ureq::Error::Io(_) => {
            let ureq::Error::Io(io) = error else { unreachable!("just matched") };
            return describe_io(io, silence);
        }
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            (ErrorKind::ConnectTimedOut, "connecting timed out")
        }
        ureq::Error::Timeout(Timeout::RecvResponse) => {
            let limit = head::limit(silence);
            let why = format!("read timed out: the response head is not complete after {limit:?}");
            return Error::new(ErrorKind::Silent, why);
        }
        ureq::Error::Timeout(_) => return Error::silent(silence),
        ureq::Error::HostNotFound => (ErrorKind::HostNotFound, "the host was not found"),
        ureq::Error::BadUri(_) => (ErrorKind::InvalidUrl, "the URL can't be requested"),
        ureq::Error::LargeResponseHeader(..) => {
            (ErrorKind::Protocol, "the response head is larger than ClientConfig::max_head")
        }
        _ => (ErrorKind::Protocol, "the response is not valid HTTP"),
    };
    let shown = Error::new(kind, what);
    // These contain the URL, or a text of unknown origin.
    let may_hold_secrets =
        matches!(error, ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) | ureq::Error::Other(_));
    if may_hold_secrets { shown } else { shown.with_cause(error) }
}

pub(crate) fn describe_io(error: io::Error, silence: Duration) -> Error {
    let ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
    if ours {
        return Error::from(error);
    }
    // ureq wraps its own errors where a `Read` can only fail with an `io::Error`.
    let error = match error.downcast::<ureq::Error>() {
        Ok(wrapped) => return describe(wrapped, silence),
        Err(error) => error,
    };
    let (kind, what) = match error.kind() {
        // rustls reports an invalid certificate, and bytes that are not TLS, as invalid data.
        io::ErrorKind::InvalidData => (ErrorKind::Tls, "TLS failed"),
        // Without the cause, which names another limit, or none.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return Error::silent(silence),
        _ => (ErrorKind::Disconnected, "the connection broke"),
    };
    // With the reason: "TLS failed" alone explains nothing.
    let what = if kind == ErrorKind::Tls { format!("{what}: {error}") } else { what.to_owned() };
    Error::new(kind, what).with_cause(error)
}

impl Error {
    /// See [`describe`].
    pub(crate) fn from_ureq(error: ureq::Error, silence: Duration) -> Self {
        describe(error, silence)
    }
}
