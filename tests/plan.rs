//! The plan of `src/source/file/plan.rs` in the simulator, over 20 networks and 8 scenes: how long readers stall, and how many
//! bytes are fetched that no reader takes.

#[path = "simulator/library.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "what the file's state uses, and the modules' own tests"
)]
mod library;
mod simulator;

use library::*;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use simulator::planners::{Windway, best_unforeseeing};
use simulator::traces::scenes;
use simulator::{INITIAL_WINDOW, networks, simulate};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::formats::{SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Time;

#[test]
fn the_plan_stalls_and_wastes_no_more_than_allowed() {
    let mut missed = Vec::new();
    for scene in scenes() {
        for net in networks() {
            let ours = simulate(net, scene.len, &scene.readers, &mut Windway::new(&scene));
            let best = best_unforeseeing(net, scene.len, &scene.readers);
            let jumps = scene.jumps() as f64 + scene.readers.len() as f64;
            // A piece is about a second of the network; the first one of a jump is 64 KiB at least.
            let piece = net.rate.clamp(65_536.0, 4_194_304.0);
            let spare = (16 << 20) as f64 * scene.readers.len() as f64 + piece * jumps;
            let wasted = ours.fetched.saturating_sub(ours.read) as f64;
            // Readers that wait at the same time share the network. The ideal plan serves one after the other.
            let shared = best.stalled * scene.readers.len() as f64;
            // A round trip for each jump. The ideal plan knows where each sequential run ends. A real plan does not, and what it
            // requests beyond the end shares the network: the smallest piece once, and the smallest pipeline lead for each jump.
            let beyond = (65_536.0 + 16_384.0 * jumps) / net.rate;
            // The ideal plan has one connection that is past its slow start. Here the pieces of a run alternate between two, and on
            // a new connection the first 64 KiB take three flights, unless fewer fill the link.
            let flights = 2.0 * (net.rate * net.rtt / INITIAL_WINDOW).log2().clamp(0.0, 2.0);
            let allowed = shared + (net.rtt * (1.0 + flights) + net.jitter) * jumps + beyond;
            if ours.stalled > allowed + 1e-6 {
                missed.push(format!(
                    "{}, {:.0} kB/s, {:.0} ms: stalled {:.2} s, allowed {allowed:.2} s, the best {:.2} s",
                    scene.name,
                    net.rate / 1e3,
                    net.rtt * 1e3,
                    ours.stalled,
                    best.stalled
                ));
            }
            if wasted > spare {
                missed.push(format!("{}: {wasted} bytes for nothing, allowed {spare}", scene.name));
            }
        }
    }
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
}

/// A file that records its reads.
struct Noting {
    file: File,
    at: u64,
    len: u64,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    /// Seconds played since the last read.
    played: f64,
}

impl Read for Noting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buf)?;
        let mut log = self.log.lock().unwrap();
        let played = std::mem::take(&mut log.played);
        log.lines.push(format!("{} {got} {played:.3}", self.at));
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Noting {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl MediaSource for Noting {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

/// `WINDWAY_FILE=long.m4a WINDWAY_TRACE=m4a.txt cargo test --test plan -- --ignored`
#[test]
#[ignore = "writes a trace of the file that WINDWAY_FILE names"]
fn record_a_trace() {
    let path = std::env::var("WINDWAY_FILE").unwrap();
    let file = File::open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let log = Arc::new(Mutex::new(Log::default()));
    let noting = Noting { file, at: 0, len, log: Arc::clone(&log) };
    let source = MediaSourceStream::new(Box::new(noting), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Default::default(), source, Default::default(), Default::default())
        .unwrap();
    let track = format.default_track(TrackType::Audio).unwrap();
    let id = track.id;
    let params = track.codec_params.as_ref().unwrap().audio().unwrap();
    let mut decoder =
        symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()).unwrap();
    for seek in [None, Some(360.0), Some(120.0)] {
        if let Some(seconds) = seek {
            let time = Time::try_from_secs_f64(seconds).unwrap();
            format.seek(SeekMode::Accurate, SeekTo::Time { time, track_id: Some(id) }).unwrap();
            decoder.reset();
        }
        let mut played = 0.0;
        while played < 5.0 {
            let packet = format.next_packet().unwrap().unwrap();
            let audio = decoder.decode(&packet).unwrap();
            let seconds = audio.frames() as f64 / f64::from(audio.spec().rate());
            played += seconds;
            log.lock().unwrap().played += seconds;
        }
        log.lock().unwrap().played = 0.0;
    }
    let mut trace = File::create(std::env::var("WINDWAY_TRACE").unwrap()).unwrap();
    writeln!(trace, "{len}\n{}", log.lock().unwrap().lines.join("\n")).unwrap();
}
