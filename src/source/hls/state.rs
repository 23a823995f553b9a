//! What a player has, and what to fetch next: a plain machine. Facts come in by `handle_*`, answers go out by `plan`, `read`
//! and `next_section`; time is an argument.
//!
//! ```text
//!   levels ── timelines ──▶ slots: the segments to play, in order ──▶ sections ──▶ reader
//!                │            planned ─▶ fetching ─▶ complete
//!                │                ▲          │ failed: reload, other level, skip
//!                └─ playlist ◀────┴──────────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::config::{HlsConfig, Quality};
use super::demux::{Frame, Output, join};
use super::event::HlsEvent;
use super::levels::Level;
use super::pipeline::{Cipher, Pipeline, choose_key, decrypt, iv_of};
use super::playlist::{Key, KeyMethod, MediaPlaylist, Segment};
use super::policy::UriPolicy;
use super::section::{Discontinuity, SectionBuffer, SectionInfo};
use super::timeline::{Clock, Piece, Place, Placement, Timeline, Version};
use crate::abr::{Abr, Estimator, Hybrid, Running, Situation};
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;
use crate::types::{ByteRange, Priority, RequestId};

/// A segment that the reader needs within this time is urgent.
const URGENT: Duration = Duration::from_secs(10);

/// Segments that are fetched at the same time: while one arrives, the next one's request is on its way.
const AT_ONCE: usize = 2;

/// How long a level that failed is not used (Media3 excludes tracks for as long).
const EXCLUSION: Duration = Duration::from_secs(60);

/// Segments that are skipped one after the other, before the error is returned to the reader.
const MOST_SKIPPED: u32 = 3;

/// How often a playlist is loaded again because of one segment: a URL may expire again before it is used.
const MOST_RELOADS: u32 = 3;

/// Keys and initialization sections that are kept.
const MOST_RESOURCES: usize = 64;

#[derive(Debug)]
pub(super) struct State {
    config: HlsConfig,
    policy: UriPolicy,
    pub(super) levels: Vec<Level>,
    bitrates: Vec<u64>,
    /// The level of the next segment.
    pub(super) level: usize,
    timelines: Vec<Option<Timeline>>,
    /// A playlist that is needed, and whether it is being fetched.
    wanted: Option<(usize, bool)>,
    /// Number of playlists that `plan` has requested.
    requested: u64,
    /// Where the next slot starts.
    cursor: Duration,
    /// The place behind the last slot, in the playlist of its level.
    follows: Option<(usize, Place)>,
    slots: VecDeque<Slot>,
    next_slot: u64,
    resources: HashMap<ResourceKey, Loadable>,
    clock: Clock,
    /// The beginning of a frame that ends in the slot at this place of this level.
    carried: Option<(usize, Place, Vec<u8>)>,
    sections: VecDeque<SectionBuffer>,
    next_section: u64,
    /// The next section to hand out.
    handed: u64,
    /// Why the next section begins.
    pending: Option<Discontinuity>,
    /// The time that a seek asked for.
    target: Duration,
    /// Presentation time of the reader, while no section says it.
    reader_time: Duration,
    skipped: u32,
    /// Fetching has stopped with this error, until a call returns it.
    error: Option<Error>,
    /// `plan` had nothing to do.
    is_idle: bool,
    abr: Choice,
    estimator: Estimator,
    /// What has to be published once the lock is released.
    events: Vec<HlsEvent>,
}

/// What chooses the level.
struct Choice(Option<Box<dyn Abr>>);

impl Choice {
    fn new(quality: &Quality) -> Self {
        Self(match quality {
            Quality::Auto(config) => Some(Box::new(Hybrid::new(config.clone()))),
            Quality::Custom(make) => Some(make.make()),
            Quality::Fixed(_) => None,
        })
    }
}

/// A segment to play.
#[derive(Debug)]
struct Slot {
    id: u64,
    level: usize,
    place: Place,
    /// What follows it in its playlist.
    next: Place,
    start: Duration,
    segment: Segment,
    needs: Needs,
    phase: SlotPhase,
    request: Option<RequestId>,
    priority: Priority,
    /// Frames that wait for the slots before.
    output: Output,
    /// The beginning of a frame that ends in the next slot.
    tail: Vec<u8>,
    /// How often its playlist was loaded again because of it.
    reloads: u32,
    /// Playlists requested before it failed: what they bring may have expired as well.
    requested_before: u64,
    parked: Option<Parked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotPhase {
    Planned,
    Fetching,
    /// Waits until its playlist was loaded again.
    Reloading,
    Complete,
    /// Nothing of it will be played.
    Skipped,
}

/// What places the frames of a slot in time.
#[derive(Clone, Copy, Debug)]
struct SlotTime {
    id: u64,
    start: Duration,
    discontinuity: u64,
}

/// A body that arrived before the key or the initialization section that it needs.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) raw: Vec<u8>,
    pub(super) position: u64,
}

/// What a segment needs besides its own bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    key: Option<KeyUse>,
    init: Option<ResourceKey>,
}

