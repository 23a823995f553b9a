//! What the examples share: their command line, a server for demonstrations, a line at the bottom of the terminal, and units for
//! people.
//!
//! None of it is needed to use windway.
#![allow(dead_code, reason = "each example uses a part of it")]

pub(crate) mod arguments;
pub(crate) mod demo;
pub(crate) mod status_line;

use std::process::ExitCode;
use std::time::Duration;

/// The exit code after Ctrl-C: 128 and the number of the signal, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Prints why the arguments are wrong, and the help. Returns the exit code.
pub(crate) fn wrong_arguments(why: &str, help: &str) -> ExitCode {
    eprintln!("{why}\n\n{help}");
    ExitCode::from(2)
}

/// Prints an error with its causes. Returns the exit code.
pub(crate) fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// `1.5 MB`
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        ..1e3 => format!("{count:.0} B"),
        ..1e6 => format!("{:.0} kB", count / 1e3),
        ..1e9 => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.2} GB", count / 1e9),
    }
}

/// `3:05`, or `1:02:03`
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `82 ms`, or `1.3 s`
pub(crate) fn span(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.0} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
