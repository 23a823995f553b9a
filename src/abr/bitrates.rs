//! What each variant needs of the network: the bitrates that the playlist names, corrected by the sizes of segments.
//!
//! Playlists name peaks, totals with video, or wrong figures. A segment shows the truth, but only of itself: with a variable
//! bitrate it may be half as large as the mean, or twice as large. So what is named counts as far as the sizes allow it.

use std::time::Duration;

/// Seconds of audio after which the size of an older segment counts half: long enough for a mean over loud and quiet passages, and
/// short enough for a station whose programme changes.
const HALF_LIFE: f64 = 120.0;

/// What is named counts while the mean of the first segments is at most this many times as large. Few segments are much larger than
/// the mean of all.
const BELOW: f64 = 1.4;

/// After so many seconds of audio, half of the doubt about their mean is gone.
const DOUBTED: f64 = 20.0;

/// A segment that is said to be shorter shows nothing: its duration may be rounded to 0.
const SHORTEST: f64 = 0.05;

/// The bitrates of variants.
///
/// ```
/// use std::time::Duration;
/// use windway::abr::Bitrates;
///
/// // The playlist names a tenth of what the segments need.
/// let mut bitrates = Bitrates::new(vec![6_400, 12_800, 32_000]);
/// for _ in 0..20 {
///     bitrates.handle_segment(1, 96_000, Duration::from_secs(6));
/// }
/// let [low, middle, high] = *bitrates.corrected() else { unreachable!() };
/// assert!(middle > 120_000 && middle <= 128_000);
/// assert!(low > 60_000 && high > 300_000, "the others are probably as wrong");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bitrates {
    /// As the playlist names them, ascending.
    named: Vec<u64>,
    /// What was seen of each.
    observed: Vec<Observed>,
    /// Of each variant, in bits per second.
    estimates: Vec<u64>,
    /// For each variant the least that it or a better one needs: ascending.
    corrected: Vec<u64>,
    /// Index of the best variant that is allowed.
    highest: usize,
}

/// Bits and seconds of the segments of a variant, weighted by age.
#[derive(Clone, Copy, Debug, Default)]
struct Observed {
    bits: f64,
    seconds: f64,
}

impl Observed {
    fn handle_segment(&mut self, bits: f64, seconds: f64) {
        // One that is said to last for years must not be all that ever counts.
        let counted = seconds.min(HALF_LIFE);
        let kept = 0.5_f64.powf(counted / HALF_LIFE);
        self.bits = self.bits * kept + bits / seconds * counted;
        self.seconds = self.seconds * kept + counted;
    }

    /// What is expected, if `prior` was expected before any segment.
    fn expected(&self, prior: f64) -> f64 {
        let mean = self.bits / self.seconds;
        let doubt = DOUBTED / (DOUBTED + self.seconds);
        if prior > mean {
            // Quiet passages are much smaller, and may last for a few segments, but not for minutes.
            mean + (prior - mean) * doubt.powi(3)
        } else {
            prior.max(mean / BELOW.powf(doubt))
        }
    }
}

impl Bitrates {
    /// Variants for which the playlist names these bitrates, in bits per second, ascending. 0 is an unknown one.
    pub fn new(named: Vec<u64>) -> Self {
        let observed = vec![Observed::default(); named.len()];
        let (estimates, corrected, highest) = (named.clone(), named.clone(), usize::MAX);
        Self { named, observed, estimates, corrected, highest }
    }

    /// Limits the variants to those up to this one. A better one that needs less is of no use then: it is not used in the place of
    /// one of these. By default all are allowed.
    pub fn allow_up_to(&mut self, highest: usize) {
        self.highest = highest;
        self.correct();
    }

    /// The bitrates as the playlist names them.
    pub fn named(&self) -> &[u64] {
        &self.named
    }

    /// What is expected of each variant, or of a better one that is allowed, if that needs less: ascending.
    pub fn corrected(&self) -> &[u64] {
        &self.corrected
    }

    /// What is expected of this variant. 0 if it is unknown, or if there is no such variant.
    pub fn get(&self, index: usize) -> u64 {
        self.estimates.get(index).copied().unwrap_or_default()
    }

    /// The best variant that is allowed and needs no more than this one is expected to need by [`corrected`](Self::corrected).
    pub fn best(&self, index: usize) -> usize {
        let Some(most) = self.corrected.get(index) else { return index };
        let allowed = self.highest.saturating_add(1).saturating_sub(index);
        let mut rest = self.estimates.iter().skip(index).take(allowed);
        index + rest.rposition(|estimate| estimate <= most).unwrap_or(0)
    }