/// A key, and how one resource uses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KeyUse {
    url: Url,
    method: KeyMethod,
    iv: [u8; 16],
}

/// A resource that segments share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResourceKey {
    pub(super) url: Url,
    pub(super) range: Option<ByteRange>,
    /// How it is encrypted: the same bytes under another key are another resource.
    key: Option<Box<KeyUse>>,
}

#[derive(Debug)]
enum Loadable {
    Fetching,
    /// Never shown: it may be a key.
    Ready(Secret),
}

struct Secret(Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Auto" } else { "Fixed" })
    }
}

/// What to fetch next.
#[derive(Debug)]
pub(super) enum Planned {
    Playlist { level: usize, url: Url },
    Resource { key: ResourceKey, priority: Priority },
    Segment { slot: u64, url: Url, range: Option<ByteRange>, needs: Box<Needs>, priority: Priority },
}

/// What a read came to.
#[derive(Debug)]
pub(super) enum ReadResult {
    Bytes(usize),
    /// The end of the section.
    End,
    /// Nothing is there yet. This fetch, if any, should become urgent.
    Wait(Option<RequestId>),
    Failed(Error),
}

#[derive(Debug)]
pub(super) enum SectionResult {
    Section(u64, SectionInfo),
    End,
    Wait(Option<RequestId>),
    Failed(Error),
}

impl State {
    /// A player of `levels`, with the playlist of one of them.
    pub(super) fn new(config: HlsConfig, levels: Vec<Level>, level: usize, timeline: Timeline) -> Self {
        let policy = UriPolicy { allow_http: config.allow_http, allow_private: config.allow_private };
        let abr = Choice::new(&config.quality);
        let start = start_of(&timeline, &config);
        let mut timelines: Vec<Option<Timeline>> = levels.iter().map(|_| None).collect();
        timelines[level] = Some(timeline);
        Self {
            policy,
            bitrates: levels.iter().map(|level| level.info.bandwidth).collect(),
            config,
            levels,
            level,
            timelines,
            wanted: None,
            requested: 0,
            cursor: start,
            follows: None,
            slots: VecDeque::new(),
            next_slot: 0,
            resources: HashMap::new(),
            clock: Clock::default(),
            carried: None,
            sections: VecDeque::new(),
            next_section: 0,
            handed: 0,
            pending: Some(Discontinuity::Start),
            target: start,
            reader_time: start,
            skipped: 0,
            error: None,
            is_idle: false,
            abr,
            estimator: Estimator::default(),
            events: Vec::new(),
        }
    }

    /// The level to start with.
    pub(super) fn first_level(config: &HlsConfig, levels: &[Level]) -> usize {
        let bitrates: Vec<u64> = levels.iter().map(|level| level.info.bandwidth).collect();
        let chosen = match &config.quality {
            Quality::Fixed(index) => *index,
            Quality::Auto(_) | Quality::Custom(_) => {
                let situation = Situation::new(&bitrates, Duration::from_secs(6), config.buffer);
                let abr = Choice::new(&config.quality).0;
                abr.map_or(0, |mut abr| abr.choose(Instant::now(), &situation))
            }
        };
        chosen.min(levels.len() - 1)
    }
}

/// Where to start: the caller's wish, then the playlist's (section 4.4.2.2), then the beginning or the live edge.
fn start_of(timeline: &Timeline, config: &HlsConfig) -> Duration {
    let list = &timeline.list;
    let end = timeline.edge();
    let live_edge = end.saturating_sub(hold_back(list, config)).max(timeline.start());
    let start = match (config.start, list.start) {
        (Some(start), _) => start,
        (None, Some(start)) if start.is_from_end => end.saturating_sub(start.offset),
        (None, Some(start)) => timeline.start() + start.offset,
        (None, None) if list.is_ended => timeline.start(),
        (None, None) => return live_edge,
    };
    // Section 6.3.3: a live stream must not start closer to its end than that.
    let latest = if list.is_ended { end } else { live_edge };
    start.clamp(timeline.start(), latest.max(timeline.start()))
}

/// Distance from the end of a live stream (section 4.4.3.8).
pub(super) fn hold_back(list: &MediaPlaylist, config: &HlsConfig) -> Duration {
    let control = list.server_control;
    let for_parts = list.part_target.and(control.part_hold_back);
    config.hold_back.or(for_parts).or(control.hold_back).unwrap_or(list.target_duration * 3)
}

/// Planning.
impl State {
    /// The next fetch, if there is one that is urgent enough.
    pub(super) fn plan(&mut self, now: Instant, admissible: Priority) -> Option<Planned> {
        if self.error.is_some() {
            return None;
        }
        self.extend(now);
        self.want_reload();
        if let Some((level, is_fetching @ false)) = &mut self.wanted {
            *is_fetching = true;
            self.requested += 1;
            let level = *level;
            return Some(Planned::Playlist { level, url: self.levels[level].url.clone() });
        }
        let running = self.slots.iter().filter(|slot| slot.phase == SlotPhase::Fetching).count();
        let waiting = self.slots.iter().position(|slot| slot.phase == SlotPhase::Planned);
        let Some(index) = waiting.filter(|_| running < AT_ONCE) else {
            self.is_idle = true;
            return None;
        };
        let priority = self.priority_of(index);
        if priority < admissible {
            return None;
        }
        match self.plan_slot(index, priority) {
            Ok(planned) => Some(planned),
            Err(error) => {
                let slot = self.slots[index].id;
                self.handle_segment_failed(slot, error, now);
                self.plan(now, admissible)
            }
        }
    }

