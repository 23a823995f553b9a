//! Draws the requests of a downloader: one line for each, from the queue to its end.
//!
//! cargo run --release --example waterfall [URL]
//!
//! Opens a file and reads; seeks to the middle and reads; seeks to near the end and reads. Without a URL it starts a server
//! with a round-trip time of 40 ms.
//!
//! `·` queued, `-` waiting for the response head, `=` body, `z` preempted, `|` end

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use support::{Answer, Content, Origin};
use windway::downloader::RequestId;
use windway::event::{Event, Subscriber};
use windway::{Downloader, DownloaderConfig};

const WIDTH: usize = 100;

/// The line of one request: the marks, each with the time from which on it is drawn.
#[derive(Default)]
struct Line {
    marks: Vec<(Duration, char)>,
    end: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let rtt = Duration::from_millis(40);
    let content = Content::pattern(20_000_000);
    let origin =
        Origin::start_with_rtt(rtt, move |asked| Answer::file(asked, &content).latency(rtt).rate(2_000_000));
    let url = std::env::args().nth(1).unwrap_or_else(|| origin.url("/track.flac"));
    let downloader = Downloader::new(DownloaderConfig::default())?;
    let events = downloader.subscribe();
    let began = Instant::now();
    let drawn = std::thread::spawn(move || note(&events, began));
    let mut stream = downloader.open(&url)?;
    let mut buf = vec![0; 400_000];
    stream.read_exact(&mut buf)?;
    let len = stream.len().unwrap_or(0);
    stream.seek(SeekFrom::Start(len / 2))?;
    stream.read_exact(&mut buf[..100_000])?;
    stream.seek(SeekFrom::Start(len.saturating_sub(50_000)))?;
    stream.read_to_end(&mut Vec::new())?;
    drop(stream);
    println!("{:?}", downloader.stats());
    downloader.stop();
    drop(downloader);
    let lines = drawn.join().map_err(|_| "the thread that draws panicked")?;
    draw(&lines);
    Ok(())
}

/// Records events until the downloader is gone.
fn note(events: &Subscriber, began: Instant) -> BTreeMap<RequestId, Line> {
    let mut lines: BTreeMap<RequestId, Line> = BTreeMap::new();
    while let Some(event) = events.recv() {
        let Some(request) = event.request() else { continue };
        let line = lines.entry(request).or_default();
        let mark = match &event {
            Event::Enqueued { .. } => '·',
            Event::Started { .. } => '-',
            Event::FirstByte { .. } | Event::Resumed { .. } => '=',
            Event::Preempted { .. } => 'z',
            Event::Retrying { .. } => '·',
            event if event.is_end() => '|',
            _ => continue,
        };
        line.marks.push((began.elapsed(), mark));
        match event {
            Event::Completed { bytes, .. } => line.end = format!("{bytes} bytes"),
            Event::Failed { error, .. } => line.end = error.to_string(),
            Event::Cancelled { bytes, reason, .. } => {
                line.end = format!("{bytes} bytes, cancelled: {reason}")
            }
            _ => {}
        }
    }
    lines
}

fn draw(lines: &BTreeMap<RequestId, Line>) {
    let all = lines.values().flat_map(|line| &line.marks).map(|(at, _)| *at).max().unwrap_or_default();
    let column = |at: Duration| (at.as_secs_f64() / all.as_secs_f64() * (WIDTH - 1) as f64) as usize;
    println!("{:>5} 0{:>width$.0?}", "", all, width = WIDTH);
    for (request, line) in lines {
        let mut bar = vec![' '; WIDTH];
        for (index, (at, mark)) in line.marks.iter().enumerate() {
            let until = line.marks.get(index + 1).map_or(column(*at), |(next, _)| column(*next));
            bar[column(*at)..=until].fill(*mark);
        }
        println!("{:>5} {} {}", request.to_string(), bar.iter().collect::<String>(), line.end);
    }
}
