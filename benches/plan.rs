//! Compares plans on the traces of readers, over 20 simulated networks: stalls, bytes fetched and read, requests.
//!
//! `cargo bench --bench plan`. Virtual time: the figures are the same on every machine.

#[path = "../tests/simulator/library.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "what the file's state uses, and the modules' own tests"
)]
mod library;
#[path = "../tests/simulator/mod.rs"]
mod simulator;

use library::*;

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
