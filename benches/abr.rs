//! What choices of the bitrate make of networks: quality against the approximate optimum, stalls, switches and waste.
//!
//! `cargo bench --bench abr --features hls [-- [FOLDER] [--scale FACTOR] [--seed N] [--no-optimum]]`. Virtual time: the figures
//! are the same on every machine. The traces are synthetic, or those of the folder. Rules of other players are written from
//! their description.

#[path = "abr/players.rs"]
mod players;
#[path = "abr/simulator.rs"]
mod simulator;
#[path = "abr/traces.rs"]
mod traces;

use std::path::PathBuf;

use players::{Bola, HlsJs, Kithara, Lowest, Media3, Windway};
use simulator::{Figures, Player, Video, optimum, simulate};
use traces::{Set, folder, synthetic};

/// Seconds that are buffered on demand.
const CAPACITY: f64 = 120.0;

type Make = fn() -> Box<dyn Player>;

const PLAYERS: [(&str, Make); 7] = [
    ("windway", || Box::new(Windway::new(CAPACITY, true))),
    ("no replace", || Box::new(Windway::new(CAPACITY, false))),
    ("kithara", || Box::<Kithara>::default()),
    ("Media3", || Box::<Media3>::default()),
    ("hls.js", || Box::<HlsJs>::default()),
    ("BOLA 60 s", || Box::new(Bola)),
    ("lowest", || Box::new(Lowest)),
];

/// The players that are others' rules.
const RIVALS: std::ops::Range<usize> = 2..6;

const VIDEOS: [Video; 2] = [
    Video {
        bitrates: &[66_000, 134_000, 270_000, 989_000],
        segment: 6.0,
        segments: 100,
        latency: 0.05,
        sizes: &[],
    },
    Video {
        bitrates: &[48_000, 96_000, 192_000, 320_000],
        segment: 4.0,
        segments: 150,
        latency: 0.3,
        sizes: &[],
    },
];

struct Options {
    folder: Option<PathBuf>,
    scale: f64,
    /// Of the synthetic traces.
    seed: u64,
    /// Dynamic programming takes most of the time.
    has_optimum: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { folder: None, scale: 1.0, seed: 5, has_optimum: true };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let wrong = |error: &dyn std::fmt::Display| format!("{argument}: {error}");
            match argument.as_str() {
                "--scale" => options.scale = value()?.parse().map_err(|error| wrong(&error))?,
                "--seed" => options.seed = value()?.parse().map_err(|error| wrong(&error))?,
                "--no-optimum" => options.has_optimum = false,
                _ if argument.starts_with("--") => return Err(format!("unknown option {argument}")),
                _ => options.folder = Some(argument.into()),
            }
        }
        Ok(options)
    }

    fn sets(&self) -> std::io::Result<Vec<Set>> {
        let mut sets = match &self.folder {
            Some(path) => vec![folder(path)?],
            None => synthetic(self.seed),
        };
        for trace in sets.iter_mut().flat_map(|set| &mut set.traces) {
            *trace = trace.scaled(self.scale);
        }
        Ok(sets)
    }
}

fn main() {
    let options = Options::parse(std::env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2);
    });
    let sets = options.sets().unwrap_or_else(|error| {
        eprintln!("the traces can't be read: {error}");
        std::process::exit(1);
    });
    let rows: Vec<Row> = sets
        .iter()
        .flat_map(|set| VIDEOS.iter().map(|video| compare(set, video, options.has_optimum)))
        .collect();
    summarize(&rows);
}

/// windway on one set.
struct Row {
    name: String,
    quality: f64,
    best_rival: f64,
    optimum: Option<f64>,
    stalled: f64,
    /// Least stall of a rival whose mean rate is at least half of windway's.
    least_stalled: f64,
    switches: f64,
}

