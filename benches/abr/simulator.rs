//! A player in virtual time: one connection, a latency for each request, a buffer, and a choice before each segment.

use super::traces::Trace;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Video {
    pub(crate) bitrates: &'static [u64],
    /// Seconds of a segment.
    pub(crate) segment: f64,
    pub(crate) segments: usize,
    /// Seconds from a request to the first byte.
    pub(crate) latency: f64,
}

impl Video {
    pub(crate) fn bits(&self, level: usize) -> f64 {
        self.bitrates[level] as f64 * self.segment
    }

    pub(crate) fn value(&self, level: usize) -> f64 {
        (self.bitrates[level] as f64 / self.bitrates[0] as f64).log2()
    }
}

/// What a choice is told.
pub(crate) struct View<'a> {
    pub(crate) video: &'a Video,
    pub(crate) now: f64,
    /// Seconds that are buffered.
    pub(crate) buffered: f64,
    pub(crate) current: Option<usize>,
}

pub(crate) struct Transfer {
    pub(crate) bits: f64,
    /// Seconds from the first byte on.
    pub(crate) seconds: f64,
    pub(crate) latency: f64,
}

pub(crate) trait Player {
    /// Seconds that are buffered at most.
    fn capacity(&self, video: &Video) -> f64;
    fn choose(&mut self, view: &View<'_>) -> usize;
    fn handle(&mut self, transfer: &Transfer, now: f64);

    /// Asked each half second of a transfer: another level to fetch instead.
    fn abandon(&mut self, view: &View<'_>, left: f64, rate: f64) -> Option<usize> {
        let _ = (view, left, rate);
        None
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Per second of media.
    pub(crate) quality: f64,
    /// Seconds without audio, after the start.
    pub(crate) stalled: f64,
    pub(crate) switches: f64,
    pub(crate) wasted: f64,
    /// Bits.
    pub(crate) played: f64,
    /// Seconds of media.
    pub(crate) media: f64,
}

/// Weights: 8 for a second of rebuffering, 2 for a second until the start, 0.5 for a step of an octave.
pub(crate) fn score(video: &Video, levels: &[usize], stalled: f64, startup: f64) -> f64 {
    let value: f64 = levels.iter().map(|level| video.value(*level) * video.segment).sum();
    let change: f64 = levels.windows(2).map(|pair| (video.value(pair[1]) - video.value(pair[0])).abs()).sum();
    (value - 8.0 * stalled - 2.0 * startup - 0.5 * change) / (video.segments as f64 * video.segment)
}

pub(crate) fn simulate(video: &Video, trace: &Trace, player: &mut dyn Player) -> Figures {
    let (mut now, mut buffered, mut stalled, mut startup, mut wasted) = (0.0, 0.0_f64, 0.0, 0.0, 0.0);
    let mut levels: Vec<usize> = Vec::new();
    while levels.len() < video.segments {
        let room = player.capacity(video) - video.segment;
        if buffered > room.max(0.0) {
            now += buffered - room.max(0.0);
            buffered = room.max(0.0);
        }
        let current = levels.last().copied();
        let mut level = player.choose(&View { video, now, buffered, current }).min(video.bitrates.len() - 1);
        let mut begun = now;
        let end = loop {
            let first = begun + video.latency;
            let end = trace.arrival(first, video.bits(level));
            let request = Request { level, asked: now, first, end, buffered };
            match given_up(video, trace, player, &request) {
                Some((at, other, bits)) => {
                    wasted += bits;
                    player.handle(&Transfer { bits, seconds: at - first, latency: video.latency }, at);
                    (begun, level) = (at, other);
                }
                None => {
                    player.handle(
                        &Transfer { bits: video.bits(level), seconds: end - first, latency: video.latency },
                        end,
                    );
                    break end;
                }
            }
        };
        let took = end - now;
        if levels.is_empty() {
            startup = took;
        } else {
            stalled += (took - buffered).max(0.0);
            buffered = (buffered - took).max(0.0);
        }
        buffered += video.segment;
        now = end;
        levels.push(level);
    }
    Figures {
        quality: score(video, &levels, stalled, startup),
        stalled,
        switches: levels.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64,
        wasted,
        played: levels.iter().map(|level| video.bits(*level)).sum(),
        media: video.segments as f64 * video.segment,
    }
}

/// A transfer that runs.
struct Request {
    level: usize,
    /// When the segment was asked for, when its first byte came, and when its last one will.
    asked: f64,
    first: f64,
    end: f64,
    /// Seconds that were buffered when it was asked for.
    buffered: f64,
}

/// When a transfer is given up, for which level, and how many bits had come.
fn given_up(
    video: &Video,
    trace: &Trace,
    player: &mut dyn Player,
    request: &Request,
) -> Option<(f64, usize, f64)> {
    let Request { level, asked, first, end, buffered } = *request;
    let mut at = first + 0.5;
    let mut come = 0.0;
    let mut piece = video.bits(level) / 64.0;
    while at < end {
        while come + piece < video.bits(level) && trace.arrival(first, come + piece) <= at {
            come += piece;
        }
        piece = piece.max(1.0);
        let left = video.bits(level) - come;
        let view =
            View { video, now: at, buffered: (buffered - (at - asked)).max(0.0), current: Some(level) };
        if let Some(other) = player.abandon(&view, left, come / (at - first)).filter(|other| *other < level) {
            return Some((at, other, come));
        }
        at += 0.5;
    }
    None
}

/// The best that is possible if the network is foreseen: over segments, levels and times in steps of 0.25 s. Of paths that
/// meet in a step only the best one so far is followed, so the figure is approximate.
pub(crate) fn optimum(video: &Video, trace: &Trace, capacity: f64) -> f64 {
    #[derive(Clone, Copy)]
    struct Path {
        now: f64,
        buffered: f64,
        score: f64,
    }
    const STEP: f64 = 0.25;
    let levels = video.bitrates.len();
    let mut paths: Vec<std::collections::BTreeMap<i64, Path>> = vec![Default::default(); levels];
    for (level, paths) in paths.iter_mut().enumerate() {
        let end = trace.arrival(video.latency, video.bits(level));
        let score = video.value(level) * video.segment - 2.0 * end;
        paths.insert((end / STEP) as i64, Path { now: end, buffered: video.segment, score });
    }
    for _ in 1..video.segments {
        let mut next: Vec<std::collections::BTreeMap<i64, Path>> = vec![Default::default(); levels];
        for (from, path) in
            paths.iter().enumerate().flat_map(|(from, paths)| paths.values().map(move |path| (from, path)))
        {
            let wait = (path.buffered - (capacity - video.segment)).max(0.0);
            for (to, next) in next.iter_mut().enumerate() {
                let begun = path.now + wait;
                let end = trace.arrival(begun + video.latency, video.bits(to));
                let left = path.buffered - wait - (end - begun);
                let change = (video.value(to) - video.value(from)).abs();
                let score =
                    path.score + video.value(to) * video.segment - 8.0 * (-left).max(0.0) - 0.5 * change;
                let path = Path { now: end, buffered: left.max(0.0) + video.segment, score };
                let known = next.entry((end / STEP) as i64).or_insert(path);
                if score > known.score {
                    *known = path;
                }
            }
        }
        // A full buffer is worth no more than its seconds at the best quality.
        let worth = video.value(levels - 1) * capacity;
        let best =
            next.iter().flat_map(|paths| paths.values()).map(|path| path.score).fold(f64::MIN, f64::max);
        next.iter_mut().for_each(|paths| paths.retain(|_, path| path.score >= best - worth));
        paths = next;
    }
    let best = paths.iter().flat_map(|paths| paths.values()).map(|path| path.score).fold(f64::MIN, f64::max);
    best / (video.segments as f64 * video.segment)
}