    /// Asks for the playlist of a segment that has expired. That of a live level is loaded again anyway.
    fn want_reload(&mut self) {
        let (level, is_live) = (self.level, self.is_live());
        let is_due = |slot: &&Slot| slot.phase == SlotPhase::Reloading && (!is_live || slot.level != level);
        if self.wanted.is_none() {
            self.wanted = self.slots.iter().find(is_due).map(|slot| (slot.level, false));
        }
    }

    fn priority_of(&self, index: usize) -> Priority {
        let is_urgent = self.slots[index].start.saturating_sub(self.reader_time()) < URGENT;
        if is_urgent { Priority::High } else { Priority::Low }
    }

    /// The priority of what `plan` would return.
    pub(super) fn next_priority(&self) -> Priority {
        let waiting = self.slots.iter().position(|slot| slot.phase == SlotPhase::Planned);
        match waiting {
            Some(index) => self.priority_of(index),
            None if self.wanted.is_some() => Priority::High,
            None if self.cursor.saturating_sub(self.reader_time()) < URGENT => Priority::High,
            None => Priority::Low,
        }
    }

    /// What a slot needs first: its key and its initialization section are requested before it, and arrive beside it.
    fn plan_slot(&mut self, index: usize, priority: Priority) -> Result<Planned, Error> {
        let slot = &self.slots[index];
        let timeline = self.timelines[slot.level].as_ref();
        let base = timeline.map_or(&self.levels[slot.level].url, |timeline| &timeline.url).clone();
        let needs = needs_of(&slot.segment, slot.place.sequence, &base, self.policy)?;
        let url = self.policy.resolve(&base, &slot.segment.uri)?;
        for key in needs.resources() {
            if !self.resources.contains_key(&key) {
                self.resources.insert(key.clone(), Loadable::Fetching);
                return Ok(Planned::Resource { key, priority });
            }
        }
        let slot = &mut self.slots[index];
        slot.phase = SlotPhase::Fetching;
        slot.priority = priority;
        slot.needs = needs.clone();
        let (slot, range) = (slot.id, slot.segment.byte_range);
        Ok(Planned::Segment { slot, url, range, needs: Box::new(needs), priority })
    }

