//! The default choice: spends the buffer on quality while it is large, and keeps what the network sustains while it is not.

use std::time::{Duration, Instant};

use super::holes::Holes;
use super::{Abr, AbrConfig, Buffered, Running, Snapshot, replacement};

// The values below were tuned on the synthetic traces of `benches/abr` with seeds 1 to 4, and checked on seeds 11 to 16. Those of
// `FILL` on seeds 1 to 64, and checked on seeds 101 to 124. Those of leaving a hole on seeds 1 to 16, and checked on seeds 101 to 164.
// `STAY` on seeds 1 to 16, and checked on seeds 101 to 140. `SOON` on seeds 5 and 21, and checked on seeds 1 to 4 and 101 to 104.
// `STEADY` comes from `tests/abr_low_latency.rs`.

/// A rate is sustained if its segments arrive in this share of their duration. The estimate is cautious already, so no
/// second margin is needed.
const SUSTAINED: f64 = 1.0;

/// That share with an empty buffer: what arrives just as fast as it plays never fills the buffer, and the next dip of the network
/// finds it empty.
const FILL: f64 = 0.7;

/// The level of the last segment may take this many times that share. With the short buffer of a live stream, a part that takes
/// longer to arrive leaves less of it, so the share would not allow the level that it has allowed just before.
const STEADY: f64 = 1.15;

/// The share grows from [`FILL`] to [`SUSTAINED`] up to this share of the capacity, at most this many seconds.
const FILLED: (f64, f64) = (0.3, 15.0);

/// The first segment is one that arrives in this share of its duration: a lower one would start sooner, but would be heard.
const QUICK: f64 = 1.0;

/// After a first segment that was abandoned, the next one has to arrive in this share of its duration. Half a second has shown that
/// the network is slow, which is little to go by, and the wait for the first one is lost already.
const SOON: f64 = 0.6;

/// A sustained rate is chosen only if the buffer is this many times as long as its segment is expected to take.
const SAFETY: f64 = 1.5;

/// [`SAFETY`] for the level of the last segment. Below it, because a switch there and back costs more than it saves: the buffer
/// grows with each segment.
const STAY: f64 = 1.4;

/// A variant that is not sustained is kept while the buffer stays above this share of its capacity, at most this many seconds.
const KEEP: (f64, f64) = (0.2, 10.0);

/// A variant whose segments take longer than this many times their duration empties the buffer so fast that a hole of the
/// network finds it empty. More has to be kept, in proportion, up to this factor.
const DRAIN: (f64, f64) = (1.4, 3.0);

/// A higher variant that is not sustained is chosen when the buffer has reached a share of its capacity: the first for the
/// one above those that are sustained, the second for the highest. Above [`KEEP`], so that the choice does not go to and fro.
const RISE: (f64, f64) = (0.25, 0.6);

/// A segment whose rest takes more than this share of the buffer is cancelled, and fetched at a lower level.
const ABANDON: f64 = 0.7;

/// In a hole of the network not even the lowest variant arrives as fast as it plays. It is fetched instead if the buffer would
/// end within this many times what it takes: the last moment at which it still arrives before. But not while more than the
/// second value, in seconds, is buffered: most holes end sooner.
const LAST: (f64, f64) = (1.2, 30.0);

/// Where it would arrive too late in any case, a segment is cancelled only if the buffer is below this share of its capacity: most
/// holes end soon.
const WAIT: f64 = 0.17;

/// A hole is deep if the network brings less than this fraction of the lowest variant. Less deep ones are the dips that every
/// network has.
const DEEP: f64 = 0.5;

/// Switches that are allowed in the long run: one in this time. Each switch costs requests, and a new decoder where the codec
/// changes. A level that one transfer sustains and the next one does not would be left and chosen again with each short segment.
/// With [`AT_ONCE`] no hour has more than 90 switches, and those down from the last level that was reached.
const EVERY: Duration = Duration::from_secs(60);

/// Switches that are allowed at once, after a time without any: at the start, and on a network that changes now and then.
const AT_ONCE: u32 = 30;

