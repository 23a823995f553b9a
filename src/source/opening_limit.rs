//! The time limit of a call that opens: cancels the peer's fetches when no bytes have arrived for too long.
//!
//! The thread of the call is blocked in one fetch after the other, so the alarm thread watches the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::wait::TimeLimit;
use crate::cancel::CancelToken;
use crate::client::Alarm;
#[cfg(feature = "hls")]
use crate::downloader::Epoch;
use crate::downloader::PeerHandle;
use crate::error::{Error, ErrorKind};

/// Limits the time without progress, from its creation to [`end`](Self::end) or to its drop.
#[derive(Debug, Default)]
pub(crate) struct OpeningLimit {
    watch: Arc<Mutex<Watch>>,
    _alarm: Option<Alarm>,
}

/// Decides when the limit has passed. Pure; time is an argument.
#[derive(Debug, Default)]
enum Watch {
    Running(Duration, TimeLimit),
    Passed(Duration),
    /// The opening has ended: nothing is cancelled any more.
    #[default]
    Over,
}

enum Poll {
    Wait(Option<Instant>),
    Cancel,
}

impl OpeningLimit {
    /// Limits the time that the fetches of `peer` bring no bytes. `None` is no limit.
    pub(crate) fn new(peer: &PeerHandle, limit: Option<Duration>) -> Self {
        Self::of(peer, peer.token().clone(), limit)
    }

    /// As `new`, but cancels the fetches of `epoch` only: the opening goes on without what they would have brought.
    #[cfg(feature = "hls")]
    pub(crate) fn of_epoch(peer: &PeerHandle, epoch: &Epoch, limit: Option<Duration>) -> Self {
        Self::of(peer, epoch.token().clone(), limit)
    }

    fn of(peer: &PeerHandle, token: CancelToken, limit: Option<Duration>) -> Self {
        // Zero is a wrong configuration, which the source refuses that the URL leads to.
        let Some(limit) = limit.filter(|limit| !limit.is_zero()) else { return Self::default() };
        let time = TimeLimit::new(Some(limit), Instant::now());
        let Some(deadline) = time.deadline() else { return Self::default() };
        let watch = Arc::new(Mutex::new(Watch::Running(limit, time)));
        let waker = peer.waker();
        // Progress is recorded from now on.
        waker.last_progress();
        let watched = Arc::clone(&watch);
        let alarm = peer.waker().call_at(deadline, move |now| {
            let polled = watched.lock().poll(now, waker.last_progress());
            match polled {
                Poll::Wait(next) => next,
                // Without the lock: a cancellation runs callbacks.
                Poll::Cancel => {
                    token.cancel();
                    None
                }
            }
        });
        Self { watch, _alarm: alarm }
    }

    /// Ends the limit. Returns `result`, or [`ErrorKind::TimedOut`] if the limit had passed before.
    pub(crate) fn end<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let passed = self.watch.lock().end();
        // A success counts no more either: its peer is cancelled.
        let is_cut_off = result.as_ref().err().is_none_or(Error::is_cancelled);
        match passed.filter(|_| is_cut_off) {
            Some(limit) => {
                Err(Error::new(ErrorKind::TimedOut, format!("read timed out: no data for {limit:?}")))
            }
            None => result,
        }
    }
}

impl Watch {
    /// What is due at `now`. Cancels once.
    fn poll(&mut self, now: Instant, last_progress: Option<Instant>) -> Poll {
        let Self::Running(limit, time) = self else { return Poll::Wait(None) };
        time.extend(last_progress);
        let next = time.deadline();
        if next.is_none_or(|next| next > now) {
            return Poll::Wait(next);
        }
        *self = Self::Passed(*limit);
        Poll::Cancel
    }

    /// The limit, if it has passed.
    fn end(&mut self) -> Option<Duration> {
        match self {
            Self::Passed(limit) => Some(*limit),
            Self::Running(..) | Self::Over => {
                *self = Self::Over;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_extend_the_limit_and_their_lack_cancels_once() {
        let start = Instant::now();
        let mut watch = Watch::Running(5 * SECOND, TimeLimit::new(Some(5 * SECOND), start));
        let at = |seconds| start + seconds * SECOND;
        assert!(matches!(watch.poll(at(5), Some(at(3))), Poll::Wait(Some(next)) if next == at(8)));
        assert!(matches!(watch.poll(at(8), Some(at(3))), Poll::Cancel));
        assert!(matches!(watch.poll(at(9), Some(at(3))), Poll::Wait(None)));
        assert_eq!(watch.end(), Some(5 * SECOND));
    }

    #[test]
    fn nothing_is_cancelled_after_the_opening_has_ended() {
        let start = Instant::now();
        let mut watch = Watch::Running(SECOND, TimeLimit::new(Some(SECOND), start));
        assert_eq!(watch.end(), None);
        assert!(matches!(watch.poll(start + SECOND, None), Poll::Wait(None)));
        assert_eq!(watch.end(), None);
    }
}