    /// Records the size of a segment of a variant, and how long it plays. Also of a segment that was cancelled, if its whole size is
    /// known.
    pub fn handle_segment(&mut self, index: usize, bytes: u64, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let Some(observed) = self.observed.get_mut(index).filter(|_| bytes > 0 && seconds >= SHORTEST) else {
            return;
        };
        observed.handle_segment(bytes as f64 * 8.0, seconds);
        self.estimate();
    }

    /// Records the sizes in bytes and the durations that a playlist lists of the segments of a variant. Without effect once a size is
    /// recorded: a segment that has arrived shows more, and what is listed changes little.
    pub fn handle_list(&mut self, index: usize, segments: impl IntoIterator<Item = (u64, Duration)>) {
        if self.observed.get(index).is_some_and(|observed| observed.seconds == 0.0) {
            let sum = segments.into_iter().fold((0_u64, Duration::ZERO), |sum, segment| {
                (sum.0.saturating_add(segment.0), sum.1.saturating_add(segment.1))
            });
            self.handle_segment(index, sum.0, sum.1);
        }
    }

    fn estimate(&mut self) {
        let known = || self.named.iter().zip(&self.observed);
        // How far the name of a variant is wrong, as a logarithm, and how many seconds have shown that.
        let mistake = |(named, observed): (&u64, &Observed)| {
            let named = *named as f64;
            let is_known = named > 0.0 && observed.seconds > 0.0;
            is_known.then(|| ((observed.expected(named) / named).ln(), observed.seconds))
        };
        let (sum, weight) = known()
            .filter_map(mistake)
            .fold((0.0, 0.0), |(sum, weight), (error, seconds)| (sum + error * seconds, weight + seconds));
        let estimates = known().map(|(named, observed)| {
            if *named == 0 && observed.seconds > 0.0 {
                return observed.bits / observed.seconds;
            }
            // The same encoder has made all of them, so the others are as wrong.
            let (own, seconds) = mistake((named, observed)).unwrap_or_default();
            let others = (weight - seconds).max(0.0);
            let factor = if others > 1.0 { ((sum - own * seconds) / others).exp() } else { 1.0 };
            let prior = *named as f64 * factor;
            if observed.seconds > 0.0 { observed.expected(prior) } else { prior }
        });
        let mut estimates: Vec<f64> = estimates.collect();
        let mut below = 0.0;
        for (estimate, observed) in estimates.iter_mut().zip(&self.observed) {
            if observed.seconds > 0.0 {
                below = *estimate;
            }
            // The playlist is believed that a variant needs more than one that was seen.
            *estimate = estimate.max(below);
        }
        self.estimates = estimates.into_iter().map(|estimate| estimate as u64).collect();
        self.correct();
    }

    fn correct(&mut self) {
        self.corrected.clone_from(&self.estimates);
        let allowed = self.highest.saturating_add(1).min(self.corrected.len());
        let (allowed, others) = self.corrected.split_at_mut(allowed);
        lower_to_later(allowed);
        lower_to_later(others);
        let least = allowed.last().copied().unwrap_or_default();
        others.iter_mut().for_each(|other| *other = least.max(*other));
    }
}