/// Chooses the highest variant that the network sustains, and a higher one while the buffer is large. A full buffer is spent
/// on quality, and the choice changes rarely.
///
/// [`MakeAbr`](crate::hls::MakeAbr) shows an example.
#[derive(Clone, Debug, Default)]
pub struct Hybrid {
    config: AbrConfig,
    /// Deep holes of the network.
    holes: Holes,
    /// Level of the last snapshot.
    last: Option<usize>,
    /// When as many switches are allowed again as at the start.
    recovers: Option<Instant>,
    /// The segment that is being replaced, how many switches more that makes, and when it was chosen. They count once it has arrived: one
    /// that is given up changes nothing that is heard.
    replacing: Option<(u64, u32, Instant)>,
}

impl Hybrid {
    /// A rule with these options.
    pub fn new(config: AbrConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Counts a switch since the last snapshot.
    fn handle_current(&mut self, now: Instant, current: usize) {
        let last = self.last.replace(current);
        // Not when a level is chosen: it may not be the one that is fetched, for example while its playlist is loaded.
        if last.is_some_and(|last| last != current) {
            // A switch down is never refused, but counts: without it a rise over many levels would allow as many steps down.
            self.count(now, 1);
        }
    }

    fn count(&mut self, now: Instant, switches: u32) {
        self.recovers = Some(self.recovers.map_or(now, |recovers| recovers.max(now)) + EVERY * switches);
    }

    /// Whether another switch is allowed, other than one down.
    fn may_switch(&self, now: Instant) -> bool {
        self.recovers.is_none_or(|recovers| recovers.saturating_duration_since(now) <= EVERY * (AT_ONCE - 1))
    }

    /// Indices of the lowest and the highest variant that are allowed.
    fn bounds(&self, snapshot: &Snapshot<'_>) -> (usize, usize) {
        let last = snapshot.bitrates.len().saturating_sub(1);
        let below = |bitrates: &[u64], most: f64| {
            bitrates.partition_point(|rate| *rate as f64 <= most).saturating_sub(1).min(last)
        };
        // The user chooses by what the playlist names, the network by what the segments need.
        let most = self.config.at_most.map_or(last, |most| below(snapshot.named, most as f64));
        let highest = most.min(snapshot.limit.map_or(last, |limit| below(snapshot.bitrates, limit)));
        let lowest = match self.config.at_least {
            Some(least) => snapshot.named.partition_point(|rate| *rate < least).min(last),
            None => 0,
        };
        // Where both can't be met, the upper bound counts: it may be what the user pays for.
        (lowest.min(highest), highest)
    }
}

impl Abr for Hybrid {
    fn choose(&mut self, now: Instant, snapshot: &Snapshot<'_>) -> usize {
        let (lowest, highest) = self.bounds(snapshot);
        let Some(throughput) = snapshot.throughput else {
            let start =
                snapshot.bitrates.partition_point(|rate| *rate <= self.config.start).saturating_sub(1);
            return snapshot.current.unwrap_or(start).clamp(lowest, highest);
        };
        let Some(current) = snapshot.current else {
            self.last = None;
            // Nothing is buffered, at the start or after a seek: the first segment has to arrive soon.
            let is_quick = |level: &usize| {
                snapshot.fetch_seconds(*level, throughput) <= snapshot.segment_seconds() * QUICK
            };
            return (lowest..=highest).rev().find(is_quick).unwrap_or(lowest);
        };
        self.handle_current(now, current);
        let highest = if self.may_switch(now) { highest } else { current.clamp(lowest, highest) };
        let reserve = self.holes.reserve(now, snapshot.capacity.as_secs_f64());
        let fits = |level: &usize| fits(snapshot, *level, throughput, reserve);
        (lowest..=highest).rev().find(fits).unwrap_or(lowest)
    }

