//! The TCP connection of a body that its reader reads past ureq, on its way between the two.

use parking_lot::Mutex;

use super::transport::Tcp;

/// Who reads a body from its TCP connection.
#[derive(Default)]
pub(crate) struct Lending(Mutex<State>);

#[derive(Default)]
enum State {
    /// ureq.
    #[default]
    No,
    /// ureq, which may leave the rest to the body's reader.
    Allowed,
    /// The body's reader, which has not taken the connection yet.
    Lent(Tcp),
    /// The body's reader, which has it.
    Taken,
    /// Nobody: all was read, and the connection can serve another request.
    Returned(Tcp),
}

impl Lending {
    /// Lets the body's reader take what has not arrived yet from the connection itself. Only where nothing but the body comes.
    pub(crate) fn allow(&self) {
        *self.0.lock() = State::Allowed;
    }

    pub(crate) fn is_allowed(&self) -> bool {
        matches!(*self.0.lock(), State::Allowed)
    }

    /// Leaves the rest of the body to its reader.
    pub(crate) fn lend(&self, tcp: Tcp) {
        *self.0.lock() = State::Lent(tcp);
    }

    /// The connection to read the rest of the body from, if that was left to its reader.
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

    /// Gives a connection back from which all was read, and which can serve another request.
    pub(crate) fn give_back(&self, tcp: Tcp) {
        *self.0.lock() = State::Returned(tcp);
    }

    /// The connection that was given back.
    pub(crate) fn take_back(&self) -> Option<Tcp> {
        let mut state = self.0.lock();
        match std::mem::take(&mut *state) {
            State::Returned(tcp) => Some(tcp),
            other => {
                *state = other;
                None
            }
        }
    }
}
