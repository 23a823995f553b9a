//! Who receives the packets of a QUIC connection, in every interleaving of a caller, the thread and the network:
//! `client/h3/receiver.rs` and `armed.rs`, with loom's locks.
//!
//! The fault that they exclude: a caller has left and keeps the socket, a packet arrives, and neither is the socket polled nor
//! does the thread look at it at the end of that time. A caller that does not wake the thread is tried as well, and loom finds it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::{Arc, Mutex};
use loom::thread;

#[path = "../../src/client/h3/armed.rs"]
#[allow(dead_code, reason = "what is not tried here is used by the library")]
mod armed;
#[path = "../../src/client/h3/receiver.rs"]
#[allow(dead_code, reason = "what is not tried here is used by the library")]
mod receiver;

use armed::Armed;
use receiver::{Claim, Receiver};

/// Times are numbers: a caller that leaves keeps the socket until this one, at which the thread looks at it.
const MOMENT: u32 = 10;

struct Connection {
    armed: Armed<u32>,
    receiver: Receiver<u32>,
    /// The socket is polled by the thread.
    is_at_thread: bool,
    /// A packet is in the socket.
    has_packet: bool,
    /// Until when the thread sleeps, once it does.
    asleep_until: Option<Option<u32>>,
}

struct Shared {
    connection: Mutex<Connection>,
    /// The poll of the thread has something to report, so it does not sleep.
    woken: Mutex<bool>,
}

impl Shared {
    /// A caller waits once, receives what is there, and leaves.
    fn call(&self, is_alone: bool, others_wait: bool, wakes: bool) {
        let claim = {
            let mut connection = self.connection.lock().unwrap();
            let claim = connection.receiver.handle_wait(is_alone, MOMENT);
            match claim {
                Claim::Taken => connection.is_at_thread = false,
                Claim::GivenBack => self.give_back(&mut connection),
                Claim::Kept => assert!(!connection.is_at_thread),
                Claim::Others => {}
            }
            claim
        };
        // Here it waits without the lock.
        let must_wake = {
            let mut connection = self.connection.lock().unwrap();
            let connection = &mut *connection;
            if matches!(claim, Claim::Kept | Claim::Taken) {
                connection.has_packet = false;
                if connection.receiver.handle_leave(others_wait, MOMENT) {
                    self.give_back(connection);
                }
            }
            let deadline = connection.receiver.deadline();
            connection.armed.handle_leave(deadline)
        };
        if must_wake && wakes {
            *self.woken.lock().unwrap() = true;
        }
    }

    /// The thread polls the socket from now on: a packet that is already there is reported.
    fn give_back(&self, connection: &mut Connection) {
        connection.is_at_thread = true;
        if connection.has_packet {
            *self.woken.lock().unwrap() = true;
        }
    }

    fn arrive(&self) {
        let mut connection = self.connection.lock().unwrap();
        connection.has_packet = true;
        if connection.is_at_thread {
            *self.woken.lock().unwrap() = true;
        }
    }

    /// The thread takes a turn at `now` and goes to sleep.
    fn turn(&self, now: u32) {
        *self.woken.lock().unwrap() = false;
        let mut connection = self.connection.lock().unwrap();
        if connection.receiver.handle_turn(now) {
            self.give_back(&mut connection);
        }
        if connection.is_at_thread {
            connection.has_packet = false;
        }
        let look = connection.receiver.next_look(now);
        let deadline = look.into_iter().chain(connection.receiver.deadline()).min();
        connection.armed.handle_sleep(deadline);
        connection.asleep_until = Some(deadline);
    }

    /// No caller waits any more. A packet in the socket must be seen by the thread.
    fn check(&self) {
        let connection = self.connection.lock().unwrap();
        let is_woken = *self.woken.lock().unwrap();
        let looks = connection.asleep_until.is_some_and(|until| until.is_some_and(|until| until <= MOMENT));
        let is_seen = is_woken || looks || connection.is_at_thread;
        assert!(is_seen, "the thread does not look at a socket that nobody polls");
        assert!(
            is_woken || !connection.has_packet || looks || !connection.is_at_thread,
            "a packet is not reported"
        );
    }
}

fn shared() -> Arc<Shared> {
    let connection = Connection {
        armed: Armed::new(),
        receiver: Receiver::new(),
        is_at_thread: true,
        has_packet: false,
        asleep_until: None,
    };
    Arc::new(Shared { connection: Mutex::new(connection), woken: Mutex::new(false) })
}

/// A caller, alone, that waits twice; the thread, with a turn before the end of the moment and one at `last`; and a packet.
fn check(wakes: bool, last: u32) {
    loom::model(move || {
        let shared = shared();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            own.turn(1);
            own.turn(last);
        });
        let own = Arc::clone(&shared);
        let network = thread::spawn(move || own.arrive());
        shared.call(true, false, wakes);
        shared.call(true, false, wakes);
        network.join().unwrap();
        thread.join().unwrap();
        shared.check();
    });
}

#[test]
fn a_socket_that_nobody_polls_is_looked_at_in_time() {
    check(true, 2);
    check(true, MOMENT);
}

#[test]
fn loom_finds_the_socket_that_a_caller_leaves_without_a_word() {
    assert!(catch_unwind(AssertUnwindSafe(|| check(false, MOMENT))).is_err());
}

#[test]
fn a_caller_among_others_leaves_the_socket_to_the_thread() {
    loom::model(|| {
        let shared = shared();
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || own.turn(1));
        let own = Arc::clone(&shared);
        let other = thread::spawn(move || own.call(false, false, true));
        shared.call(true, true, true);
        other.join().unwrap();
        thread.join().unwrap();
        shared.arrive();
        let connection = shared.connection.lock().unwrap();
        assert!(connection.is_at_thread);
        assert!(*shared.woken.lock().unwrap());
    });
}
