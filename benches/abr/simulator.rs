//! A player in virtual time: one connection, a latency for each request, a buffer, and a choice before each segment.

use std::collections::BTreeMap;

use super::traces::Trace;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Video {
    pub(crate) bitrates: &'static [u64],
    /// Seconds of a segment.
    pub(crate) segment: f64,
    pub(crate) segments: usize,
    /// Seconds from a request to the first byte.
    pub(crate) latency: f64,
    /// Sizes of the segments, as shares of their mean. Begins again at its end. All are equal if it is empty.
    pub(crate) sizes: &'static [f64],
}

impl Video {
    /// Bits of a segment of mean size.
    pub(crate) fn bits(&self, level: usize) -> f64 {
        self.bitrates[level] as f64 * self.segment
    }

    /// Bits of the segment with this number.
    pub(crate) fn size(&self, level: usize, index: usize) -> f64 {
        let share = if self.sizes.is_empty() { 1.0 } else { self.sizes[index % self.sizes.len()] };
        self.bits(level) * share
    }

    pub(crate) fn value(&self, level: usize) -> f64 {
        (self.bitrates[level] as f64 / self.bitrates[0] as f64).log2()
    }
}

/// What a choice may depend on.
pub(crate) struct View<'a> {
    pub(crate) video: &'a Video,
    pub(crate) now: f64,
    /// Seconds that are buffered.
    pub(crate) buffered: f64,
    pub(crate) current: Option<usize>,
    /// Number of the segment that is fetched next, or is being fetched.
    pub(crate) index: usize,
    /// Nothing has arrived yet.
    pub(crate) is_starting: bool,
}

/// A segment that has arrived and does not play yet.
pub(crate) struct Buffered {
    pub(crate) id: u64,
    pub(crate) level: usize,
    /// Seconds until it plays.
    pub(crate) starts_in: f64,
}

pub(crate) struct Transfer {
    pub(crate) bits: f64,
    /// Seconds from the first byte on.
    pub(crate) seconds: f64,
    /// Bits per second in the last two to four seconds of all transfers, at the end of this one.
    pub(crate) recent: f64,
    pub(crate) latency: f64,
}

/// Measures the rate of the last few seconds of transfers as the library does in `bandwidth.rs`: both sums are halved every two seconds.
#[derive(Default)]
struct Meter {
    bits: f64,
    seconds: f64,
}

impl Meter {
    /// A transfer that brings bits between two times. Returns the rate at its end.
    fn receive(&mut self, trace: &Trace, from: f64, to: f64) -> f64 {
        // A read of the socket lasts about as long on a slow network.
        const READ: f64 = 0.1;
        let mut at = from;
        while at < to {
            let next = (at + READ).min(to);
            self.bits += trace.bits_between(at, next);
            self.seconds += next - at;
            if self.seconds > 4.0 {
                (self.bits, self.seconds) = (self.bits / 2.0, self.seconds / 2.0);
            }
            at = next;
        }
        self.bits / self.seconds.max(0.001)
    }
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

    /// Called before each segment: one of those that are buffered to fetch again, and the level to fetch it at.
    fn replace(&mut self, view: &View<'_>, buffered: &[Buffered]) -> Option<(usize, usize)> {
        let _ = (view, buffered);
        None
    }

    /// A segment was replaced, as `replace` has chosen.
    fn handle_replaced(&mut self, id: u64) {
        let _ = id;
    }

    /// Called each half second of a replacement, which plays in `starts_in` seconds.
    fn keeps_replacing(&mut self, view: &View<'_>, left: f64, rate: f64, starts_in: f64) -> bool {
        let _ = (view, left, rate);
        starts_in > 0.0
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Per second of media.
    pub(crate) quality: f64,
    /// Seconds without audio, after the start.
    pub(crate) stalled: f64,
    pub(crate) switches: f64,
    /// Bits that were fetched and not played.
    pub(crate) wasted: f64,
    /// Segments that were replaced.
    pub(crate) replaced: f64,
    /// Bits.
    pub(crate) played: f64,
    /// Seconds of media.
    pub(crate) media: f64,
    /// Seconds without audio inside the first segment, if the application plays it while it arrives.
    pub(crate) early: f64,
}

/// Weights: 8 for a second of rebuffering, 2 for a second until the start, 0.5 for a step of an octave.
pub(crate) fn score(video: &Video, levels: &[usize], stalled: f64, startup: f64) -> f64 {
    let value: f64 = levels.iter().map(|level| video.value(*level) * video.segment).sum();
    let change: f64 = levels.windows(2).map(|pair| (video.value(pair[1]) - video.value(pair[0])).abs()).sum();
    (value - 8.0 * stalled - 2.0 * startup - 0.5 * change) / (video.segments as f64 * video.segment)
}

pub(crate) fn simulate(video: &Video, trace: &Trace, player: &mut dyn Player) -> Figures {
    let mut session = Session {
        video,
        trace,
        now: 0.0,
        buffered: 0.0,
        levels: Vec::new(),
        stalled: 0.0,
        startup: 0.0,
        early: 0.0,
        meter: Meter::default(),
        wasted: 0.0,
        replaced: 0.0,
    };
    while session.levels.len() < video.segments {
        while session.replace(player) {}
        session.wait_for_room(player.capacity(video));
        session.fetch_next(player);
    }
    while session.replace(player) {}
    session.figures()
}

/// A player from its start to its last segment.
struct Session<'a> {
    video: &'a Video,
    trace: &'a Trace,
    now: f64,
    /// Seconds that are buffered.
    buffered: f64,
    /// Levels of the segments so far. Those that have not begun to play may still be replaced.
    levels: Vec<usize>,
    stalled: f64,
    startup: f64,
    /// Seconds without audio inside the first segment.
    early: f64,
    meter: Meter,
    /// Bits of segments that were cancelled or replaced.
    wasted: f64,
    replaced: f64,
}

