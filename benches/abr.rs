//! What choices of the bitrate make of networks: quality against the approximate optimum, stalls, switches and waste.
//!
//! `cargo bench --bench abr --features hls [-- FOLDER [SCALE]]`. Virtual time: the figures are the same on every machine. The
//! traces are synthetic, or those of the folder, scaled. Rules of other players are written from their description.

#[path = "abr/players.rs"]
mod players;
#[path = "abr/simulator.rs"]
mod simulator;
#[path = "abr/traces.rs"]
mod traces;

use players::{Bola, HlsJs, Kithara, Lowest, Media3, Windway};
use simulator::{Figures, Player, Video, optimum, simulate};
use traces::{Set, folder, synthetic};

/// Seconds that are buffered on demand.
const CAPACITY: f64 = 120.0;

type Make = fn() -> Box<dyn Player>;

const PLAYERS: [(&str, Make); 6] = [
    ("windway", || Box::new(Windway::new(CAPACITY))),
    ("kithara", || Box::<Kithara>::default()),
    ("Media3", || Box::<Media3>::default()),
    ("hls.js", || Box::<HlsJs>::default()),
    ("BOLA 60 s", || Box::new(Bola)),
    ("lowest", || Box::new(Lowest)),
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut sets = match arguments.first() {
        Some(path) => vec![folder(path.as_ref()).expect("a folder of traces")],
        None => synthetic(),
    };
    if let Some(scale) = arguments.get(1) {
        let scale: f64 = scale.parse().expect("a factor");
        sets.iter_mut().for_each(|set| set.traces.iter_mut().for_each(|trace| *trace = trace.scaled(scale)));
    }
    let videos = [
        Video { bitrates: &[66_000, 134_000, 270_000, 989_000], segment: 6.0, segments: 100, latency: 0.05 },
        Video { bitrates: &[48_000, 96_000, 192_000, 320_000], segment: 4.0, segments: 150, latency: 0.3 },
    ];
    let mut shares = Vec::new();
    for set in &sets {
        for video in &videos {
            shares.push(compare(set, video));
        }
    }
    println!("mean share of the optimum: {:.3}", shares.iter().sum::<f64>() / shares.len() as f64);
}

fn compare(set: &Set, video: &Video) -> f64 {
    let best: f64 =
        set.traces.iter().map(|trace| optimum(video, trace, CAPACITY)).sum::<f64>() / set.traces.len() as f64;
    println!("{}: {} traces, {:?} bit/s, {} s", set.name, set.traces.len(), video.bitrates, video.segment);
    println!("  {:<10} quality {best:>6.3}", "optimum");
    let mut share = 0.0;
    for (name, make) in PLAYERS {
        let figures: Vec<Figures> =
            set.traces.iter().map(|trace| simulate(video, trace, &mut *make())).collect();
        let sum = |field: fn(&Figures) -> f64| figures.iter().map(field).sum::<f64>();
        let quality = sum(|figures| figures.quality) / figures.len() as f64;
        let hours = sum(|figures| figures.media) / 3600.0;
        println!(
            "  {name:<10} quality {quality:>6.3}  stalled {:>6.1} s/h  switches {:>5.1} /h  wasted {:>4.1} %  {:>4.0} kbit/s",
            sum(|figures| figures.stalled) / hours,
            sum(|figures| figures.switches) / hours,
            100.0 * sum(|figures| figures.wasted) / sum(|figures| figures.played),
            sum(|figures| figures.played) / sum(|figures| figures.media) / 1000.0,
        );
        if name == "windway" {
            share = quality / best;
        }
    }
    share
}