/// Lowers each value to the least of those behind it.
fn lower_to_later(values: &mut [u64]) {
    let mut least = u64::MAX;
    for value in values.iter_mut().rev() {
        least = least.min(*value);
        *value = least;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRUE: [u64; 4] = [48_000, 96_000, 192_000, 320_000];

    /// Bitrates that are named this many times as high as they are.
    fn named(lie: f64) -> Bitrates {
        Bitrates::new(TRUE.map(|bitrate| (bitrate as f64 * lie) as u64).to_vec())
    }

    /// Segments of a level, in seconds, of this share of their mean size.
    fn play(bitrates: &mut Bitrates, level: usize, segments: impl IntoIterator<Item = (f64, f64)>) {
        for (seconds, share) in segments {
            let bytes = TRUE[level] as f64 * share * seconds / 8.0;
            bitrates.handle_segment(level, bytes as u64, Duration::from_secs_f64(seconds));
        }
    }

    /// Expected bitrates as shares of the true ones.
    fn shares(bitrates: &Bitrates) -> [f64; 4] {
        std::array::from_fn(|level| bitrates.get(level) as f64 / TRUE[level] as f64)
    }

    #[test]
    fn a_silent_segment_makes_no_level_cheap_and_a_large_one_none_expensive() {
        for (share, allowed) in [(0.0, 0.45..1.01), (0.3, 0.6..1.01), (1.3, 0.99..1.01), (2.0, 1.0..1.6)] {
            // As the first one, and after a minute of others.
            for minutes in [0, 1] {
                let mut bitrates = named(1.0);
                play(&mut bitrates, 2, std::iter::repeat_n((6.0, 1.0), 10 * minutes));
                play(&mut bitrates, 2, [(6.0, share)]);
                let shares = shares(&bitrates);
                assert!(
                    shares.iter().all(|share| allowed.contains(share)),
                    "{share}, {minutes} min: {shares:?}"
                );
            }
        }
    }

    #[test]
    fn a_level_that_is_better_and_needs_less_is_used_instead() {
        let mut bitrates = Bitrates::new(vec![64_000, 128_000, 256_000]);
        for _ in 0..50 {
            bitrates.handle_segment(0, 150_000, Duration::from_secs(6));
            bitrates.handle_segment(1, 96_000, Duration::from_secs(6));
        }
        assert_eq!([0, 1, 2].map(|index| bitrates.best(index)), [1, 1, 2]);
        assert_eq!(bitrates.corrected()[0], bitrates.corrected()[1]);
        assert_eq!(bitrates.best(7), 7);
    }

    #[test]
    fn a_level_that_is_not_allowed_replaces_none_that_needs_more() {
        let mut bitrates = Bitrates::new(vec![64_000, 128_000, 256_000]);
        for _ in 0..50 {
            bitrates.handle_segment(0, 150_000, Duration::from_secs(6));
            bitrates.handle_segment(1, 96_000, Duration::from_secs(6));
        }
        bitrates.allow_up_to(0);
        assert_eq!([0, 1, 2].map(|index| bitrates.best(index)), [0, 1, 2]);
        assert_eq!(bitrates.corrected()[0], bitrates.get(0), "no less than it needs");
        bitrates.allow_up_to(1);
        assert_eq!(bitrates.best(0), 1);
    }

    #[test]
    fn a_list_of_sizes_counts_until_a_segment_has_arrived() {
        let listed = |bytes| std::iter::repeat_n((bytes, Duration::from_secs(6)), 100);
        let mut bitrates = named(10.0);
        bitrates.handle_list(1, listed(72_000));
        let once = shares(&bitrates);
        assert!(once.iter().all(|share| *share > 0.99 && *share < 1.1), "{once:?}");
        bitrates.handle_list(1, listed(1));
        bitrates.handle_list(9, listed(1));
        assert_eq!(shares(&bitrates), once);
    }

    #[test]
    fn unknown_bitrates_are_those_of_the_segments() {
        let mut bitrates = Bitrates::new(vec![0; 3]);
        bitrates.handle_segment(1, 96_000, Duration::from_secs(6));
        assert_eq!(bitrates.corrected(), [0, 128_000, 128_000]);
    }

    proptest! {
        #[test]
        fn two_minutes_of_any_level_show_what_all_of_them_need(
            lie in -3.0..3.0_f64,
            level in 0..4_usize,
            seconds in 1.0..10.0_f64,
            sizes in proptest::collection::vec(0.6..1.4_f64, 120),
        ) {
            let mut bitrates = named(lie.exp());
            let count = (120.0 / seconds).ceil() as usize;
            play(&mut bitrates, level, sizes.iter().take(count).map(|size| (seconds, *size)));
            let shares = shares(&bitrates);
            prop_assert!(shares.iter().all(|share| (0.7..1.4).contains(share)), "{shares:?}");
        }

        #[test]
        fn whatever_arrives_the_corrected_bitrates_are_ascending(
            mut named in proptest::collection::vec(prop_oneof![Just(0), 0..2_000_000_u64, any::<u64>()], 1..8),
            segments in proptest::collection::vec((0..9_usize, any::<u32>(), any::<u64>(), 0..4_u8), 0..30),
            highest in prop_oneof![0..9_usize, Just(usize::MAX)],
        ) {
            named.sort_unstable();
            let mut bitrates = Bitrates::new(named);
            bitrates.allow_up_to(highest);
            for (level, ms, bytes, kind) in segments {
                let duration = match kind {
                    0 => Duration::ZERO,
                    1 => Duration::MAX,
                    _ => Duration::from_millis(u64::from(ms)),
                };
                let bytes = if kind == 3 { bytes } else { bytes % 1_000_000 };
                bitrates.handle_segment(level, bytes, duration);
                let corrected = bitrates.corrected();
                prop_assert!(corrected.is_sorted());
                for (index, least) in corrected.iter().enumerate().take(highest.saturating_add(1)) {
                    let best = bitrates.best(index);
                    prop_assert!(best >= index && best <= highest && bitrates.get(best) == *least);
                    prop_assert!(*least <= bitrates.get(index));
                }
            }
        }
    }
}
