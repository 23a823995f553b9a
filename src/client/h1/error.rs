//! Errors of ureq and of sockets, as windway tells them.

use std::io;

use ureq::Timeout;

use crate::error::{Error, ErrorKind};

/// ureq's error as ours. Those that began as ours come back as they were.
pub(crate) fn describe(error: ureq::Error) -> Error {
    let (kind, what) = match &error {
        ureq::Error::Io(_) => {
            let ureq::Error::Io(io) = error else { unreachable!("just matched") };
            return describe_io(io);
        }
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            (ErrorKind::ConnectTimedOut, "connecting timed out")
        }
        ureq::Error::Timeout(_) => {
            (ErrorKind::Silent, "read timed out: the server sent nothing for the silence limit")
        }
        ureq::Error::HostNotFound => (ErrorKind::HostNotFound, "the host was not found"),
        ureq::Error::BadUri(_) => (ErrorKind::InvalidUrl, "the URL can't be requested"),
        ureq::Error::LargeResponseHeader(..) => {
            (ErrorKind::Protocol, "the response head is larger than allowed")
        }
        _ => (ErrorKind::Protocol, "the response is not valid HTTP"),
    };
    let shown = Error::new(kind, what);
    // These hold the URL, or a text from who knows where.
    let may_hold_secrets =
        matches!(error, ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) | ureq::Error::Other(_));
    if may_hold_secrets { shown } else { shown.with_cause(error) }
}

pub(crate) fn describe_io(error: io::Error) -> Error {
    let ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
    if ours {
        return Error::from(error);
    }
    let error = match error.downcast::<ureq::Error>() {
        Ok(wrapped) => return describe(wrapped),
        Err(error) => error,
    };
    let (kind, what) = match error.kind() {
        // What rustls makes of a certificate or of bytes that are no TLS.
        io::ErrorKind::InvalidData => (ErrorKind::Tls, "TLS failed"),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            (ErrorKind::Silent, "read timed out: the server sent nothing for the silence limit")
        }
        _ => (ErrorKind::Disconnected, "the connection broke"),
    };
    Error::new(kind, what).with_cause(error)
}

impl Error {
    pub(crate) fn from_ureq(error: ureq::Error) -> Self {
        describe(error)
    }
}
