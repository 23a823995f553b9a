//! The traces of networks that `benches/abr` reads: the formats of the public collections.

#![cfg(feature = "hls")]
#![allow(dead_code, reason = "the bench uses what the test does not")]

#[path = "../benches/abr/traces.rs"]
mod traces;

use std::fs;

use traces::{Trace, folder, parse};

/// 40 steps of a second, of 1 and 2 Mbit/s in turn.
fn rates() -> impl Iterator<Item = (usize, f64)> {
    (0..40).map(|second| (second, if second % 2 == 0 { 1.0 } else { 2.0 }))
}

fn lines(line: impl Fn(usize, f64) -> String) -> String {
    rates().map(|(second, rate)| line(second, rate)).collect()
}

fn assert_is_that(name: &str, trace: &Trace) {
    // Packets of 1500 bytes make no whole Mbit.
    let is_near = |bits: f64, expected: f64| (bits - expected).abs() < expected * 0.01;
    assert!(is_near(trace.bits_between(0.0, 40.0), 60e6), "{name}: {trace:?}");
    assert!(is_near(trace.bits_between(40.0, 41.0), 1e6), "{name} begins again: {trace:?}");
    assert!(is_near(trace.bits_between(1.0, 2.0), 2e6), "{name}: {trace:?}");
    assert!((trace.arrival(0.0, 2e6) - 1.5).abs() < 0.02, "{name}: {trace:?}");
}

#[test]
fn each_public_format_is_read() {
    // The rate of a line is that of the time before it.
    let cooked = |separator: &str| {
        format!("0{separator}9\n{}", lines(|second, rate| format!("{}.0{separator}{rate}\n", second + 1)))
    };
    let logged = lines(|second, rate| {
        format!("{} {} 59.9 10.7 {} 1000\n", 1_289_406_399 + second, second * 1000, rate * 125_000.0)
    });
    let steps = lines(|_, rate| {
        format!("{{\"duration_ms\": 1000, \"bandwidth_kbps\": {}, \"latency_ms\": 20}},\n", rate * 1000.0)
    });
    let mahimahi: String = rates()
        .flat_map(|(second, rate)| {
            let packets = (rate * 1e6 / 12_000.0) as usize;
            (0..packets).map(move |packet| format!("{}\n", second * 1000 + packet * 1000 / packets))
        })
        .collect();
    let files = [
        ("spaces", cooked(" ")),
        ("tabs", cooked("\t")),
        ("commas", format!("time,rate\n{}", cooked(","))),
        ("logged", logged),
        ("sabre.json", format!("[\n{}]\n", steps.trim_end().trim_end_matches(','))),
        ("mahimahi", mahimahi),
    ];
    for (name, text) in &files {
        assert_is_that(name, &parse(text).unwrap_or_else(|| panic!("{name} is no trace")));
    }
    let path = tempfile::tempdir().unwrap();
    for (name, text) in &files {
        fs::write(path.path().join(name), text).unwrap();
    }
    fs::write(path.path().join("README.md"), "# 3G\nTraces of a tram.\n").unwrap();
    assert_eq!(folder(path.path()).unwrap().traces.len(), files.len());
}

#[test]
fn what_is_no_trace_is_left_out() {
    for text in ["", "[]", "{}", "[1, 2]", "# 3G\nof a tram", "1 2 3\n", "0 1\n1 1\n", &"5 1\n".repeat(50)] {
        assert!(parse(text).is_none(), "{text}");
    }
    // A network without any byte would never end a transfer.
    assert!(parse(&lines(|second, _| format!("{second} 0\n"))).is_none());
    let empty = tempfile::tempdir().unwrap();
    assert!(folder(empty.path()).is_err());
}
