//! Which thread keeps the deadlines of a connection: its own, or that of a caller that waits anyway.
//!
//! Callers send their packets themselves, so they change deadlines while the thread sleeps. The thread has promised to look at
//! the connection at a time, `armed`. A caller that *waits* and has an earlier deadline keeps it itself. A caller that *leaves*
//! with an earlier deadline moves the promise and wakes the thread. So no deadline is missed, and a caller that finds its
//! answer leaves without a system call: its deadlines were already those of the thread when the answer came.
//!
//! All of this is under the lock of the connection. Without it, the thread could compute its sleep between a caller's check and
//! its change, and miss the deadline; `models/tests/armed.rs` tries all interleavings.

/// When the thread looks at the connection next. `None`: only when a packet comes. `T` is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Armed<T>(Option<T>);

impl<T: Ord + Copy> Armed<T> {
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// The thread goes to sleep until `deadline` at the latest.
    pub(crate) fn handle_sleep(&mut self, deadline: Option<T>) {
        self.0 = deadline;
    }

    /// What of `deadline` a waiting caller has to keep itself.
    pub(crate) fn own(&self, deadline: Option<T>) -> Option<T> {
        deadline.filter(|deadline| self.0.is_none_or(|armed| *deadline < armed))
    }

    /// A caller leaves the connection with this deadline. True if it must wake the thread after it has released the lock.
    #[must_use]
    pub(crate) fn handle_leave(&mut self, deadline: Option<T>) -> bool {
        let earlier = self.own(deadline);
        if earlier.is_some() {
            self.0 = earlier;
        }
        earlier.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_kept_by_the_thread_or_by_the_caller() {
        // All sequences of four steps: of the thread or of a caller, with no deadline or one of three.
        for sequence in 0..8_u32.pow(4) {
            let mut armed = Armed::new();
            for step in (0..4).map(|place| sequence / 8_u32.pow(place) % 8) {
                let (is_thread, deadline) = (step % 2 == 0, (step / 2).checked_sub(1));
                if is_thread {
                    armed.handle_sleep(deadline);
                } else if !armed.handle_leave(deadline) {
                    // Not woken: the thread wakes in time already.
                    assert!(deadline.is_none_or(|due| armed.0.is_some_and(|armed| armed <= due)));
                }
                assert_eq!(armed.own(deadline), None);
            }
        }
    }
}
