//! Networks whose rate changes: synthetic ones, and those of a folder.

use std::fs;
use std::path::Path;

/// Rates over time. Begins again at its end.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// Seconds and bits a second.
    steps: Vec<(f64, f64)>,
    /// Seconds and bits up to each step.
    sums: Vec<(f64, f64)>,
}

impl Trace {
    pub(crate) fn new(steps: Vec<(f64, f64)>) -> Self {
        let mut sums = vec![(0.0, 0.0)];
        for (seconds, rate) in &steps {
            let (time, bits) = sums[sums.len() - 1];
            sums.push((time + seconds, bits + seconds * rate));
        }
        Self { steps, sums }
    }

    pub(crate) fn scaled(&self, by: f64) -> Self {
        Self::new(self.steps.iter().map(|(seconds, rate)| (*seconds, rate * by)).collect())
    }

    /// When so many bits have come that are sent from `start` on.
    pub(crate) fn arrival(&self, start: f64, bits: f64) -> f64 {
        let (period, per_period) = self.sums[self.sums.len() - 1];
        let turns = (start / period).floor();
        let wanted = self.bits_until(start - turns * period) + bits;
        let more_turns = (wanted / per_period).floor();
        (turns + more_turns) * period + self.time_of(wanted - more_turns * per_period)
    }

    fn bits_until(&self, time: f64) -> f64 {
        let index = self.sums.partition_point(|(until, _)| *until <= time).clamp(1, self.steps.len()) - 1;
        self.sums[index].1 + (time - self.sums[index].0) * self.steps[index].1
    }

    fn time_of(&self, bits: f64) -> f64 {
        let index = self.sums.partition_point(|(_, until)| *until <= bits).clamp(1, self.steps.len()) - 1;
        let rate = self.steps[index].1.max(1.0);
        self.sums[index].0 + (bits - self.sums[index].1) / rate
    }
}

/// Traces of one kind.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) traces: Vec<Trace>,
}

struct Random(u64);

impl Random {
    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    /// About normal, with a deviation of 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// A rate that wanders: its logarithm returns to the middle with this inertia, and is spread by `spread`.
fn wandering(random: &mut Random, middle: f64, inertia: f64, spread: f64) -> Trace {
    let mut level = 0.0;
    let mut step = || {
        level = level * inertia + random.normal() * spread * (1.0 - inertia * inertia).sqrt();
        (1.0, middle * level.exp())
    };
    Trace::new((0..900).map(|_| step()).collect())
}

/// A good rate with holes, as in a train.
fn tunnels(random: &mut Random, rate: f64) -> Trace {
    let mut steps = Vec::new();
    for _ in 0..12 {
        let shaken = |random: &mut Random| rate * (0.7 + 0.6 * random.unit());
        (0..30 + (random.unit() * 60.0) as usize).for_each(|_| steps.push((1.0, shaken(random))));
        steps.push((5.0 + 25.0 * random.unit(), rate * 0.03));
    }
    Trace::new(steps)
}

/// Two levels, each for a minute or so.
fn steps(random: &mut Random, low: f64, high: f64) -> Trace {
    let lengths: Vec<f64> = (0..16).map(|_| 20.0 + 100.0 * random.unit()).collect();
    Trace::new(
        lengths
            .iter()
            .enumerate()
            .map(|(at, length)| (*length, if at % 2 == 0 { high } else { low }))
            .collect(),
    )
}

/// The sets in the tree.
pub(crate) fn synthetic() -> Vec<Set> {
    let mut random = Random(5);
    let mut set = |name: &str, make: &mut dyn FnMut(&mut Random) -> Trace| {
        let traces = (0..16).map(|_| make(&mut random)).collect();
        Set { name: name.to_owned(), traces }
    };
    vec![
        set("wandering, 400 kbit/s", &mut |random| wandering(random, 400e3, 0.95, 0.7)),
        set("nervous, 400 kbit/s", &mut |random| wandering(random, 400e3, 0.5, 0.9)),
        set("tunnels, 700 kbit/s", &mut |random| tunnels(random, 700e3)),
        set("steps, 120 and 900 kbit/s", &mut |random| steps(random, 120e3, 900e3)),
        set("tight, 130 kbit/s", &mut |random| wandering(random, 130e3, 0.9, 0.4)),
        set("plenty, 4 Mbit/s", &mut |random| wandering(random, 4e6, 0.9, 0.5)),
    ]
}

/// The traces of a folder: lines of a time in seconds and a rate in Mbit/s, as in `cooked_3gp`.
pub(crate) fn folder(path: &Path) -> std::io::Result<Set> {
    let mut files: Vec<_> = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let traces = files.iter().filter_map(|file| parse(&fs::read_to_string(file).ok()?)).collect();
    Ok(Set { name: path.display().to_string(), traces })
}

fn parse(text: &str) -> Option<Trace> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse::<f64>);
        Some((fields.next()?.ok()?, fields.next()?.ok()? * 1e6))
    };
    let points: Vec<(f64, f64)> = text.lines().filter_map(line).collect();
    let steps: Vec<_> = points.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1)).collect();
    let is_usable = steps.len() > 30 && steps.iter().all(|(seconds, _)| *seconds > 0.0);
    is_usable.then(|| Trace::new(steps)).filter(|trace| trace.sums[trace.sums.len() - 1].1 > 1e6)
}
