//! A scripted origin server: real sockets, std threads, deterministic bodies, and any misbehaviour that a test configures.
//!
//! ```no_run
//! let origin = Origin::serving(Content::pattern(1 << 20));
//! let slow = Origin::start(move |request| Answer::file(request, &content).latency(RTT).rate(100_000).reset_after(5000));
//! origin.wait_until("a second request", |log| log.requests.len() == 2);
//! ```
mod answer;
mod certificate;
pub mod content;
#[cfg(unix)]
pub mod daemon;
pub mod decoding;
pub mod dice;
pub mod ffmpeg;
mod framing;
pub mod link;
pub mod low_latency;
pub mod mux;
mod origin;
pub mod peers;
pub mod proxy;
mod request;
mod serve;
pub mod steps;
mod wire;

use std::sync::{Condvar, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub use answer::{Answer, Station};
pub use content::Content;
pub use origin::{Log, Origin};
pub use request::Request;
pub use wire::Identity;

/// Time limit of a wait for something that takes milliseconds. Reached only by a hang, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many cases a property tries: `usual`, or as many as the variable PROPTEST_CASES says.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Runs `work` on a thread of its own and returns its result. Panics with the name of the `case` if `work` panics or hangs.
pub fn in_time<T: Send + 'static>(case: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (results, result) = mpsc::channel();
    thread::spawn(move || drop(results.send(work())));
    result.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Asks `is_so` again and again. Only for what notifies no thread, such as a counter or a file of another process.
pub fn poll_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still no {what}");
        thread::yield_now();
    }
}

/// Blocks until `wanted` holds for the log in the state of a server, which notifies `changed`. Panics with the log when
/// `PATIENCE` is over.
fn wait_until<S, L: std::fmt::Debug>(
    mut state: MutexGuard<'_, S>,
    changed: &Condvar,
    log: fn(&S) -> &L,
    what: &str,
    mut wanted: impl FnMut(&L) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(log(&state)) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "still no {what}: {:?}", log(&state));
        state = changed.wait_timeout(state, left).expect("no panic under this lock").0;
    }
}

/// The fields of a request head, from the lines behind its first one. Names in lower case.
fn header_fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}
