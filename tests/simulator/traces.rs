//! Positions and times of reads. Those of symphonia 0.6 were recorded with files of ten minutes by `record_a_trace` in
//! `tests/plan.rs`: open, play 5 s, seek to 60 %, play 5 s, seek to 20 %, play 5 s.

use std::ops::Range;

use crate::bisection::Hint;

/// One read of exactly `len` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub at: u64,
    pub len: u64,
    /// Seconds from the end of the previous step to this one.
    pub after: f64,
}

#[derive(Clone, Debug)]
pub struct Trace {
    pub steps: Vec<Step>,
}

/// The readers of one file.
pub struct Scene {
    pub name: &'static str,
    pub len: u64,
    /// The range that will be read next according to the first bytes of the file (`src/media/layout.rs`).
    pub upcoming: Option<Range<u64>>,
    /// How the file is bisected, according to its first bytes (`src/media/bisected.rs`).
    pub hint: Option<Hint>,
    pub readers: Vec<Trace>,
}

impl Scene {
    /// Number of reads that do not begin where the previous one ended.
    pub fn jumps(&self) -> usize {
        let jumps = |trace: &Trace| {
            trace.steps.windows(2).filter(|pair| pair[0].at + pair[0].len != pair[1].at).count()
        };
        self.readers.iter().map(jumps).sum()
    }
}

const CHUNK: u64 = 32 * 1024;

/// Plays `chunks` from `at` on at `rate` bytes a second.
fn steady(at: u64, chunks: u64, rate: f64) -> Vec<Step> {
    let after = |chunk| if chunk == 0 { 0.0 } else { CHUNK as f64 / rate };
    (0..chunks).map(|chunk| Step { at: at + chunk * CHUNK, len: CHUNK, after: after(chunk) }).collect()
}

fn playing(name: &'static str, len: u64, rate: f64) -> Scene {
    Scene { name, len, upcoming: None, hint: None, readers: vec![Trace { steps: steady(0, 100, rate) }] }
}

/// A user drags a slider: short reads at twelve positions, half a second apart, then steady playing.
fn scrubbing() -> Scene {
    let len = 40_000_000;
    let mut steps = steady(0, 10, 16_000.0);
    for place in 0..12_u64 {
        let at = len / 13 * (place * 5 % 12 + 1);
        steps.push(Step { at, len: CHUNK, after: 0.5 });
        steps.push(Step { at: at + CHUNK, len: CHUNK, after: 0.0 });
    }
    steps.extend(steady(30_000_000, 20, 16_000.0));
    Scene { name: "a scrubbing user", len, upcoming: None, hint: None, readers: vec![Trace { steps }] }
}

fn two_readers() -> Scene {
    let rate = 16_000.0;
    let readers = [0, 20_000_000].map(|at| Trace { steps: steady(at, 40, rate) });
    Scene { name: "two readers", len: 40_000_000, upcoming: None, hint: None, readers: readers.into() }
}

/// Parses lines of offset, length and preceding seconds. The first line is the length of the file. The last `last` bytes are
/// upcoming. A reader that bisects reads `look` bytes at each position.
fn recorded(name: &'static str, last: u64, look: Option<u64>, text: &str) -> Scene {
    let mut lines = text.lines();
    let len = lines.next().and_then(|line| line.parse().ok()).expect("a length");
    let step = |line: &str| {
        let mut fields = line.split(' ');
        let mut field = || fields.next().expect("three fields");
        let (at, len) = (field().parse().expect("an offset"), field().parse().expect("a length"));
        Step { at, len, after: field().parse().expect("seconds") }
    };
    let upcoming = (last > 0).then_some(len - last..len);
    let hint = look.map(|look| Hint { first: len / 2..len / 2 + 64 * 1024, end: len, look });
    Scene { name, len, upcoming, hint, readers: vec![Trace { steps: lines.map(step).collect() }] }
}

pub fn scenes() -> Vec<Scene> {
    vec![
        playing("playing 128 kbit/s", 10_000_000, 16_000.0),
        playing("playing 1411 kbit/s", 100_000_000, 176_400.0),
        scrubbing(),
        two_readers(),
        recorded("symphonia, m4a, index at the end", 169_723, None, include_str!("traces/m4a.txt")),
        recorded("symphonia, ogg, bisecting", 65_307, Some(63 * 1024), include_str!("traces/ogg.txt")),
        recorded("symphonia, flac", 0, Some(13_824), include_str!("traces/flac.txt")),
        recorded("symphonia, mp3", 0, None, include_str!("traces/mp3.txt")),
    ]
}