    /// Adds slots until enough is planned.
    fn extend(&mut self, now: Instant) {
        while self.has_room() {
            let chosen = self.choose(now);
            if self.timelines[chosen].is_some() {
                self.switch(chosen);
            } else {
                self.wanted.get_or_insert((chosen, false));
                // Until its playlist is there, the last level continues, unless it has failed.
                if !self.levels[self.level].is_usable(now) {
                    return;
                }
            }
            if !self.add_slot() {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        let planned = self.slots.iter().filter(|slot| slot.phase == SlotPhase::Planned).count();
        let ahead = self.cursor.saturating_sub(self.reader_time());
        planned == 0 && ahead < self.config.buffer && self.buffered_bytes() < self.config.buffer_bytes
    }

    fn choose(&mut self, now: Instant) -> usize {
        let current = self.follows.map(|_| self.level);
        let situation = situation(&self.bitrates, self.target_duration(), &self.config, &self.estimator);
        let buffered = self.cursor.saturating_sub(self.reader_time());
        let situation = Situation { current, buffered, ..situation };
        let chosen = match (&mut self.abr.0, &self.config.quality) {
            (Some(abr), _) => abr.choose(now, &situation).min(self.levels.len() - 1),
            (None, Quality::Fixed(index)) => (*index).min(self.levels.len() - 1),
            (None, Quality::Auto(_) | Quality::Custom(_)) => self.level,
        };
        if self.levels[chosen].is_usable(now) {
            chosen
        } else {
            self.nearest_usable(chosen, now).unwrap_or(self.level)
        }
    }

    fn target_duration(&self) -> Duration {
        self.timelines[self.level].as_ref().map_or(Duration::ZERO, |timeline| timeline.list.target_duration)
    }

    /// A lower level from whose segment the reader gets audio earlier than from the one that is arriving, of which so many
    /// bytes are left at so many bytes a second. It is used from here on. True if there is one.
    pub(super) fn abandon(&mut self, now: Instant, slot: u64, left: u64, rate: f64) -> bool {
        let Some(slot) = self.slots.iter().find(|known| known.id == slot) else { return false };
        let (start, level) = (slot.start, slot.level);
        let situation = situation(&self.bitrates, self.target_duration(), &self.config, &self.estimator);
        let buffered = start.saturating_sub(self.reader_time());
        let situation = Situation { current: Some(level), buffered, ..situation };
        let Some(abr) = &mut self.abr.0 else { return false };
        let running = Running::new(left, rate * 8.0);
        let other = abr.abandon(now, &situation, &running).filter(|other| *other < level);
        let Some(other) = other.filter(|other| self.levels[*other].is_usable(now)) else { return false };
        self.estimator.handle_transfer(rate as u64, Duration::from_secs(1), self.estimator.ttfb());
        self.events.push(HlsEvent::Abandoned { level, at: start });
        self.restart_at(start, other);
        true
    }

    /// The usable level that is nearest to `level`; a lower one if two are.
    fn nearest_usable(&self, level: usize, now: Instant) -> Option<usize> {
        let usable =
            (0..self.levels.len()).filter(|other| *other != level && self.levels[*other].is_usable(now));
        usable.min_by_key(|other| (other.abs_diff(level), *other))
    }

    /// Adds the segment that follows. False if there is none yet.
    fn add_slot(&mut self) -> bool {
        let Some(timeline) = &self.timelines[self.level] else { return false };
        let list = Arc::clone(&timeline.list);
        let mut place = match self.follows {
            Some((level, place)) if level == self.level => place,
            // Behind the end of a finished playlist nothing follows.
            _ if self.cursor >= timeline.edge() => return false,
            Some(_) => Place { sequence: timeline.sequence_from(self.cursor), part: 0 },
            None => timeline.place_at(self.cursor),
        };
        if place.sequence < list.media_sequence {
            // Section 6.3.5: the segment has left the playlist.
            let start = start_of(timeline, &HlsConfig { start: None, ..self.config.clone() });
            self.pending = Some(Discontinuity::Behind(start.saturating_sub(self.cursor)));
            place = timeline.place_at(start);
        }
        let Some(Piece { segment, start, next }) = timeline.piece(place) else {
            if list.is_ended {
                // The levels end at slightly different times.
                self.cursor = self.cursor.max(timeline.end());
                self.commit();
            }
            return false;
        };
        self.cursor = start + segment.duration;
        self.follows = Some((self.level, next));
        let phase = if segment.is_gap { SlotPhase::Skipped } else { SlotPhase::Planned };
        let id = self.next_slot;
        self.next_slot += 1;
        self.slots.push_back(Slot {
            id,
            level: self.level,
            place,
            next,
            start,
            segment,
            needs: Needs::default(),
            phase,
            request: None,
            priority: Priority::Low,
            output: Output::default(),
            tail: Vec::new(),
            reloads: 0,
            requested_before: 0,
            parked: None,
        });
        self.commit();
        true
    }

    fn buffered_bytes(&self) -> usize {
        let sections: usize = self.sections.iter().map(SectionBuffer::len).sum();
        sections + self.slots.iter().map(|slot| slot.output.data.len()).sum::<usize>()
    }
}

/// What is known without regard to a segment.
fn situation<'a>(
    bitrates: &'a [u64],
    segment: Duration,
    config: &HlsConfig,
    estimator: &Estimator,
) -> Situation<'a> {
    let mut situation = Situation::new(bitrates, segment, config.buffer);
    situation.throughput = estimator.throughput();
    situation.ttfb = estimator.ttfb();
    situation
}

impl Needs {
    fn resources(&self) -> impl Iterator<Item = ResourceKey> {
        let key_of = |key: &KeyUse| ResourceKey { url: key.url.clone(), range: None, key: None };
        let init_key = self.init.as_ref().and_then(|init| init.key.as_deref().map(key_of));
        init_key.into_iter().chain(self.init.clone()).chain(self.key.as_ref().map(key_of))
    }
}

fn needs_of(segment: &Segment, sequence: u64, base: &Url, policy: UriPolicy) -> Result<Needs, Error> {
    let key_use = |keys: &[Key]| -> Result<Option<KeyUse>, Error> {
        let Some(key) = choose_key(keys)? else { return Ok(None) };
        let url = policy.resolve(base, &key.uri)?;
        Ok(Some(KeyUse { url, method: key.method.clone(), iv: iv_of(key, sequence) }))
    };
    let init = match &segment.map {
        Some(map) => {
            // Of these methods only AES-128 encrypts the initialization section (section 4.4.4.4).
            let key = key_use(&map.keys)?.filter(|key| key.method == KeyMethod::Aes128).map(Box::new);
            Some(ResourceKey { url: policy.resolve(base, &map.uri)?, range: map.byte_range, key })
        }
        None => None,
    };
    Ok(Needs { key: key_use(&segment.keys)?, init })
}

/// What fetches have brought.
impl State {
    pub(super) fn handle_accepted(&mut self, slot: u64, request: RequestId) {
        if let Some(slot) = self.slot(slot) {
            slot.request = Some(request);
        }
    }

