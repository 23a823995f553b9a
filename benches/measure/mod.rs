//! Times and CPU time, for the benches.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::time::{Duration, Instant};

/// Sorted times, for their quantiles.
pub(crate) struct Quantiles(Vec<Duration>);

impl Quantiles {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    pub(crate) fn at(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

/// Runs `call` this number of times, after some for warm-up, and prints p50, p99 and CPU time of a call. Returns the p50, and the CPU
/// time of a call on its thread.
pub(crate) fn report(name: &str, times: usize, mut call: impl FnMut()) -> (Duration, Duration) {
    (0..times / 10).for_each(|_| call());
    let (cpu, own) = (cpu(), thread_cpu());
    let each = (0..times).map(|_| {
        let began = Instant::now();
        call();
        began.elapsed()
    });
    let quantiles = Quantiles::new(each.collect());
    let cpu = (self::cpu() - cpu) / times as u32;
    let own = (thread_cpu() - own) / times as u32;
    let (p50, p99) = (quantiles.at(0.5), quantiles.at(0.99));
    println!("{name:<44} p50 {p50:>9.1?}  p99 {p99:>9.1?}  cpu {cpu:>9.1?}  own thread {own:>9.1?}");
    (p50, own)
}

/// CPU time of this thread so far; 0 where the system has no `/proc`.
pub(crate) fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// CPU time of this process so far, in steps of 10 ms; 0 where the system has no `/proc`.
pub(crate) fn cpu() -> Duration {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Duration::ZERO };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}