/// Sums over the traces of a set.
struct Total {
    quality: f64,
    /// Per hour of audio.
    stalled: f64,
    /// Seconds without audio inside the first segment, if that plays while it arrives: mean of the traces.
    early: f64,
    switches: f64,
    replaced: f64,
    /// As a share of what was played.
    wasted: f64,
    /// Mean of what was played.
    rate: f64,
}

impl Total {
    fn new(figures: &[Figures]) -> Self {
        let sum = |field: fn(&Figures) -> f64| figures.iter().map(field).sum::<f64>();
        let (media, played) = (sum(|figures| figures.media), sum(|figures| figures.played));
        let hours = media / 3600.0;
        Self {
            quality: sum(|figures| figures.quality) / figures.len() as f64,
            stalled: sum(|figures| figures.stalled) / hours,
            early: sum(|figures| figures.early) / figures.len() as f64,
            switches: sum(|figures| figures.switches) / hours,
            replaced: sum(|figures| figures.replaced) / hours,
            wasted: sum(|figures| figures.wasted) / played,
            rate: played / media,
        }
    }

    fn show(&self, name: &str) {
        println!(
            "  {name:<10} quality {:>7.4}  stalled {:>6.2} s/h  early {:>5.2} s  switches {:>5.1} /h  replaced {:>5.1} /h  wasted {:>4.1} %  {:>4.0} kbit/s",
            self.quality,
            self.stalled,
            self.early,
            self.switches,
            self.replaced,
            100.0 * self.wasted,
            self.rate / 1000.0,
        );
    }
}

fn compare(set: &Set, video: &Video, has_optimum: bool) -> Row {
    println!("{}: {} traces, {:?} bit/s, {} s", set.name, set.traces.len(), video.bitrates, video.segment);
    let best = || {
        let sum: f64 = set.traces.iter().map(|trace| optimum(video, trace, CAPACITY)).sum();
        sum / set.traces.len() as f64
    };
    let optimum = has_optimum.then(best);
    if let Some(optimum) = optimum {
        println!("  optimum    quality {optimum:>7.4}");
    }
    let totals = PLAYERS.map(|(name, make)| {
        let figures: Vec<Figures> =
            set.traces.iter().map(|trace| simulate(video, trace, &mut *make())).collect();
        let total = Total::new(&figures);
        total.show(name);
        total
    });
    let own = &totals[0];
    let rivals = &totals[RIVALS];
    Row {
        name: format!("{}, {} s", set.name, video.segment),
        quality: own.quality,
        best_rival: rivals.iter().map(|rival| rival.quality).fold(f64::MIN, f64::max),
        optimum,
        stalled: own.stalled,
        least_stalled: rivals
            .iter()
            .filter(|rival| rival.rate >= own.rate / 2.0)
            .map(|rival| rival.stalled)
            .fold(f64::MAX, f64::min),
        switches: own.switches,
    }
}

fn summarize(rows: &[Row]) {
    println!("\n{:<32} of the optimum  of the best rival  stalled, least s/h  switches/h", "windway");
    for row in rows {
        println!(
            "{:<32} {:>14.4}  {:>17.4}  {:>7.2}, {:>8.2}  {:>10.1}",
            row.name,
            row.optimum.map_or(f64::NAN, |optimum| row.quality / optimum),
            row.quality / row.best_rival,
            row.stalled,
            row.least_stalled,
            row.switches,
        );
    }
    let shares = rows.iter().filter_map(|row| Some(row.quality / row.optimum?));
    println!("mean share of the optimum: {:.4}", shares.sum::<f64>() / rows.len() as f64);
    let ahead = rows.iter().filter(|row| row.quality > row.best_rival).count();
    println!("strictly ahead of every rival on {ahead} of {} sets", rows.len());
    // The optimum is one of rounded buffer levels, so a rule may seem to be a little above or below it.
    let is_best = |row: &&Row| row.optimum.is_some_and(|optimum| row.best_rival >= optimum * (1.0 - 1e-5));
    let unbeatable = rows.iter().filter(is_best).count();
    println!("{unbeatable} of the others have a rival at the optimum, which nothing can be ahead of");
}