    fn abandon(&mut self, now: Instant, snapshot: &Snapshot<'_>, running: &Running) -> Option<usize> {
        let current = snapshot.current?;
        let (lowest, _) = self.bounds(snapshot);
        if !snapshot.is_starting {
            // The mean of the whole transfer hides a hole for as long as the transfer has run well.
            let rate = running.recent.unwrap_or(running.throughput);
            let share = rate / snapshot.bitrates[lowest] as f64;
            if running.recent.is_some() && share < DEEP {
                self.holes.handle_hole(now);
            }
            if share < 1.0 {
                let is_better = current > lowest && leaves_hole(snapshot, lowest, running.left, rate);
                return is_better.then_some(lowest);
            }
        }
        // After a hole the mean is low for as long as the hole has lasted, although the network is back.
        let recent = running.recent.filter(|_| !snapshot.is_starting);
        let rate = recent.map_or(running.throughput, |recent| recent.max(running.throughput));
        let left = running.left as f64 * 8.0 / rate.max(1.0);
        let segment = snapshot.segment_seconds();
        let buffered = snapshot.buffered.as_secs_f64();
        // At the start nothing is buffered and nothing plays: the first segment may take as long as it was chosen for.
        let (limit, other) = match snapshot.is_starting {
            true => (segment * QUICK, segment * SOON),
            false => (buffered * ABANDON, buffered * ABANDON),
        };
        if current <= lowest || left < limit {
            return None;
        }
        // Worth it only if the other one, from its first byte on, arrives earlier.
        let time = |level: &usize| snapshot.fetch_seconds(*level, rate);
        let better = (lowest..current).rev().find(|level| time(level) < left.min(other));
        better.or_else(|| Some(lowest).filter(|lowest| time(lowest) < left))
    }

    fn replace(
        &mut self,
        now: Instant,
        snapshot: &Snapshot<'_>,
        buffered: &[Buffered],
    ) -> Option<(usize, usize)> {
        if !self.config.replaces {
            return None;
        }
        let (_, highest) = self.bounds(snapshot);
        let (index, level) = replacement::choose(snapshot, highest, buffered)?;
        let added = replacement::added_switches(buffered, index, level, snapshot.current);
        if added > 0 && !self.may_switch(now) {
            return None;
        }
        self.replacing = Some((buffered[index].id, added, now));
        Some((index, level))
    }

    fn handle_replaced(&mut self, id: u64) {
        if let Some((_, added, chosen)) = self.replacing.take_if(|(replacing, ..)| *replacing == id) {
            self.count(chosen, added);
        }
    }