impl Session<'_> {
    fn view(&self) -> View<'_> {
        let (now, buffered) = (self.now, self.buffered);
        let current = self.levels.last().copied();
        let index = self.levels.len();
        View { video: self.video, now, buffered, current, index, is_starting: current.is_none() }
    }

    /// What a transfer that has ended at `end` has shown of the network.
    fn transfer(&mut self, bits: f64, first: f64, end: f64) -> Transfer {
        let recent = self.meter.receive(self.trace, first, end);
        Transfer { bits, seconds: end - first, recent, latency: self.video.latency }
    }

    fn play_until(&mut self, now: f64) {
        let passed = now - self.now;
        if !self.levels.is_empty() {
            self.stalled += (passed - self.buffered).max(0.0);
            self.buffered = (self.buffered - passed).max(0.0);
        }
        self.now = now;
    }

    fn wait_for_room(&mut self, capacity: f64) {
        let room = (capacity - self.video.segment).max(0.0);
        if self.buffered > room {
            self.play_until(self.now + self.buffered - room);
        }
    }

    fn fetch_next(&mut self, player: &mut dyn Player) {
        let video = self.video;
        let mut level = player.choose(&self.view()).min(video.bitrates.len() - 1);
        let mut begun = self.now;
        let mut early = Early::default();
        loop {
            let first = begun + video.latency;
            let bits = video.size(level, self.levels.len());
            let end = self.trace.arrival(first, bits);
            let request = Request { level, bits, asked: self.now, first, end, buffered: self.buffered };
            let abandoned = abandoned(video, self.trace, player, &request, self.levels.len());
            early.receive(video, self.trace, &request, abandoned.map_or(end, |(at, ..)| at));
            match abandoned {
                Some((at, other, bits)) => {
                    self.wasted += bits;
                    let transfer = self.transfer(bits, first, at);
                    player.handle(&transfer, at);
                    (begun, level) = (at, other);
                }
                None => {
                    let transfer = self.transfer(bits, first, end);
                    player.handle(&transfer, end);
                    self.play_until(end);
                    break;
                }
            }
        }
        if self.levels.is_empty() {
            (self.startup, self.early) = (self.now, early.waited);
        }
        self.buffered += video.segment;
        self.levels.push(level);
    }

    /// Fetches a segment again that is buffered, if the player wants to. False if it does not.
    fn replace(&mut self, player: &mut dyn Player) -> bool {
        let video = self.video;
        let starts_in =
            |index: usize, len: usize, buffered: f64| buffered - (len - index) as f64 * video.segment;
        let len = self.levels.len();
        let buffered: Vec<Buffered> = (0..len)
            .map(|index| Buffered {
                id: index as u64,
                level: self.levels[index],
                starts_in: starts_in(index, len, self.buffered),
            })
            .filter(|segment| segment.starts_in >= 0.0)
            .collect();
        let Some((index, level)) = player.replace(&self.view(), &buffered) else { return false };
        let index = len - buffered.len() + index;
        let first = self.now + video.latency;
        let bits = video.size(level, index);
        let end = self.trace.arrival(first, bits);
        let mut at = first;
        while at + 0.5 < end {
            at += 0.5;
            self.play_until(at);
            let come = self.trace.bits_between(first, at);
            let left = bits - come;
            let due = starts_in(index, len, self.buffered);
            if !player.keeps_replacing(&self.view(), left, come / (at - first), due) {
                self.wasted += come;
                let transfer = self.transfer(come, first, at);
                player.handle(&transfer, at);
                return true;
            }
        }
        self.play_until(end);
        let transfer = self.transfer(bits, first, end);
        player.handle(&transfer, end);
        if starts_in(index, len, self.buffered) < 0.0 {
            self.wasted += bits;
        } else {
            self.wasted += video.size(self.levels[index], index);
            self.levels[index] = level;
            self.replaced += 1.0;
            player.handle_replaced(index as u64);
        }
        true
    }

    fn figures(&self) -> Figures {
        let (video, levels) = (self.video, &self.levels);
        Figures {
            quality: score(video, levels, self.stalled, self.startup),
            stalled: self.stalled,
            switches: levels.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64,
            wasted: self.wasted,
            replaced: self.replaced,
            played: levels.iter().enumerate().map(|(index, level)| video.size(*level, index)).sum(),
            media: video.segments as f64 * video.segment,
            early: self.early,
        }
    }
}

