//! Passes the TCP connection of a body from ureq's connector to the reader of the body, and back.

use parking_lot::Mutex;

use super::transport::Tcp;

/// Which side owns the TCP connection of a body.
#[derive(Default)]
pub(crate) struct Lending(Mutex<State>);

#[derive(Default)]
enum State {
    /// ureq owns it.
    #[default]
    No,
    /// ureq owns it, and may lend it to the reader of the body.
    Allowed,
    /// Lent: the reader of the body has not taken it yet.
    Lent(Tcp),
    /// The reader of the body owns it.
    Taken,
    /// The reader has returned it: the body is complete, and the connection can be reused.
    Returned(Tcp),
    /// ureq owns it, the body is complete, and the connection can be reused.
    Whole,
}

/// How a connection comes back from its body, which is complete.
pub(crate) enum Back {
    /// It was lent to the reader of the body.
    Lent(Tcp),
    /// ureq has it.
    Kept,
}

impl Lending {
    /// Allows the connector to lend the connection. Only if the connection carries nothing but the announced bytes of the body.
    pub(crate) fn allow(&self) {
        *self.0.lock() = State::Allowed;
    }

    pub(crate) fn is_allowed(&self) -> bool {
        matches!(*self.0.lock(), State::Allowed)
    }

    /// Lends the connection to the reader of the body.
    pub(crate) fn lend(&self, tcp: Tcp) {
        *self.0.lock() = State::Lent(tcp);
    }

    /// Takes the lent connection, to read the rest of the body from it.
    pub(crate) fn take_lent(&self) -> Option<Tcp> {
        let mut state = self.0.lock();
        match std::mem::take(&mut *state) {
            State::Lent(tcp) => {
                *state = State::Taken;
                Some(tcp)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// Returns a connection after the whole body, if it can be reused.
    pub(crate) fn give_back(&self, tcp: Tcp) {
        *self.0.lock() = State::Returned(tcp);
    }

    /// The whole body was read through ureq, and the connection can be reused.
    pub(crate) fn keep(&self) {
        *self.0.lock() = State::Whole;
    }

    /// Takes the connection back after the whole body. `None` if it can't be reused.
    pub(crate) fn take_back(&self) -> Option<Back> {
        let mut state = self.0.lock();
        match std::mem::take(&mut *state) {
            State::Returned(tcp) => Some(Back::Lent(tcp)),
            State::Whole => Some(Back::Kept),
            other => {
                *state = other;
                None
            }
        }
    }
}
