//! How many fetches of a peer may wait for their response: `peer_capacity`.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::cancel::CancelToken;
use crate::error::Error;

/// How many more fetches of a peer may wait for their response. Open bodies do not count: a caller that holds bodies and
/// asks for more would wait for itself.
pub(super) struct Credits {
    left: Mutex<usize>,
    /// Notified when a credit comes back, and when a waiting call is cancelled.
    changed: Condvar,
}

/// Held by a fetch that has no response yet. Its drop gives the credit back.
pub(super) struct Credit(Arc<Credits>);

impl Credits {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(capacity), changed: Condvar::new() })
    }

    /// Blocks until a credit is free, or `token` is cancelled: the peer's, or that of an epoch of it.
    pub(super) fn take(self: &Arc<Self>, token: &CancelToken) -> Result<Credit, Error> {
        if let Some(credit) = self.try_take() {
            return Ok(credit);
        }
        let credits = Arc::clone(self);
        // Before the first look at the token. A cancellation between that look and the wait would wake no thread.
        let _on_cancel = token.wake_on_cancel(move || credits.wake_all());
        let mut left = self.left.lock();
        while *left == 0 {
            if let Some(reason) = token.reason() {
                return Err(Error::cancelled(reason));
            }
            self.changed.wait(&mut left);
        }
        *left -= 1;
        Ok(Credit(Arc::clone(self)))
    }

    pub(super) fn free(&self) -> usize {
        *self.left.lock()
    }

    pub(super) fn try_take(self: &Arc<Self>) -> Option<Credit> {
        let mut left = self.left.lock();
        *left = left.checked_sub(1)?;
        Some(Credit(Arc::clone(self)))
    }

    /// True if there was a thread to wake.
    fn wake_all(&self) -> bool {
        // Under the lock: a thread between its check of the token and its wait would miss the notification.
        let _left = self.left.lock();
        self.changed.notify_all() > 0
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        *self.0.left.lock() += 1;
        // One credit is for one thread. Without the lock: the count was raised under it, so a thread has seen it or is waiting.
        self.0.changed.notify_one();
    }
}