/// An application that plays the first segment while it arrives.
#[derive(Default)]
struct Early {
    /// When the first byte of any transfer came.
    began: Option<f64>,
    /// Seconds of the segment that have arrived.
    arrived: f64,
    waited: f64,
}

impl Early {
    /// A transfer of the segment, up to `end`. What an earlier one has brought was played from it.
    fn receive(&mut self, video: &Video, trace: &Trace, request: &Request, end: f64) {
        let began = *self.began.get_or_insert(request.first);
        let bitrate = request.bits / video.segment;
        let mut at = request.first;
        while at < end {
            self.arrived = self.arrived.max(trace.bits_between(request.first, at) / bitrate);
            // What plays without a gap has played as much as there was time for.
            self.waited = self.waited.max(at - began - self.arrived);
            at += 0.05;
        }
    }
}

/// A transfer that runs.
struct Request {
    level: usize,
    bits: f64,
    /// When the segment was asked for, when its first byte came, and when its last one will.
    asked: f64,
    first: f64,
    end: f64,
    /// Seconds that were buffered when it was asked for.
    buffered: f64,
}

/// When a transfer is cancelled, for which level, and how many bits had arrived.
fn abandoned(
    video: &Video,
    trace: &Trace,
    player: &mut dyn Player,
    request: &Request,
    index: usize,
) -> Option<(f64, usize, f64)> {
    let Request { level, bits, asked, first, end, buffered } = *request;
    let mut at = first + 0.5;
    while at < end {
        let come = trace.bits_between(first, at);
        let left = bits - come;
        let view = View {
            video,
            now: at,
            buffered: (buffered - (at - asked)).max(0.0),
            current: Some(level),
            index,
            is_starting: index == 0,
        };
        if let Some(other) = player.abandon(&view, left, come / (at - first)).filter(|other| *other < level) {
            return Some((at, other, come));
        }
        at += 0.5;
    }
    None
}

/// Seconds of a step of the dynamic programming.
const STEP: f64 = 0.25;

/// Where a choice of levels leads.
#[derive(Clone, Copy)]
struct Path {
    now: f64,
    buffered: f64,
    score: f64,
}

impl Path {
    /// Adds a segment of level `to` after one of level `from`.
    fn fetch(
        self,
        video: &Video,
        trace: &Trace,
        capacity: f64,
        index: usize,
        (from, to): (usize, usize),
    ) -> Self {
        let wait = (self.buffered - (capacity - video.segment)).max(0.0);
        let begun = self.now + wait;
        let end = trace.arrival(begun + video.latency, video.size(to, index));
        let left = self.buffered - wait - (end - begun);
        let change = (video.value(to) - video.value(from)).abs();
        let score = self.score + video.value(to) * video.segment - 8.0 * (-left).max(0.0) - 0.5 * change;
        Self { now: end, buffered: left.max(0.0) + video.segment, score }
    }
}

/// The best that is possible if the network is foreseen: over segments, levels and times in steps of 0.25 s. Of paths that
/// meet in a step only the best one so far is followed, so the figure is approximate.
pub(crate) fn optimum(video: &Video, trace: &Trace, capacity: f64) -> f64 {
    let levels = video.bitrates.len();
    let mut paths: Vec<BTreeMap<i64, Path>> = vec![Default::default(); levels];
    for (level, paths) in paths.iter_mut().enumerate() {
        let end = trace.arrival(video.latency, video.size(level, 0));
        let score = video.value(level) * video.segment - 2.0 * end;
        paths.insert((end / STEP) as i64, Path { now: end, buffered: video.segment, score });
    }
    for index in 1..video.segments {
        let mut next: Vec<BTreeMap<i64, Path>> = vec![Default::default(); levels];
        for (from, path) in
            paths.iter().enumerate().flat_map(|(from, paths)| paths.values().map(move |path| (from, path)))
        {
            for (to, next) in next.iter_mut().enumerate() {
                let path = path.fetch(video, trace, capacity, index, (from, to));
                let known = next.entry((path.now / STEP) as i64).or_insert(path);
                if path.score > known.score {
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