    fn keeps_replacing(&mut self, _: Instant, running: &Running, starts_in: Duration) -> bool {
        replacement::keeps(running, starts_in)
    }
}

/// True if the lowest level replaces a segment of which `left` bytes are missing, in a hole with this rate, in bits per second.
fn leaves_hole(snapshot: &Snapshot<'_>, lowest: usize, left: u64, rate: f64) -> bool {
    let left = left as f64 * 8.0 / rate.max(1.0);
    let least = snapshot.fetch_seconds(lowest, rate);
    let buffered = snapshot.buffered.as_secs_f64();
    let limit =
        if buffered > least { (least * LAST.0).min(LAST.1) } else { snapshot.capacity.as_secs_f64() * WAIT };
    buffered < limit && left >= buffered * ABANDON && least < left
}

/// True if the buffer allows to fetch the next segment at this level, and to keep `reserve` seconds for the next hole.
fn fits(snapshot: &Snapshot<'_>, level: usize, throughput: f64, reserve: f64) -> bool {
    let segment = snapshot.segment_seconds();
    let capacity = snapshot.capacity.as_secs_f64();
    let buffered = snapshot.buffered.as_secs_f64();
    let fetch = snapshot.fetch_seconds(level, throughput);
    let filled = (buffered / (capacity * FILLED.0).min(FILLED.1)).min(1.0);
    let most = segment * (FILL + (SUSTAINED - FILL) * filled);
    // A level that takes longer to arrive leaves less in the buffer: without a margin it would go down, and up again.
    let margin = if snapshot.current == Some(level) { STEADY } else { 1.0 };
    let most = (most * margin).min(segment * SUSTAINED);
    let is_sustained = |level: usize| snapshot.fetch_seconds(level, throughput) <= most;
    let keep = |(share, most): (f64, f64)| (capacity * share).min(most);
    // Segments that arrive faster than they play fill the buffer: it only has to last until the next one is there.
    let safety = if snapshot.current == Some(level) { STAY } else { SAFETY };
    if is_sustained(level) && buffered >= (fetch * safety).min(keep(KEEP)) {
        return true;
    }
    let reserve = (reserve - keep(KEEP)).max(0.0);
    let keep = (keep(KEEP) + reserve) * (fetch / segment / DRAIN.0).clamp(1.0, DRAIN.1);
    let is_rise = snapshot.current.is_none_or(|current| level > current);
    let needed = if is_rise {
        let last = snapshot.bitrates.len() - 1;
        let sustained = (0..=last).rev().find(|level| is_sustained(*level)).unwrap_or(0);
        let above = level.saturating_sub(sustained) as f64 / (last - sustained).max(1) as f64;
        (capacity - segment).max(0.0) * (RISE.0 + (RISE.1 - RISE.0) * above) + reserve
    } else {
        keep
    };
    buffered >= needed && buffered - fetch >= keep
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BITRATES: [u64; 4] = [48_000, 96_000, 192_000, 320_000];

    fn choose(config: AbrConfig, current: Option<usize>, buffered: u64, throughput: Option<f64>) -> usize {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        snapshot.buffered = Duration::from_secs(buffered);
        (snapshot.current, snapshot.throughput) = (current, throughput);
        Hybrid::new(config).choose(Instant::now(), &snapshot)
    }

    #[test]
    fn the_first_choice_is_what_most_networks_have() {
        assert_eq!(choose(AbrConfig::default(), None, 0, None), 3);
        assert_eq!(choose(AbrConfig { start: 150_000, ..Default::default() }, None, 0, None), 1);
        assert_eq!(choose(AbrConfig { start: 1, ..Default::default() }, None, 0, None), 0);
    }

    #[test]
    fn a_fast_network_gets_the_best_and_a_slow_one_the_least() {
        assert_eq!(choose(AbrConfig::default(), Some(1), 10, Some(5e6)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(3), 10, Some(60_000.0)), 0);
    }

    #[test]
    fn a_full_buffer_keeps_the_quality_over_a_dip() {
        assert_eq!(choose(AbrConfig::default(), Some(3), 100, Some(250_000.0)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(3), 8, Some(250_000.0)), 2);
    }

    #[test]
    fn while_little_is_buffered_the_choice_fills_the_buffer() {
        // 350 kbit/s sustain 320 kbit/s, but would add only half a second of audio with each segment.
        assert_eq!(choose(AbrConfig::default(), Some(2), 9, Some(350_000.0)), 2);
        assert_eq!(choose(AbrConfig::default(), Some(2), 20, Some(350_000.0)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(2), 9, Some(500_000.0)), 3);
        assert_eq!(choose(AbrConfig::default(), Some(3), 9, Some(350_000.0)), 3, "it plays already");
        assert_eq!(choose(AbrConfig::default(), Some(3), 5, Some(350_000.0)), 2);
    }

    #[test]
    fn a_segment_that_would_starve_the_buffer_is_abandoned() {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (snapshot.current, snapshot.buffered) = (Some(3), Duration::from_secs(5));
        snapshot.is_starting = false;
        let mut abr = Hybrid::default();
        let mut abandon = |left, rate| abr.abandon(Instant::now(), &snapshot, &Running::new(left, rate));
        assert_eq!(abandon(200_000, 100_000.0), Some(0));
        assert_eq!(abandon(20_000, 100_000.0), None);
        assert_eq!(abandon(200_000, 1_000_000.0), None);
    }

    #[test]
    fn a_first_segment_that_takes_too_long_is_abandoned_for_one_that_comes_soon() {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        snapshot.current = Some(3);
        let abandon =
            |left, rate| Hybrid::default().abandon(Instant::now(), &snapshot, &Running::new(left, rate));
        // 1.6 Mbit are left: 5.3 s at 300 kbit/s, and 9.7 s at 165 kbit/s, where only the two lowest come within 3.6 s.
        assert_eq!((abandon(200_000, 300_000.0), abandon(200_000, 165_000.0)), (None, Some(1)));
        assert_eq!(abandon(200_000, 125_000.0), Some(0), "the second one would need 4.6 s");
        assert_eq!(abandon(200_000, 20_000.0), Some(0));
    }

    #[test]
    fn a_hole_of_the_network_is_waited_out_while_the_buffer_lasts() {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (snapshot.current, snapshot.is_starting) = (Some(3), false);
        let mut abandon = |buffered, rate| {
            snapshot.buffered = Duration::from_secs(buffered);
            Hybrid::default().abandon(Instant::now(), &snapshot, &Running::new(200_000, rate))
        };
        // Not even the lowest one would come in time at 10 kbit/s, and it would at 60.
        assert_eq!((abandon(90, 10_000.0), abandon(20, 10_000.0)), (None, Some(0)));
        assert_eq!(abandon(20, 60_000.0), Some(1));
    }

    #[test]
    fn a_hole_that_the_mean_of_a_transfer_hides_is_left_while_the_lowest_level_still_arrives() {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (snapshot.current, snapshot.is_starting) = (Some(3), false);
        let mut abandon = |buffered, recent| {
            snapshot.buffered = Duration::from_secs(buffered);
            // By its mean, the rest comes within 2 s.
            let running = Running { recent, ..Running::new(75_000, 300_000.0) };
            Hybrid::default().abandon(Instant::now(), &snapshot, &running)
        };
        // At 20 kbit/s the rest takes 30 s, and the lowest level 14.4 s.
        assert_eq!((abandon(16, None), abandon(16, Some(20_000.0))), (None, Some(0)));
        assert_eq!(abandon(40, Some(20_000.0)), None, "there is time to wait for the end of the hole");
    }

    #[test]
    fn a_segment_that_a_hole_has_delayed_is_kept_when_the_network_is_back() {
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(4), Duration::from_secs(120));
        (snapshot.current, snapshot.is_starting) = (Some(3), false);
        snapshot.buffered = Duration::from_secs(24);
        let abandon = |recent| {
            // By its mean, the rest takes 20 s.
            let running = Running { recent, ..Running::new(75_000, 30_000.0) };
            Hybrid::default().abandon(Instant::now(), &snapshot, &running)
        };
        // At 500 kbit/s it takes 1.2 s, and at 50 kbit/s 12 s, before 24 s have played.
        assert_eq!([abandon(Some(500_000.0)), abandon(Some(50_000.0))], [None, None]);
        snapshot.buffered = Duration::from_secs(10);
        let abandon = |recent| {
            let running = Running { recent: Some(recent), ..Running::new(75_000, 30_000.0) };
            Hybrid::default().abandon(Instant::now(), &snapshot, &running)
        };
        assert_eq!([abandon(500_000.0), abandon(50_000.0)], [None, Some(0)]);
    }

