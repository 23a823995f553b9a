//! Compares plans on the traces of readers, over 20 simulated networks: stalls, bytes fetched and read, requests.
//!
//! `cargo bench --bench plan`. Virtual time: the figures are the same on every machine.

#[path = "../src/source/file/alignment.rs"]
#[allow(dead_code, unused_imports, reason = "its tests, which do not run in the bench")]
mod alignment;
#[path = "../src/source/file/bisection.rs"]
#[allow(dead_code, reason = "its tests, which do not run here")]
mod bisection;
#[path = "../src/source/file/network.rs"]
#[allow(dead_code, reason = "the file's state uses the rest")]
mod network;
#[path = "../src/source/file/plan.rs"]
#[allow(dead_code, reason = "the file's state uses the rest")]
mod plan;
#[path = "../src/source/prefetch.rs"]
#[allow(dead_code, reason = "the file's state uses the rest")]
mod prefetch;
#[path = "../src/storage/ranges.rs"]
#[allow(dead_code, unused_imports, reason = "storage uses the rest")]
mod ranges;
#[path = "../src/source/file/reader_view.rs"]
#[allow(dead_code, reason = "the file's state uses the rest")]
mod reader_view;
#[path = "../tests/simulator/mod.rs"]
mod simulator;

/// What the plan imports, as the library names it.
mod config {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum ReadAhead {
        Bytes(u64),
        Whole,
    }
}
mod source {
    pub(crate) use crate::prefetch;
}
mod types {
    pub(crate) use windway::Priority;
}
mod storage {
    pub(crate) use crate::ranges::RangeSet;
}

use simulator::planners::{FixedPieces, OneRequest, Windway, best, best_unforeseeing};
use simulator::traces::{Scene, scenes};
use simulator::{Figures, Net, Planner, networks, simulate};

type Run = fn(Net, &Scene) -> Figures;

fn with(net: Net, scene: &Scene, planner: &mut dyn Planner) -> Figures {
    simulate(net, scene.len, &scene.readers, planner)
}

fn main() {
    let plans: [(&str, Run); 5] = [
        ("windway", |net, scene| with(net, scene, &mut Windway::new(scene))),
        ("one request, anew at each seek", |net, scene| with(net, scene, &mut OneRequest)),
        ("fixed pieces of 64 KiB", |net, scene| with(net, scene, &mut FixedPieces)),
        ("the best, if jumps are not foreseen", |net, scene| {
            best_unforeseeing(net, scene.len, &scene.readers)
        }),
        ("the best, all foreseen", |net, scene| best(net, scene.len, &scene.readers)),
    ];
    for scene in scenes() {
        println!("{} ({} jumps), over {} networks", scene.name, scene.jumps(), networks().len());
        for (name, run) in plans {
            let figures: Vec<Figures> = networks().into_iter().map(|net| run(net, &scene)).collect();
            let sum = |field: fn(&Figures) -> f64| figures.iter().map(field).sum::<f64>();
            let worst = figures.iter().map(|figures| figures.worst).fold(0.0, f64::max);
            println!(
                "  {name:<36} {:>6} stalls {:>8.1} s  worst {worst:>5.1} s  fetched/read {:>5.2}  {:>5} requests {:>5} connections",
                sum(|figures| f64::from(figures.stalls)),
                sum(|figures| figures.stalled),
                sum(|figures| figures.fetched as f64) / sum(|figures| figures.read as f64),
                sum(|figures| f64::from(figures.requests)),
                sum(|figures| f64::from(figures.connections)),
            );
        }
    }
}
