//! Which thread receives the packets of a connection: its own, or that of a caller that waits anyway.
//!
//! A packet that the thread receives wakes two threads: that one, and the one that waits for the response. So the caller of the
//! only request of a connection polls the socket itself while it waits. When it leaves, the socket stays with it for a moment,
//! because the next read or the next request mostly follows at once, and to give the socket back costs two system calls. The
//! thread takes it back at the end of that moment. That time is one of the deadlines that `armed.rs` is about, so no packet
//! stays unread for longer.
//!
//! All of this is under the lock of the connection; `models/tests/receiver.rs` tries all interleavings.

/// Which thread receives. `T` is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver<T> {
    Thread,
    /// A caller that waits. Until this time the thread looks at the connection once more, so that a caller which leaves before
    /// does not have to wake it.
    Caller(T),
    /// No thread until this time: the caller that has received last has left, and no other one waits.
    Unpolled(T),
}

/// Whose the socket is for a caller that begins to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The caller's. It has polled it before.
    Kept,
    /// The caller's. It must be taken from the thread.
    Taken,
    /// The thread's. It must be given back to it.
    GivenBack,
    /// Another one's, which will notify the caller.
    Others,
}

impl<T: Ord + Copy> Receiver<T> {
    pub(crate) fn new() -> Self {
        Self::Thread
    }

    /// A caller begins to wait. `is_alone`: the connection has no other request. `until`: the end of a moment.
    pub(crate) fn handle_wait(&mut self, is_alone: bool, until: T) -> Claim {
        let (next, claim) = match (*self, is_alone) {
            (Self::Caller(_), _) | (Self::Thread, false) => return Claim::Others,
            (Self::Unpolled(_), false) => (Self::Thread, Claim::GivenBack),
            (Self::Unpolled(_), true) => (Self::Caller(until), Claim::Kept),
            (Self::Thread, true) => (Self::Caller(until), Claim::Taken),
        };
        *self = next;
        claim
    }

    /// The caller that receives leaves. True if it must give the socket back to the thread at once, because others wait.
    #[must_use]
    pub(crate) fn handle_leave(&mut self, others_wait: bool, until: T) -> bool {
        *self = if others_wait { Self::Thread } else { Self::Unpolled(until) };
        others_wait
    }

    /// The thread takes a turn. True if it must take the socket.
    #[must_use]
    pub(crate) fn handle_turn(&mut self, now: T) -> bool {
        let is_due = matches!(*self, Self::Unpolled(until) if until <= now);
        if is_due {
            *self = Self::Thread;
        }
        is_due
    }

    /// When the thread must take the socket.
    pub(crate) fn deadline(&self) -> Option<T> {
        if let Self::Unpolled(until) = *self { Some(until) } else { None }
    }

    /// When the thread looks at the connection although nothing asks for it.
    pub(crate) fn next_look(&self, now: T) -> Option<T> {
        if let Self::Caller(until) = *self { Some(until).filter(|until| now < *until) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_is_alone_takes_the_socket_once_for_several_waits() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.handle_wait(true, 5), Claim::Taken);
        assert!(!receiver.handle_leave(false, 6));
        assert_eq!(receiver.deadline(), Some(6));
        assert_eq!(receiver.handle_wait(true, 7), Claim::Kept);
        assert_eq!(receiver.deadline(), None);
    }

    #[test]
    fn the_thread_takes_the_socket_back_after_a_moment() {
        let mut receiver = Receiver::new();
        receiver.handle_wait(true, 5);
        assert!(!receiver.handle_turn(5), "the caller still waits");
        assert!(!receiver.handle_leave(false, 6));
        assert!(!receiver.handle_turn(5));
        assert!(receiver.handle_turn(6));
        assert_eq!(receiver, Receiver::Thread);
    }

    #[test]
    fn several_callers_leave_the_socket_to_the_thread() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.handle_wait(false, 5), Claim::Others);
        receiver.handle_wait(true, 5);
        assert_eq!(receiver.handle_wait(false, 5), Claim::Others);
        assert!(receiver.handle_leave(true, 6), "the other one waits for the thread now");
        receiver.handle_wait(true, 7);
        assert!(!receiver.handle_leave(false, 8));
        assert_eq!(receiver.handle_wait(false, 9), Claim::GivenBack);
        assert_eq!(receiver, Receiver::Thread);
    }

    #[test]
    fn the_thread_looks_again_only_soon_after_a_wait_has_begun() {
        let mut receiver = Receiver::new();
        receiver.handle_wait(true, 5);
        assert_eq!(receiver.next_look(4), Some(5));
        assert_eq!(receiver.next_look(5), None, "a long wait costs nothing");
    }
}
