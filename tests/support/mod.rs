//! A scripted origin server: real sockets, std threads, deterministic bodies, and any misbehaviour a test asks for.
//!
//! ```no_run
//! let origin = Origin::serving(Content::pattern(1 << 20));
//! let slow = Origin::start(move |asked| Answer::file(asked, &content).latency(RTT).rate(100_000).reset_after(5000));
//! origin.wait_until("a second request", |log| log.asked.len() == 2);
//! ```
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test and example uses a part of it")]

mod answer;
mod asked;
pub mod content;
pub mod decoding;
mod framing;
pub mod link;
mod origin;
pub mod peers;
pub mod proxy;
mod serve;
pub mod steps;
mod wire;

use std::time::Duration;

pub use answer::{Answer, Station};
pub use asked::Asked;
pub use content::Content;
pub use origin::{Log, Origin};
pub use wire::Identity;

/// How long a test waits for what should come at once on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
