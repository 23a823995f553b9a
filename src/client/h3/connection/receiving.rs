//! The socket of a connection in the hands of its callers: see `receiver.rs`.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use super::state::State;
use crate::client::h3::poller::Poller;
use crate::client::h3::receiver::{Claim, Receiver};
use crate::client::h3::socket::Buffers;

/// For how long a caller that leaves keeps the socket. What arrives meanwhile stays in the kernel, and is acknowledged when this
/// is over; RFC 9000, section 13.2.1, allows 25 ms by default. At 1 Gbit/s 125 KB arrive, which the default buffer of Linux
/// holds.
const KEPT: Duration = Duration::from_millis(1);

/// A caller that waits, and its poller if it receives itself.
#[derive(Default)]
pub(super) struct Waiter(Option<Poller>);

impl Waiter {
    /// Takes the socket, if this caller is to receive.
    pub(super) fn claim_socket(&mut self, state: &mut State) {
        if self.0.is_none() {
            self.0 = state.claim_socket();
        }
    }

    /// Blocks until request `key` is notified, until packets arrive if this caller receives them, or until `until`. Handles
    /// what has arrived.
    pub(super) fn block(
        &mut self,
        state: &mut MutexGuard<'_, State>,
        key: u64,
        changed: &Condvar,
        until: Instant,
    ) {
        match &mut self.0 {
            None => {
                changed.wait_until(state, until);
                if state.over.is_none() {
                    state.advance(Instant::now());
                }
            }
            Some(poller) => {
                // What it has left unread was reported by the last poll, and is not reported again.
                if !state.has_unread {
                    state.set_polls(key, Some(poller));
                    MutexGuard::unlocked(state, || poller.wait(until));
                    state.set_polls(key, None);
                }
                if state.over.is_none() {
                    state.has_unread = state.receive_some(&mut poller.buffers);
                }
            }
        }
    }

    /// Waits no longer.
    pub(super) fn leave(self, state: &mut State) {
        let Some(poller) = self.0 else { return };
        if state.over.is_some() {
            // The thread forgets the socket, or has done so.
            return;
        }
        let others_wait = state.path.is_awaited();
        state.poller = Some(poller);
        if state.receiver.handle_leave(others_wait, Instant::now() + KEPT) {
            state.give_back();
        }
    }
}

impl State {
    /// The poller for a caller that begins to wait, if it is to receive itself.
    fn claim_socket(&mut self) -> Option<Poller> {
        let is_alone = self.open_requests().nth(1).is_none();
        match self.receiver.handle_wait(is_alone, Instant::now() + KEPT) {
            Claim::Others => None,
            Claim::Kept => self.poller.take(),
            Claim::Taken => self.take_from_thread(),
            Claim::GivenBack => {
                self.give_back();
                None
            }
        }
    }

    fn take_from_thread(&mut self) -> Option<Poller> {
        let poller = self.pollers.take();
        let taken = poller.filter(|poller| match self.socket.take_from_thread(poller.registry()) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("a request can't poll its socket: {error}");
                false
            }
        });
        if taken.is_none() {
            self.receiver = Receiver::Thread;
            self.give_back();
        }
        self.has_unread = false;
        taken
    }

    /// A turn of the thread: receives, unless a caller does or has just done so, and keeps the deadlines. True if more packets
    /// may be there.
    pub(super) fn take_turn(&mut self, buffers: &mut Buffers) -> bool {
        let now = Instant::now();
        if self.receiver.handle_turn(now) {
            self.give_back();
        }
        if self.receiver != Receiver::Thread {
            // What it would receive it would have to pass to the caller, by a wake-up.
            self.advance(now);
            return false;
        }
        self.receive(buffers)
    }

    fn give_back(&mut self) {
        if let Err(error) = self.socket.give_back() {
            // Packets are then received late: at the next deadline.
            log::warn!("a UDP socket can't be polled: {error}");
        }
        if let Some(poller) = self.poller.take() {
            self.pollers.put(poller);
        }
    }

    fn set_polls(&mut self, key: u64, poller: Option<&Poller>) {
        if let Some(request) = self.requests.get_mut(&key) {
            request.polls = poller.map(|poller| poller.waker().clone());
        }
    }
}