    /// Starts the pipeline of a segment, if all that it needs has arrived.
    pub(super) fn pipeline(&self, needs: &Needs, position: u64) -> Result<Option<Pipeline>, Error> {
        let cipher = |key: &KeyUse| {
            let resource = ResourceKey { url: key.url.clone(), range: None, key: None };
            let bytes = self.ready(&resource)?;
            Some(Cipher { method: key.method.clone(), key: bytes, iv: key.iv })
        };
        let segment_cipher = match &needs.key {
            Some(key) => match cipher(key) {
                Some(cipher) => Some(cipher),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(init) = &needs.init else {
            return Pipeline::new(segment_cipher.as_ref(), None, position).map(Some);
        };
        let Some(bytes) = self.ready(init) else { return Ok(None) };
        let plain = match &init.key {
            Some(key) => match cipher(key) {
                Some(cipher) => decrypt(&cipher, &bytes)?,
                None => return Ok(None),
            },
            None => bytes.to_vec(),
        };
        Pipeline::new(segment_cipher.as_ref(), Some(&plain), position).map(Some)
    }

    fn ready(&self, key: &ResourceKey) -> Option<Arc<[u8]>> {
        match self.resources.get(key)? {
            Loadable::Ready(bytes) => Some(Arc::clone(&bytes.0)),
            Loadable::Fetching => None,
        }
    }

    /// Takes frames of a segment. Leaves `output` empty. False if the segment is not needed any more.
    pub(super) fn handle_frames(&mut self, slot: u64, output: &mut Output) -> bool {
        let slot = self.slot(slot);
        let is_needed = slot.is_some();
        if let Some(slot) = slot {
            slot.output.data.append(&mut output.data);
            slot.output.frames.append(&mut output.frames);
            slot.output.head.append(&mut output.head);
            slot.tail.append(&mut output.tail);
        }
        output.clear();
        self.commit();
        is_needed
    }

    /// All frames of a segment have come.
    pub(super) fn handle_segment_complete(&mut self, slot: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.phase = SlotPhase::Complete;
        }
        self.skipped = 0;
        self.commit();
    }

    /// A body has arrived that can't be read yet.
    pub(super) fn handle_parked(&mut self, slot: u64, parked: Parked) {
        if let Some(slot) = self.slot(slot) {
            slot.parked = Some(parked);
        }
    }

    /// Takes a parked body back if all that it needs has arrived by now.
    pub(super) fn take_parked_if_ready(&mut self, slot: u64) -> Option<Parked> {
        let needs = self.slot(slot)?.needs.clone();
        let is_ready = needs.resources().all(|key| self.ready(&key).is_some());
        if is_ready { self.slot(slot)?.parked.take() } else { None }
    }

    /// A transfer has ended.
    pub(super) fn handle_transfer(&mut self, bytes: u64, duration: Duration, ttfb: Duration) {
        self.estimator.handle_transfer(bytes, duration, ttfb);
    }

    /// A key or an initialization section has arrived. Returns the bodies that waited for it.
    pub(super) fn handle_resource(&mut self, key: ResourceKey, bytes: Vec<u8>) -> Vec<(u64, Needs, Parked)> {
        if self.resources.len() > MOST_RESOURCES {
            let used: Vec<ResourceKey> = self.slots.iter().flat_map(|slot| slot.needs.resources()).collect();
            self.resources
                .retain(|key, loadable| matches!(loadable, Loadable::Fetching) || used.contains(key));
        }
        self.resources.insert(key, Loadable::Ready(Secret(Arc::from(bytes))));
        let parked = |slot: &mut Slot| Some((slot.id, slot.needs.clone(), slot.parked.take()?));
        self.slots.iter_mut().filter_map(parked).collect()
    }

    /// A key or an initialization section can't be fetched: neither can the segments that need it.
    pub(super) fn handle_resource_failed(&mut self, key: &ResourceKey, error: &Error, now: Instant) {
        self.resources.remove(key);
        let needs = |slot: &&Slot| {
            slot.phase == SlotPhase::Planned || slot.needs.resources().any(|need| need == *key)
        };
        if let Some(slot) = self.slots.iter().find(needs).map(|slot| slot.id) {
            self.handle_segment_failed(slot, error.clone(), now);
        }
    }

    /// A segment can't be fetched or read. In this order: its playlist is loaded again, because URLs expire; another level is
    /// used from here on; the segment is skipped. An error of the network stops fetching until a call has returned it.
    pub(super) fn handle_segment_failed(&mut self, slot: u64, error: Error, now: Instant) {
        let requested = self.requested;
        let Some(slot) = self.slot(slot) else { return };
        (slot.request, slot.parked) = (None, None);
        slot.output.clear();
        slot.tail.clear();
        let (start, level) = (slot.start, slot.level);
        if error.is_cancelled() || (error.is_retryable() && error.status().is_none()) {
            slot.phase = SlotPhase::Planned;
            self.error.get_or_insert(error);
            return;
        }
        let is_expired = matches!(error.status(), Some(401 | 403 | 404 | 410));
        if is_expired && slot.reloads < MOST_RELOADS {
            slot.reloads += 1;
            slot.requested_before = requested;
            slot.phase = SlotPhase::Reloading;
            return;
        }
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
        if let Some(other) = self.nearest_usable(level, now) {
            self.restart_at(start, other);
            return;
        }
        self.skip(start, error);
    }

    /// Drops the slots from `start` on, and continues there with another level.
    fn restart_at(&mut self, start: Duration, level: usize) {
        self.slots.retain(|slot| slot.start < start);
        self.cursor = start;
        self.follows = self.slots.back().map(|slot| (slot.level, slot.next));
        if self.timelines[level].is_some() {
            self.switch(level);
        } else {
            self.wanted = Some((level, false));
        }
    }

    /// Fetches another level from the next slot on.
    fn switch(&mut self, to: usize) {
        let from = std::mem::replace(&mut self.level, to);
        if from != to {
            self.events.push(HlsEvent::Switched { from, to, at: self.cursor });
        }
    }

    pub(super) fn take_events(&mut self) -> Vec<HlsEvent> {
        std::mem::take(&mut self.events)
    }

    fn skip(&mut self, start: Duration, error: Error) {
        self.skipped += 1;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.start == start) {
            slot.phase = SlotPhase::Skipped;
            let duration = slot.segment.duration;
            self.events.push(HlsEvent::Skipped { at: start, duration, error: error.clone() });
        }
        if self.skipped > MOST_SKIPPED {
            self.skipped = 0;
            self.error.get_or_insert(error);
        }
        self.commit();
    }

