//! What a player has buffered, and what to fetch next: a plain state machine. Facts enter by `handle_*`; `plan`, `read` and
//! `next_section` return decisions; time is an argument.
//!
//! ```text
//!   levels ── timelines ──▶ queue: the segments to play, in order ──▶ sections ──▶ reader
//!                │            planned ─▶ fetching ─▶ complete
//!                │                ▲          │ failed: reload, other level, skip
//!                └─ playlist ◀────┴──────────┘
//! ```

mod abandon;
mod arrivals;
mod arriving;
mod audio_bytes;
mod choice;
mod commit;
#[cfg(feature = "cache")]
mod confirm;
mod demand;
mod drop_buffered;
mod ends;
mod failures;
mod hints;
mod kept;
mod kept_segments;
mod landing;
mod level_cap;
mod needs;
mod network;
#[cfg(feature = "cache")]
mod offline;
mod plan;
mod planned;
mod playlists;
mod queued_segment;
mod reader;
mod recovery;
mod replace;
mod replacements;
mod resource_arrivals;
mod resources;
pub(crate) mod section;
mod sections;
mod seek;
mod sizes;
#[cfg(feature = "cache")]
mod unconfirmed;
mod variants;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::choice::Choice;
use self::kept_segments::KeptSegments;
use self::level_cap::LevelCap;
use self::network::Network;
use self::queued_segment::QueuedSegment;
use self::recovery::Recovery;
use self::replacements::Replacements;
use self::resources::Resources;
use self::section::Discontinuity;
use self::sections::{CarriedFrame, Sections};
use super::config::{HlsConfig, Quality};
use super::event::HlsEvent;
use super::ladder::levels::Ladder;
use super::ladder::steering::Steering;
use super::timeline::clock::Clock;
use super::timeline::start::start_of;
use super::timeline::{PlaylistPosition, Timeline};
use crate::abr::{Bitrates, Estimator, Snapshot};
use crate::client::UriPolicy;
#[cfg(feature = "cache")]
use crate::error::Error;
use crate::types::Priority;

pub(crate) use self::needs::{Needs, ResourceKey, Undemuxed};
pub(crate) use self::network::SegmentTransfer;
pub(crate) use self::planned::{Hinted, HintedPart, Planned, ReadResult, SectionResult};
#[cfg(feature = "cache")]
pub(crate) use self::unconfirmed::{Confirmation, Unconfirmed};

#[derive(Debug)]
pub(crate) struct State {
    config: HlsConfig,
    policy: UriPolicy,
    ladder: Ladder,
    /// The rendition that is played.
    rendition: usize,
    /// What its levels need.
    bitrates: Bitrates,
    /// The variant of the next segment. Of another rendition until the first playlist of the new one is there.
    variant: usize,
    /// By variant.
    timelines: Vec<Option<Timeline>>,
    /// It was opened on a playlist with an end: no thread loads a playlist again and again.
    is_on_demand: bool,
    steering: Option<Steering>,
    /// A playlist that is needed, and whether it is being fetched.
    pending_playlist: Option<(usize, bool)>,
    /// Number of playlists that `plan` has requested.
    requested: u64,
    /// No level goes on behind the cursor: what else can be loaded has ended, too.
    is_end_confirmed: bool,
    /// When the variant in use had no more for the first time since the last segment. From then on the other ones are asked.
    end_reached: Option<Instant>,
    /// Where the next segment starts.
    cursor: Duration,
    /// The position after the last segment, in the playlist of its variant.
    follows: Option<(usize, PlaylistPosition)>,
    queue: VecDeque<QueuedSegment>,
    next_id: u64,
    /// Why the next segment does not continue the last one.
    discontinuity: Option<Discontinuity>,
    resources: Resources,
    /// The last initialization section that was hinted at.
    hinted_map: Option<ResourceKey>,
    /// A preload hint that failed.
    refused_hint: Option<(usize, PlaylistPosition)>,
    clock: Clock,
    /// The beginning of a frame that ends in the next segment.
    carried: Option<CarriedFrame>,
    sections: Sections,
    recovery: Recovery,
    /// `plan` had nothing to do for lack of room: the reader makes some, or what arrives leaves the network.
    is_idle: bool,
    /// The priority of the last wake-up, until the downloader has asked for what to fetch.
    woken: Option<Priority>,
    /// When `take_wake` was last asked.
    last_poll: Option<Instant>,
    abr: Choice,
    level_cap: LevelCap,
    network: Network,
    /// No segment has arrived since the opening or the last seek.
    is_starting: bool,
    replacements: Replacements,
    /// Segments that have arrived, for seeks.
    kept: KeptSegments,
    /// What has to be published once the lock is released.
    events: Vec<HlsEvent>,
    /// It was opened from the cache, and its playlists have not come from the network yet.
    #[cfg(feature = "cache")]
    unconfirmed: Option<Unconfirmed>,
    /// The playlist is not the stored one any more: nothing is played.
    #[cfg(feature = "cache")]
    outdated: Option<Error>,
}

