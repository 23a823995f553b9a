//! The suffix request: the last bytes of a file, requested beside its opening.
//!
//! Decoders look at a file's end before they play its beginning: for a tag, the last page, an index. With the suffix
//! request those bytes arrive together with the first ones, over a second connection, which then serves the first seek.
//!
//! ```text
//!   Off ◀── metered, one connection, no ranges ── open ──▶ Due ──▶ Running ──▶ Held ──▶ Storing ──▶ Off
//!                                                                     │ refused, failed, another version
//!                                                                     └──▶ Off: fetched as other pieces are
//! ```
//!
//! It is a prefetch and never an error. An answer other than a 206 is closed at its head, and the origin is remembered.

use std::ops::Range;
use std::sync::Arc;

use super::Shared;
use super::state::State;
use crate::cancel::CancelToken;
use crate::client::ResponseHead;
use crate::client::representation::Likeness;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::{Error, ErrorKind};
use crate::types::{Priority, RequestId};

/// Bytes that are requested. With their response head they fit into the first flight of a new connection: ten segments
/// of 1,448 bytes (RFC 6928), less a head of 600 bytes.
pub(crate) const SUFFIX: u64 = 13_824;

/// How far the suffix request of a file has come.
#[derive(Debug, Default)]
pub(crate) enum Suffix {
    /// It is not wanted, or over.
    #[default]
    Off,
    /// It is to be sent once the opening was.
    Due,
    /// It was sent.
    Running(Running),
    /// All its bytes have arrived. They are stored once the opening has shown what the file is.
    Held(Tail),
    /// Its bytes are being copied into storage.
    Storing,
}

#[derive(Debug)]
pub(crate) struct Running {
    token: CancelToken,
    /// Known once the downloader has accepted it.
    request: Option<RequestId>,
    /// A reader is blocked on its bytes, and its priority was raised.
    is_urgent: bool,
}

/// The last bytes of a file, and the response head that they came with.
#[derive(Debug)]
pub(crate) struct Tail {
    head: ResponseHead,
    bytes: Vec<u8>,
}

impl Suffix {
    pub(crate) fn is_due(&self) -> bool {
        matches!(self, Self::Due)
    }

    /// True while it may still bring bytes, over a connection that other requests can use afterwards.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    pub(crate) fn begin(&mut self, token: CancelToken) {
        *self = Self::Running(Running { token, request: None, is_urgent: false });
    }

    /// The bytes that it is about to store, of a file of `len` bytes. `is_shown` if the opening has shown what the file
    /// is. Before that held bytes are not: the opening may have been given up.
    pub(crate) fn range(&self, len: Option<u64>, is_shown: bool) -> Option<Range<u64>> {
        let is_coming = match self {
            Self::Running(_) | Self::Storing => true,
            Self::Held(_) => is_shown,
            Self::Off | Self::Due => false,
        };
        let len = len.filter(|_| is_coming)?;
        Some(len.saturating_sub(SUFFIX)..len)
    }

    /// Gives it up. Returns the token of a request that is running.
    pub(crate) fn give_up(&mut self) -> Option<CancelToken> {
        match std::mem::take(self) {
            Self::Running(running) => Some(running.token),
            _ => None,
        }
    }

    /// Records that a reader is blocked on its bytes. Returns the request whose priority is to be raised.
    pub(crate) fn promote(&mut self) -> Option<RequestId> {
        match self {
            Self::Running(running) if !running.is_urgent => {
                // Its id may not be known yet. Then the next look raises it.
                running.is_urgent = running.request.is_some();
                running.request
            }
            _ => None,
        }
    }

    fn accepted(&mut self, request: RequestId) {
        if let Self::Running(running) = self {
            running.request = Some(request);
        }
    }

    fn hold(&mut self, tail: Tail) {
        if self.is_running() {
            *self = Self::Held(tail);
        }
    }

    fn take_held(&mut self) -> Option<Tail> {
        match std::mem::take(self) {
            Self::Held(tail) => Some(tail),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Records that the bytes are stored.
    fn stored(&mut self) {
        if let Self::Storing = self {
            *self = Self::Off;
        }
    }
}

impl State {
    /// The tail that has arrived, once the opening has shown what the file is. It is dropped if it is of another version
    /// of the file: what the opening says counts.
    pub(crate) fn poll_tail(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.first.is_empty() {
            return None;
        }
        let Tail { head, bytes } = self.suffix.take_held()?;
        let info = self.info.as_mut().filter(|info| info.ranged)?;
        let is_same = match info.representation.compare(&head) {
            Likeness::Confirmed => true,
            // Without any validator a far piece proves no more.
            Likeness::Unconfirmed => !info.has_validator,
            Likeness::OtherTag(tag) => self.pool.is_cleared(&tag),
            Likeness::Changed(_) | Likeness::HtmlPage => false,
        };
        let has_same_len = info.len.is_none() || info.len == head.total();
        if !is_same || !has_same_len {
            return None;
        }
        info.representation.learn_total(&head);
        info.len = info.len.or(head.total());
        // Or a reader would request them again before they are stored.
        self.suffix = Suffix::Storing;
        Some((head.start(), bytes))
    }
}

/// The sink of the suffix request.
pub(crate) struct SuffixSink {
    shared: Arc<Shared>,
    tail: Option<Tail>,
    /// The answer was another one than the bytes that were asked for.
    is_refused: bool,
}

impl SuffixSink {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: None, is_refused: false }
    }
}

impl Sink for SuffixSink {
    fn accepted(&mut self, request: RequestId) {
        self.shared.state.lock().suffix.accepted(request);
    }

    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.shared.state.lock().stats.requests += 1;
        if !head.is_partial() {
            self.is_refused = true;
            return Err(Error::new(ErrorKind::Refusal, "the whole came instead of the last bytes"));
        }
        self.tail = Some(Tail { head: head.clone(), bytes: Vec::new() });
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        if let Some(tail) = &mut self.tail {
            tail.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Outcome) {
        let Self { shared, tail, is_refused } = *self;
        let is_done = matches!(outcome, Outcome::Done);
        if is_refused || matches!(&outcome, Outcome::Failed(error) if is_refusal(error)) {
            if let Some(link) = shared.link.get() {
                link.waker.note_suffix_refused(&shared.request);
            }
        }
        {
            let mut state = shared.state.lock();
            match tail.filter(|_| is_done) {
                Some(tail) => state.suffix.hold(tail),
                None => drop(state.suffix.give_up()),
            }
        }
        // Without the last bytes a reader may be blocked on what nothing brings.
        let stored = shared.store_tail();
        if let Err(error) = stored {
            log::debug!("the last bytes of {} can't be stored: {error}", shared.url());
        }
        shared.keep_preconnected();
        shared.resource.notify();
        shared.replan(Priority::High);
    }
}

/// True if a request for all of the file may be served where this one was not.
fn is_refusal(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::WrongRange => true,
        // These are about the file, and its opening gets them too.
        ErrorKind::Status(401 | 404 | 410) => false,
        ErrorKind::Status(400..=499) => !error.is_retryable(),
        _ => false,
    }
}

impl Shared {
    /// Stores the tail that has arrived, once the opening has shown what the file is.
    pub(crate) fn store_tail(&self) -> Result<(), Error> {
        let Some((start, bytes)) = self.state.lock().poll_tail() else { return Ok(()) };
        let stored = self.store(start, &bytes);
        self.state.lock().suffix.stored();
        stored
    }
}