    #[test]
    fn after_a_deep_hole_more_is_kept_for_the_next_one() {
        let mut abr = Hybrid::default();
        let began = Instant::now();
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (snapshot.current, snapshot.is_starting) = (Some(3), false);
        (snapshot.buffered, snapshot.throughput) = (Duration::from_secs(20), Some(250_000.0));
        let running = |recent| Running { recent: Some(recent), ..Running::new(1_000_000, 300_000.0) };
        let mut choose_after = |recent, seconds| {
            abr.abandon(began, &snapshot, &running(recent));
            abr.choose(began + Duration::from_secs(seconds), &snapshot)
        };
        assert_eq!(
            [choose_after(30_000.0, 1), choose_after(20_000.0, 1), choose_after(30_000.0, 60)],
            [3, 2, 2]
        );
        assert_eq!(choose_after(30_000.0, 301), 3, "the hole is forgotten");
    }

    #[test]
    fn a_network_that_changes_all_the_time_makes_no_more_switches_than_are_allowed() {
        let began = Instant::now();
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(1), Duration::from_secs(20));
        (snapshot.current, snapshot.is_starting) = (Some(0), false);
        let (mut abr, mut switches) = (Hybrid::default(), 0);
        for second in 0..3600 {
            let is_good = second / 3 % 2 == 0;
            snapshot.buffered = Duration::from_secs(if is_good { 20 } else { 1 });
            snapshot.throughput = Some(if is_good { 5e6 } else { 10_000.0 });
            let chosen = abr.choose(began + Duration::from_secs(second), &snapshot);
            switches += u32::from(Some(chosen) != snapshot.current);
            snapshot.current = Some(chosen);
        }
        assert!((85..=95).contains(&switches), "{switches} switches in an hour");
    }

    #[test]
    fn a_replacement_counts_as_a_switch_once_it_has_arrived() {
        let now = Instant::now();
        let mut snapshot = Snapshot::new(&BITRATES, Duration::from_secs(6), Duration::from_secs(120));
        (snapshot.current, snapshot.is_starting) = (Some(1), false);
        (snapshot.buffered, snapshot.throughput) = (Duration::from_secs(60), Some(5e6));
        let buffered: Vec<Buffered> =
            (0..10).map(|index| Buffered::new(index, 1, Duration::from_secs(6 * index))).collect();
        // The last segment would differ from its two neighbours.
        let replaced = |arrived: fn(u32) -> bool| {
            let mut rule = Hybrid::default();
            (0..100)
                .take_while(|round| {
                    let chosen = rule.replace(now, &snapshot, &buffered);
                    if arrived(*round) {
                        rule.handle_replaced(9);
                    }
                    chosen == Some((9, 3))
                })
                .count() as u32
        };
        assert_eq!(replaced(|_| false), 100, "those that were given up do not count");
        assert_eq!(replaced(|_| true), AT_ONCE / 2);
        assert_eq!(replaced(|round| round % 2 == 1), AT_ONCE);
    }

    #[test]
    fn with_an_estimate_the_first_segment_is_one_that_comes_soon() {
        assert_eq!(choose(AbrConfig::default(), None, 0, Some(5e6)), 3);
        assert_eq!(choose(AbrConfig::default(), None, 0, Some(300_000.0)), 2);
        assert_eq!(choose(AbrConfig::default(), None, 0, Some(10_000.0)), 0);
    }

    fn extreme() -> impl Strategy<Value = Duration> {
        prop_oneof![Just(Duration::ZERO), Just(Duration::MAX), (0..200_u64).prop_map(Duration::from_secs)]
    }

    fn any_rate() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(f64::INFINITY), Just(f64::NAN), Just(-1.0), 1.0..1e9_f64]
    }

    proptest! {
        #[test]
        fn whatever_a_snapshot_says_the_levels_exist(
            mut bitrates in proptest::collection::vec(prop_oneof![Just(0), Just(u64::MAX), 0..2_000_000_u64], 1..6),
            (segment, capacity, buffered, ttfb) in (extreme(), extreme(), extreme(), extreme()),
            (throughput, limit) in (proptest::option::of(any_rate()), proptest::option::of(any_rate())),
            (current, is_starting) in (proptest::option::of(0_usize..6), any::<bool>()),
            (left, rate, recent) in (any::<u64>(), any_rate(), proptest::option::of(any_rate())),
            (at_least, at_most) in (proptest::option::of(any::<u64>()), proptest::option::of(any::<u64>())),
        ) {
            bitrates.sort_unstable();
            let last = bitrates.len() - 1;
            let mut snapshot = Snapshot::new(&bitrates, segment, capacity);
            (snapshot.buffered, snapshot.ttfb, snapshot.is_starting) = (buffered, ttfb, is_starting);
            (snapshot.throughput, snapshot.limit) = (throughput, limit);
            snapshot.current = current.map(|current| current.min(last));
            let mut rule = Hybrid::new(AbrConfig { at_least, at_most, ..Default::default() });
            let (now, running) = (Instant::now(), Running { recent, ..Running::new(left, rate) });
            prop_assert!(rule.choose(now, &snapshot) <= last);
            let other = rule.abandon(now, &snapshot, &running);
            prop_assert!(other.is_none_or(|other| Some(other) < snapshot.current));
            let buffered: Vec<Buffered> = (0..20).map(|index| Buffered::new(index as u64, index % (last + 1), buffered)).collect();
            if let Some((index, level)) = rule.replace(now, &snapshot, &buffered) {
                prop_assert!(index < buffered.len() && level <= last);
            }
            rule.handle_replaced(left);
            rule.keeps_replacing(now, &running, ttfb);
        }

        #[test]
        fn the_choice_is_within_bounds_and_more_is_never_worse(
            current in proptest::option::of(0_usize..4),
            buffered in 0_u64..120,
            throughput in 1e3..1e7_f64,
            least in proptest::option::of(1_u64..400_000),
            most in proptest::option::of(1_u64..400_000),
        ) {
            let config = AbrConfig { at_least: least, at_most: most, ..Default::default() };
            let chosen = choose(config.clone(), current, buffered, Some(throughput));
            prop_assert!(chosen < BITRATES.len());
            prop_assert!(most.is_none_or(|most| BITRATES[chosen] <= most || chosen == 0));
            let faster = choose(config.clone(), current, buffered, Some(throughput * 1.5));
            prop_assert!(faster >= chosen, "{faster} with more throughput, {chosen} with less");
            let fuller = choose(config, current, buffered + 10, Some(throughput));
            prop_assert!(fuller >= chosen, "{fuller} with more buffer, {chosen} with less");
        }
    }
}
