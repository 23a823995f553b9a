//! Networks whose rate changes: synthetic ones, and those of a folder.

use std::path::{Path, PathBuf};
use std::{fs, io};

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

    /// Bits that arrive between two times.
    pub(crate) fn bits_between(&self, start: f64, end: f64) -> f64 {
        let (period, per_period) = self.sums[self.sums.len() - 1];
        let until = |time: f64| {
            let turns = (time / period).floor();
            turns * per_period + self.bits_until(time - turns * period)
        };
        until(end) - until(start)
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
#[derive(Debug)]
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
pub(crate) fn synthetic(seed: u64) -> Vec<Set> {
    let mut random = Random(seed);
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

/// The traces of a folder, in any of the formats that [`parse`] knows. Other files are left out, which is printed.
pub(crate) fn folder(path: &Path) -> io::Result<Set> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    let mut traces = Vec::new();
    for file in &files {
        // Lossy: a README may be in any encoding, and is no trace anyway.
        match parse(&String::from_utf8_lossy(&fs::read(file)?)) {
            Some(trace) => traces.push(trace),
            None => println!("{} is no trace of {LEAST} steps", file.display()),
        }
    }
    if traces.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} has no traces", path.display())));
    }
    Ok(Set { name: path.display().to_string(), traces })
}

/// Steps of the shortest trace that is used.
const LEAST: usize = 30;

/// | format | known from |
/// |---|---|
/// | a JSON list of `duration_ms` and `bandwidth_kbps` | sabre |
/// | six columns: UNIX time, ms, latitude, longitude, bytes, and the ms in which these came | the 3G logs of Riiser et al. |
/// | two columns: seconds, and the Mbit/s up to then | Pensieve, and what is made from FCC, Oboe and Puffer |
/// | one column: the ms at which a packet of 1500 bytes could be sent | Mahimahi |
pub(crate) fn parse(text: &str) -> Option<Trace> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let steps = if text.starts_with('[') {
        sabre(text)
    } else {
        // Values that can't be read, as in a heading, make a row of another length.
        let row = |line: &str| -> Vec<f64> {
            let fields =
                line.split(|c: char| c.is_whitespace() || c == ',').filter(|field| !field.is_empty());
            fields.map_while(|field| field.parse().ok()).collect()
        };
        let rows: Vec<Vec<f64>> = text.lines().map(row).filter(|row| !row.is_empty()).collect();
        match rows.first()?.len() {
            1 => mahimahi(&rows),
            2 => cooked(&rows),
            6.. => logged(&rows),
            _ => return None,
        }
    };
    let is_plausible = |(seconds, rate): &(f64, f64)| {
        seconds.is_finite() && *seconds > 0.0 && rate.is_finite() && *rate >= 0.0
    };
    let is_usable = steps.len() >= LEAST && steps.iter().all(is_plausible);
    // A network that brings nothing would never end a transfer.
    is_usable.then(|| Trace::new(steps)).filter(|trace| trace.sums[trace.sums.len() - 1].1 > 1e6)
}

fn sabre(text: &str) -> Vec<(f64, f64)> {
    let number = |object: &str, name: &str| -> Option<f64> {
        let value = object.split_once(&format!("\"{name}\""))?.1.trim_start().strip_prefix(':')?;
        let end = value.find([',', '}']).unwrap_or(value.len());
        value[..end].trim().parse().ok()
    };
    let step =
        |object: &str| Some((number(object, "duration_ms")? / 1e3, number(object, "bandwidth_kbps")? * 1e3));
    text.split('{').filter_map(step).collect()
}

fn cooked(rows: &[Vec<f64>]) -> Vec<(f64, f64)> {
    let points = rows.iter().filter(|row| row.len() == 2).map(|row| (row[0], row[1] * 1e6));
    let points: Vec<(f64, f64)> = points.collect();
    points.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1)).collect()
}

fn logged(rows: &[Vec<f64>]) -> Vec<(f64, f64)> {
    let steps = rows.iter().filter(|row| row.len() >= 6 && row[5] > 0.0);
    steps.map(|row| (row[5] / 1e3, row[4] * 8.0 / (row[5] / 1e3))).collect()
}

fn mahimahi(rows: &[Vec<f64>]) -> Vec<(f64, f64)> {
    let mut packets = Vec::new();
    for time in rows.iter().filter(|row| row.len() == 1 && row[0] >= 0.0).map(|row| row[0]) {
        let second = (time / 1e3) as usize;
        // A day: a number that is no time must not fill the memory.
        if second < 86_400 {
            packets.resize(packets.len().max(second + 1), 0.0);
            packets[second] += 1.0;
        }
    }
    packets.iter().map(|packets| (1.0, packets * 1500.0 * 8.0)).collect()
}
