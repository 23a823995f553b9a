//! Who keeps the deadlines of a QUIC connection, in every interleaving of a caller and the thread: `client/h3/armed.rs`, with
//! loom's locks.
//!
//! The fault that it excludes: the thread has computed how long it sleeps, a caller then gets an earlier deadline and leaves, and
//! no thread looks at the connection at that time. A caller that does not wake the thread is tried as well, and loom finds it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::{Arc, Mutex};
use loom::thread;

#[path = "../../src/client/h3/armed.rs"]
#[allow(dead_code, reason = "what is not tried here is used by the library")]
mod armed;

use armed::Armed;

/// A connection. Times are numbers.
struct Connection {
    deadline: Option<u32>,
    armed: Armed<u32>,
    /// Until when the thread sleeps.
    asleep_until: Option<u32>,
}

struct Shared {
    connection: Mutex<Connection>,
    /// The waker of the poll: a wake that comes before the sleep ends it at once.
    woken: Mutex<bool>,
}

impl Shared {
    /// A caller sends a packet, which sets a deadline, and leaves.
    fn call(&self, deadline: u32, wakes: bool) {
        let must_wake = {
            let mut connection = self.connection.lock().unwrap();
            let connection = &mut *connection;
            connection.deadline = Some(connection.deadline.map_or(deadline, |before| before.min(deadline)));
            connection.armed.handle_leave(connection.deadline)
        };
        if must_wake && wakes {
            *self.woken.lock().unwrap() = true;
        }
    }

    /// The thread takes a turn and goes to sleep.
    fn sleep(&self) {
        let mut connection = self.connection.lock().unwrap();
        let deadline = connection.deadline;
        connection.armed.handle_sleep(deadline);
        connection.asleep_until = deadline;
    }
}

fn check(wakes: bool) {
    loom::model(move || {
        let connection = Connection { deadline: None, armed: Armed::new(), asleep_until: None };
        let shared = Arc::new(Shared { connection: Mutex::new(connection), woken: Mutex::new(false) });
        let own = Arc::clone(&shared);
        let driver = thread::spawn(move || (0..2).for_each(|_| own.sleep()));
        let other = Arc::clone(&shared);
        let caller = thread::spawn(move || other.call(20, wakes));
        shared.call(10, wakes);
        caller.join().unwrap();
        driver.join().unwrap();
        let connection = shared.connection.lock().unwrap();
        let wakes_in_time = connection.asleep_until.is_some_and(|until| Some(until) <= connection.deadline);
        assert!(wakes_in_time || *shared.woken.lock().unwrap(), "the thread sleeps past the deadline");
    });
}

#[test]
fn the_thread_wakes_for_the_deadline_of_a_caller_that_leaves() {
    check(true);
}

#[test]
fn loom_finds_the_deadline_that_a_caller_keeps_to_itself() {
    assert!(catch_unwind(AssertUnwindSafe(|| check(false))).is_err());
}