    /// A playlist has arrived. True if it brings something new.
    pub(super) fn handle_playlist(&mut self, level: usize, list: MediaPlaylist, url: Url) -> bool {
        // The thread of a live stream requests playlists too, and those are not counted.
        let mut number = u64::MAX;
        if self.wanted.is_some_and(|(wanted, _)| wanted == level) {
            self.wanted = None;
            number = self.requested;
        }
        let mut is_new = true;
        let timeline = match (&self.timelines[level], &self.timelines[self.level]) {
            (Some(own), _) => match own.compare(&list) {
                Version::Older => return false,
                Version::Restarted => return self.restart_playlist(level, list, url),
                Version::Newer { has_changed } => {
                    is_new = has_changed;
                    own.update(list, url)
                }
            },
            (None, Some(current)) => current.other(list, url),
            (None, None) => Timeline::new(list, url, self.cursor),
        };
        let is_fresh = |slot: &&mut Slot| {
            slot.level == level && slot.phase == SlotPhase::Reloading && slot.requested_before < number
        };
        for slot in self.slots.iter_mut().filter(is_fresh) {
            slot.phase = SlotPhase::Planned;
            if let Some(piece) = timeline.piece(slot.place) {
                slot.segment = piece.segment;
            }
        }
        self.timelines[level] = Some(timeline);
        self.commit();
        is_new
    }

    /// The server has started its playlist again (section 6.2.2 forbids it): what is fetched is played, and then it continues
    /// at the new live edge.
    fn restart_playlist(&mut self, level: usize, list: MediaPlaylist, url: Url) -> bool {
        let timeline = Timeline::new(list, url, self.cursor);
        if level == self.level {
            self.slots.retain(|slot| slot.phase != SlotPhase::Reloading);
            self.cursor = start_of(&timeline, &HlsConfig { start: None, ..self.config.clone() });
            self.follows = None;
            self.pending = Some(Discontinuity::Reset);
        }
        self.timelines[level] = Some(timeline);
        self.commit();
        true
    }

    /// A playlist can't be fetched or read.
    pub(super) fn handle_playlist_failed(&mut self, level: usize, error: Error, now: Instant) {
        if self.wanted.is_some_and(|(wanted, _)| wanted == level) {
            self.wanted = None;
        }
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
        let waiting =
            self.slots.iter().find(|slot| slot.level == level && slot.phase == SlotPhase::Reloading);
        if let Some(slot) = waiting.map(|slot| slot.id) {
            self.handle_segment_failed(slot, error, now);
        } else if self.timelines[self.level].is_none() {
            self.error.get_or_insert(error);
        }
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }
}

/// From slots to sections.
impl State {
    /// Moves the frames of the first slots into sections.
    fn commit(&mut self) {
        while let Some(slot) = self.slots.front_mut() {
            let output = std::mem::take(&mut slot.output);
            let (phase, duration, end) =
                (slot.phase, slot.segment.duration, slot.start + slot.segment.duration);
            if phase == SlotPhase::Skipped {
                if self.sections.iter().all(|section| section.len() == 0) {
                    // Nothing is left to read before the gap. Without this a gap that is longer than the buffer would fill it.
                    self.reader_time = self.reader_time.max(end);
                }
                self.close_section();
                self.clock.restart();
                let before = match self.pending {
                    Some(Discontinuity::Gap(before)) => Some(before),
                    None => Some(Duration::ZERO),
                    // A seek, or a start, says more than the gap behind it.
                    Some(_) => None,
                };
                self.pending = before.map(|before| Discontinuity::Gap(before + duration)).or(self.pending);
                self.slots.pop_front();
                continue;
            }
            if !output.frames.is_empty() {
                self.place(&output);
            }
            if phase != SlotPhase::Complete {
                return;
            }
            let slot = self.slots.pop_front();
            self.carried =
                slot.map(|slot| (slot.level, slot.next, slot.tail)).filter(|(_, _, tail)| !tail.is_empty());
        }
        if self.is_finished() {
            self.close_section();
        }
    }

