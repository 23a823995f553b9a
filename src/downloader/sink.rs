//! A sink receives the body of a fetch, and learns how the fetch ended. Each sink is finished exactly once.

use std::time::Instant;

use super::response::Response;
use super::runtime::record::abandoned;
use crate::buffer::Buffer;
use crate::cancel::CancelReason;
use crate::client::ResponseHead;
use crate::error::{Error, ErrorKind};
use crate::foreign::Foreign;
use crate::types::RequestId;

/// Receives the body of a fetch that a [`Peer`](crate::downloader::Peer) returned.
///
/// Its methods run on a worker thread (`finish` on any of windway's threads), one call at a time, and must not block: the
/// worker would be lost to others. The [crate's documentation](crate) lists the calls that they may make.
///
/// ```
/// use std::fs::File;
/// use std::io::Write;
/// use windway::downloader::{Outcome, Sink};
/// use windway::{Error, ErrorKind};
///
/// struct IntoFile(File);
///
/// impl Sink for IntoFile {
///     fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), Error> {
///         let written = self.0.write_all(bytes);
///         written.map_err(|cause| Error::new(ErrorKind::Storage, "the file can't be written").with_cause(cause))
///     }
///
///     fn finish(self: Box<Self>, outcome: Outcome) {
///         if let Outcome::Failed(error) = outcome {
///             eprintln!("{error}");
///         }
///     }
/// }
/// ```
pub trait Sink: Send {
    /// The fetch was accepted and has this id, which events and [`promote`](crate::downloader::PeerHandle::promote) use.
    /// Called once, before all other methods.
    fn accepted(&mut self, request: RequestId) {
        let _ = request; // Unused by default: most sinks need no id.
    }

    /// A valid response head arrived. Its body begins at [`ResponseHead::start`]. Called again each time the fetch continues
    /// on another connection. An error ends the fetch before a byte of the body is read.
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        let _ = head; // Unused by default: most sinks know what they requested.
        Ok(Flow::Stream)
    }

    /// Takes the open body, after `head` returned [`Flow::Detach`]. `finish` is not called then. The fetch holds no worker
    /// from now on, and ends when the body ends, fails or is dropped.
    fn detached(self: Box<Self>, body: Response) {
        drop(body);
    }

    /// Takes the next bytes of the body. `offset` is their position in the resource. An error ends the fetch.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Takes the next bytes, like [`write`](Self::write), in the buffer that they fill. A sink may keep the buffer instead
    /// of copying it, and leave another or an empty one in its place. Do not rely on a length: which parts of a body come
    /// in this way, and how long they are, may change in any version.
    fn write_block(&mut self, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        self.write(offset, block)
    }

    /// An attempt failed with `error`, and the fetch is retried at `at`.
    fn retrying(&mut self, error: &Error, at: Instant) {
        let _ = (error, at); // Most sinks just wait.
    }

    /// The fetch has ended. Called exactly once, on one of windway's threads, also if the downloader stops or another method
    /// panics.
    fn finish(self: Box<Self>, outcome: Outcome);
}

/// What happens to the body of a response, as [`Sink::head`] decides.
///
/// ```
/// use windway::downloader::{Flow, Outcome, ResponseHead, Sink};
/// use windway::{Error, Response};
///
/// /// Reads each body on a thread of its own.
/// struct OnOwnThread;
///
/// impl Sink for OnOwnThread {
///     fn head(&mut self, _: &ResponseHead) -> Result<Flow, Error> {
///         Ok(Flow::Detach)
///     }
///
///     fn detached(self: Box<Self>, response: Response) {
///         std::thread::spawn(move || response.bytes(1 << 20));
///     }
///
///     fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
///         Ok(())
///     }
///
///     fn finish(self: Box<Self>, _: Outcome) {}
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// A worker reads it and writes it into the sink.
    Stream,
    /// [`Sink::detached`] gets it as a value, to be read at any rate on a thread of the sink's own.
    Detach,
}

/// How a fetch ended.
///
/// [`Sink`] shows an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole body arrived.
    Done,
    /// It failed, after all retries.
    Failed(Error),
    /// It was cancelled, for this reason.
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

/// A sink whose `finish` is called exactly once, and whose panics end its fetch only.
pub(super) struct GuardedSink(Option<Foreign<Box<dyn Sink>>>);

impl GuardedSink {
    pub(super) fn new(sink: Box<dyn Sink>) -> Self {
        Self(Some(Foreign::new(sink)))
    }

    pub(super) fn accepted(&mut self, request: RequestId) -> Result<(), Error> {
        self.call("accepted", |sink| {
            sink.accepted(request);
            Ok(())
        })
        .map(|_| ())
    }

    pub(super) fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.call("head", |sink| sink.head(head)).map(|flow| flow.unwrap_or(Flow::Stream))
    }

    pub(super) fn detached(mut self, body: Response) {
        let Some(sink) = self.0.take() else { return };
        // A panic was logged. The drop of the body ends the fetch.
        let _ = sink.consume("detached", |sink| sink.detached(body));
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.call("write", |sink| sink.write(offset, bytes)).map(|_| ())
    }

    pub(super) fn write_block(&mut self, offset: u64, block: &mut Buffer) -> Result<(), Error> {
        self.call("write_block", |sink| sink.write_block(offset, block)).map(|_| ())
    }

    pub(super) fn retrying(&mut self, error: &Error, at: Instant) -> Result<(), Error> {
        self.call("retrying", |sink| {
            sink.retrying(error, at);
            Ok(())
        })
        .map(|_| ())
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
        // A panic was logged. The fetch has ended.
        let _ = sink.consume("finish", |sink| sink.finish(outcome));
    }
}

impl Drop for GuardedSink {
    fn drop(&mut self) {
        // Only if the fetch was dropped without an end, for example in a panic: `finish` has taken the sink out otherwise. Asked
        // first, because the error takes longer to make than a small body to store.
        if self.0.is_some() {
            self.finish_as(Outcome::from(Err(abandoned())));
        }
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
            assert!(!self.panics, "as the test wants");
            Ok(())
        }

        fn finish(self: Box<Self>, outcome: Outcome) {
            self.ends.send(outcome).unwrap();
        }
    }

    #[test]
    fn a_dropped_sink_is_finished_as_cancelled() {
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