impl State {
    /// A player of what is on `ladder`, with the playlist of one variant.
    pub(crate) fn new(
        config: HlsConfig,
        ladder: Ladder,
        steering: Option<Steering>,
        (variant, timeline): (usize, Timeline),
        estimator: Estimator,
    ) -> Self {
        let policy = UriPolicy { allow_http: config.allow_http, allow_private: config.allow_private };
        let abr = Choice::new(&config.quality);
        let network = Network::new(estimator, config.priority);
        let start = start_of(&timeline, &config);
        let is_on_demand = timeline.list.is_ended;
        let mut timelines: Vec<Option<Timeline>> = ladder.variants.iter().map(|_| None).collect();
        timelines[variant] = Some(timeline);
        let mut state = Self {
            policy,
            rendition: ladder.first,
            bitrates: Bitrates::new(ladder.bitrates(ladder.first)),
            config,
            ladder,
            variant,
            timelines,
            is_on_demand,
            steering,
            pending_playlist: None,
            requested: 0,
            is_end_confirmed: false,
            end_reached: None,
            cursor: start,
            follows: None,
            queue: VecDeque::new(),
            next_id: 0,
            discontinuity: None,
            resources: Resources::default(),
            hinted_map: None,
            refused_hint: None,
            clock: Clock::default(),
            carried: None,
            sections: Sections::new(start),
            recovery: Recovery::default(),
            is_idle: false,
            woken: None,
            last_poll: None,
            abr,
            level_cap: LevelCap::default(),
            network,
            is_starting: true,
            replacements: Replacements::default(),
            kept: KeptSegments::default(),
            events: Vec::new(),
            #[cfg(feature = "cache")]
            unconfirmed: None,
            #[cfg(feature = "cache")]
            outdated: None,
        };
        state.limit_levels();
        state.handle_listed_sizes(variant);
        state
    }

    /// The level to start with.
    pub(crate) fn first_level(
        config: &HlsConfig,
        bitrates: &[u64],
        estimator: &Estimator,
        now: Instant,
    ) -> usize {
        let chosen = match &config.quality {
            Quality::Fixed(index) => *index,
            Quality::Auto(_) | Quality::Custom(_) => {
                // No media playlist was loaded yet. Apple's authoring specification recommends segments of 6 s.
                let mut snapshot = Snapshot::new(bitrates, Duration::from_secs(6), config.buffer);
                snapshot.throughput = estimator.throughput();
                let mut abr = Choice::new(&config.quality);
                abr.ask("Abr::choose", |rule| rule.choose(now, &snapshot)).unwrap_or(0)
            }
        };
        chosen.min(bitrates.len() - 1)
    }

    /// Spreads the delays between attempts: clients of a server that comes back must not return in step.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.recovery.random.seed(seed);
    }

    pub(crate) fn take_events(&mut self) -> Vec<HlsEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn set_quality(&mut self, quality: Quality, now: Instant) {
        self.abr = Choice::new(&quality);
        // The cap came from what the old quality had chosen.
        self.level_cap.clear();
        if let Quality::Fixed(level) = &quality {
            self.lift_exclusion_of(*level, now);
            self.load_playlist_of(*level, now);
        }
        self.config.quality = quality;
        self.limit_levels();
    }

    /// Loads the playlist of a level, if that is known to be the next one.
    fn load_playlist_of(&mut self, level: usize, now: Instant) {
        let variant = self.pick(level.min(self.levels().len() - 1), now, |_| true);
        if let Some(variant) = variant.filter(|variant| !self.is_loaded(*variant, now)) {
            #[cfg(feature = "cache")]
            self.forget_offline();
            // Until it is loaded, segments are of the current level.
            self.pending_playlist.get_or_insert((variant, false));
        }
    }

    /// Drops what has arrived of a segment, to request it again.
    fn plan_again(&mut self, id: u64) -> Option<&mut QueuedSegment> {
        let next = self.next_id;
        self.next_id += 1;
        let queued = self.queued(id)?;
        // A new number: its last fetch may still be running, and its bytes must not be mixed with those of the next one.
        queued.id = next;
        queued.plan_again();
        Some(queued)
    }

    fn queued(&mut self, id: u64) -> Option<&mut QueuedSegment> {
        self.queue.iter_mut().chain(self.replacements.queued_mut()).find(|queued| queued.id == id)
    }
}

#[cfg(all(test, feature = "cache"))]
mod cached_tests;
#[cfg(test)]
mod drop_buffered_tests;
#[cfg(test)]
mod ends_tests;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod joined_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod live_seek_tests;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod playlist_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod replace_tests;
#[cfg(test)]
mod resource_tests;
#[cfg(test)]
mod seek_tests;
#[cfg(test)]
mod tests;