    /// Puts frames of the first slot into the last section, or into a new one.
    fn place(&mut self, output: &Output) {
        let Some(slot) = self.slots.front() else { return };
        let (id, start, discontinuity) = (slot.id, slot.start, slot.segment.discontinuity_sequence);
        let at = SlotTime { id, start, discontinuity };
        if let Some((frame, bytes)) = self.join(&output.head) {
            self.place_frame(at, &frame, &bytes);
            // The time of the segment may be that of its first byte, which is inside of this frame.
            self.clock.follow();
        }
        let mut data = output.data.as_slice();
        for frame in &output.frames {
            let (bytes, rest) = data.split_at(frame.len);
            data = rest;
            self.place_frame(at, frame, bytes);
        }
    }

    /// The frame that the first slot shares with the one before, if they were cut inside of a frame.
    fn join(&mut self, head: &[u8]) -> Option<(Frame, Vec<u8>)> {
        let (level, place, tail) = self.carried.take()?;
        let slot = self.slots.front().filter(|slot| (slot.level, slot.place) == (level, place))?;
        let is_continued =
            self.sections.back()?.discontinuity_sequence == slot.segment.discontinuity_sequence;
        if is_continued { join(&tail, head) } else { None }
    }

    fn place_frame(&mut self, at: SlotTime, frame: &Frame, bytes: &[u8]) {
        let SlotTime { id, start, discontinuity } = at;
        let Placement::At(time) = self.clock.place(id, start, discontinuity, frame) else { return };
        if self.needs_section(frame, discontinuity) {
            self.open_section(time, frame, discontinuity);
        }
        if let Some(section) = self.sections.back_mut() {
            section.discontinuity_sequence = discontinuity;
            section.push(time, frame, bytes);
        }
    }

    /// True if the decoder of the last section can't continue with this frame.
    fn needs_section(&self, frame: &Frame, discontinuity: u64) -> bool {
        let Some(section) = self.sections.back().filter(|section| !section.is_closed) else { return true };
        // Frames of ADTS, MP3 and AC-3 stand for themselves; those of FLAC are numbered.
        let is_numbered = frame.format.codec == AudioCodec::Flac;
        self.pending.is_some()
            || section.format != frame.format
            || (is_numbered && section.discontinuity_sequence != discontinuity)
    }

    fn open_section(&mut self, time: Duration, frame: &Frame, discontinuity_sequence: u64) {
        self.close_section();
        let reason = self.pending.take().unwrap_or(Discontinuity::Format);
        let is_sought = matches!(reason, Discontinuity::Seek | Discontinuity::Start);
        let level = self.slots.front().map_or(self.level, |slot| slot.level);
        let info = SectionInfo {
            codec: frame.format.codec,
            sample_rate: frame.format.sample_rate,
            channels: frame.format.channels,
            start: time,
            skip: if is_sought { self.target.saturating_sub(time) } else { Duration::ZERO },
            discontinuity: reason,
            level,
            date_time: self.slots.front().and_then(|slot| self.date_time(slot)),
        };
        let section =
            SectionBuffer::new(self.next_section, info, frame.format.clone(), discontinuity_sequence);
        self.next_section += 1;
        self.sections.push_back(section);
    }

    fn date_time(&self, slot: &Slot) -> Option<std::time::SystemTime> {
        let list = &self.timelines[slot.level].as_ref()?.list;
        let index = usize::try_from(slot.place.sequence.checked_sub(list.media_sequence)?).ok()?;
        list.date_time_at(index)
    }

    fn close_section(&mut self) {
        if let Some(section) = self.sections.back_mut() {
            section.is_closed = true;
        }
    }

    /// Nothing more will be played.
    fn is_finished(&self) -> bool {
        let is_at_end = |timeline: &Timeline| timeline.list.is_ended && self.cursor >= timeline.end();
        self.slots.is_empty() && self.timelines[self.level].as_ref().is_some_and(is_at_end)
    }
}

/// For readers.
impl State {
    pub(super) fn read(&mut self, section: u64, buf: &mut [u8]) -> ReadResult {
        let Some(index) = self.sections.iter().position(|known| known.id == section) else {
            return ReadResult::End;
        };
        let buffer = &mut self.sections[index];
        let got = buffer.read(buf);
        let time = buffer.reader_time();
        if got > 0 {
            self.reader_time = time;
            return ReadResult::Bytes(got);
        }
        if self.sections[index].is_closed {
            self.forget_sections();
            return ReadResult::End;
        }
        match self.take_error() {
            Some(error) => ReadResult::Failed(error),
            None => ReadResult::Wait(self.promote()),
        }
    }

    pub(super) fn next_section(&mut self) -> SectionResult {
        let handed = self.handed;
        if let Some(section) = self.sections.iter().find(|section| section.id >= handed) {
            self.handed = section.id + 1;
            return SectionResult::Section(section.id, section.info.clone());
        }
        if self.is_finished() {
            return SectionResult::End;
        }
        match self.take_error() {
            Some(error) => SectionResult::Failed(error),
            None => SectionResult::Wait(self.promote()),
        }
    }

    /// Returns the error that has stopped fetching, and lets it continue.
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// The running fetch that a reader waits for, if it has to become urgent.
    fn promote(&mut self) -> Option<RequestId> {
        let slot = self.slots.front_mut()?;
        if slot.priority == Priority::High {
            return None;
        }
        slot.priority = Priority::High;
        slot.request
    }

    pub(super) fn drop_section(&mut self, section: u64) {
        if let Some(section) = self.sections.iter_mut().find(|known| known.id == section) {
            section.drop_reader();
            self.reader_time = self.reader_time.max(section.reader_time());
        }
        self.forget_sections();
    }

    /// Forgets sections that were read, but the last one.
    fn forget_sections(&mut self) {
        while self.sections.len() > 1
            && self.sections.front().is_some_and(|section| section.is_closed && section.len() == 0)
        {
            self.sections.pop_front();
        }
    }

    /// Continues at `target`. Returns the start of the segment there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the playlist does not contain it.
    pub(super) fn seek(&mut self, target: Duration) -> Result<Duration, Error> {
        let window = self.seekable();
        if target < window.start || target > window.end {
            let why = format!(
                "can't seek to {target:?}: the playlist contains {:?} to {:?}",
                window.start, window.end
            );
            return Err(Error::new(ErrorKind::OutOfWindow, why));
        }
        self.slots.clear();
        self.sections.clear();
        self.handed = self.next_section;
        self.clock.restart();
        self.carried = None;
        self.pending = Some(Discontinuity::Seek);
        (self.target, self.reader_time, self.cursor) = (target, target, target);
        self.follows = None;
        self.error = None;
        self.skipped = 0;
        let timeline = self.timelines[self.level].as_ref();
        let start = timeline.and_then(|timeline| timeline.start_of(timeline.sequence_at(target)));
        Ok(start.unwrap_or(target))
    }

    pub(super) fn reader_time(&self) -> Duration {
        self.reader_time
    }

    /// End of what was fetched without a gap.
    pub(super) fn buffered(&self) -> Duration {
        let end = self
            .slots
            .iter()
            .find(|slot| slot.phase != SlotPhase::Complete)
            .map_or(self.cursor, |slot| slot.start);
        end.saturating_sub(self.reader_time())
    }

    pub(super) fn section(&self, id: u64) -> Option<&SectionBuffer> {
        self.sections.iter().find(|section| section.id == id)
    }

    /// True once after the reader has made room, and once when a segment that waits for a worker becomes urgent.
    pub(super) fn take_wake(&mut self) -> bool {
        let has_room = self.is_idle && self.has_room();
        if has_room {
            self.is_idle = false;
        }
        let waiting = self.slots.iter().position(|slot| slot.phase == SlotPhase::Planned);
        let urgent = waiting.filter(|index| self.priority_of(*index) > self.slots[*index].priority);
        if let Some(index) = urgent {
            self.slots[index].priority = Priority::High;
        }
        has_room || urgent.is_some()
    }

    pub(super) fn set_quality(&mut self, quality: Quality) {
        self.abr = Choice::new(&quality);
        self.config.quality = quality;
    }

    pub(super) fn is_live(&self) -> bool {
        self.timelines[self.level].as_ref().is_some_and(|timeline| !timeline.list.is_ended)
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timelines[self.level].as_ref()
    }

    /// The playlist to load again: its level, URL and last version. `None` once it has ended.
    pub(super) fn live_playlist(&self) -> Option<(usize, Url, Arc<MediaPlaylist>)> {
        let timeline = self.timelines[self.level].as_ref().filter(|timeline| !timeline.list.is_ended)?;
        Some((self.level, self.levels[self.level].url.clone(), Arc::clone(&timeline.list)))
    }

    /// The server does not write this playlist any more, as it seems: another level may be better (section 6.3.4).
    pub(super) fn handle_stale(&mut self, level: usize, now: Instant) {
        self.levels[level].excluded_until = now.checked_add(EXCLUSION);
    }

    /// A live playlist could not be loaded again.
    pub(super) fn handle_reload_failed(&mut self, level: usize, error: Error) {
        self.events.push(HlsEvent::PlaylistFailed { level, error });
    }

    /// No level has changed for too long.
    pub(super) fn handle_stuck(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// Times that can be sought to.
    pub(super) fn seekable(&self) -> std::ops::Range<Duration> {
        let Some(timeline) = self.timeline() else { return Duration::ZERO..Duration::ZERO };
        let end = match timeline.list.is_ended {
            true => timeline.end(),
            false => timeline.edge().saturating_sub(hold_back(&timeline.list, &self.config)),
        };
        timeline.start()..end.max(timeline.start())
    }
}

#[cfg(test)]
mod tests;
