//! What one of several streams may expect of a network that they share.

/// What another stream needs of the network.
///
/// [`share`] shows an example.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Demand {
    /// Streams of a higher rank come first.
    pub rank: u8,
    /// Bits per second. 0 if it needs nothing more.
    pub bitrate: f64,
    /// Bits per second of its lowest variant: with less it stalls.
    pub least: f64,
    /// Little audio is buffered, and more can be fetched.
    pub lacks_audio: bool,
}

impl Demand {
    /// A stream of this rank that needs this bitrate, and can't do with less.
    pub fn new(rank: u8, bitrate: f64) -> Self {
        Self { rank, bitrate, least: bitrate, lacks_audio: false }
    }

    /// What a stream with these variants needs, if it may expect this throughput: the highest bitrate that this sustains.
    /// Not the one it plays: a stream that has started just now, or after a slow phase, would never get more.
    pub fn of_variants(rank: u8, bitrates: &[u64], throughput: Option<f64>) -> Self {
        let below = throughput
            .map_or(bitrates.len(), |most| bitrates.partition_point(|bitrate| *bitrate as f64 <= most));
        let bitrate = |index: usize| bitrates.get(index).map_or(0.0, |bitrate| *bitrate as f64);
        Self { bitrate: bitrate(below.saturating_sub(1)), ..Self::new(rank, bitrate(0)) }
    }
}

/// Throughput that a stream of rank `own` may expect beside `others`, if all of them together get `total`, in bits per second.
///
/// Streams of a higher rank get what they need. The rest is divided evenly among those of the same rank: what one of them does not
/// need goes to the others, and one whose lowest variant needs more gets that, unless it needs far more than there is. Streams of a
/// lower rank do not count: they adapt. For these it is a limit too: [`Snapshot::limit`](super::Snapshot::limit).
///
/// ```
/// use windway::abr::{Demand, share};
///
/// let others = [Demand::of_variants(1, &[64_000, 700_000], None), Demand::new(0, 100_000.0)];
/// assert_eq!(share(1_000_000.0, 1, &others), 500_000.0);
/// assert_eq!(share(1_000_000.0, 0, &others), 200_000.0);
/// // It plays nothing below 700 kbit/s.
/// assert_eq!(share(1_000_000.0, 1, &[Demand::new(1, 700_000.0)]), 300_000.0);
/// ```
pub fn share(total: f64, own: u8, others: &[Demand]) -> f64 {
    let sum = |is_wanted: &dyn Fn(&Demand) -> bool| -> f64 {
        others.iter().filter(|other| is_wanted(other)).map(|other| other.bitrate).sum()
    };
    let rest = (total - sum(&|other| other.rank > own)).max(0.0);
    // Those that need nothing more (a bitrate of 0) leave their part to the others.
    let equals = others.iter().filter(|other| other.rank == own && other.bitrate > 0.0);
    // Not less than an even part, since the others adapt; more, if they need less than theirs.
    even_part(rest, equals).max(rest - sum(&|other| other.rank == own))
}

/// A stream whose lowest variant needs more than this many times the network stalls, whatever the others leave it. One that needs less
/// may play: an estimate may be half of what the network brings.
const HOPELESS: f64 = 2.0;

/// An even part of `rest`. Streams that can't adapt to it get what they need at least, unless that is hopeless: a wrong size of one
/// stream must not take all from the others.
fn even_part<'a>(rest: f64, equals: impl Iterator<Item = &'a Demand>) -> f64 {
    let mut least: Vec<f64> = equals.map(|other| other.least).collect();
    least.sort_by(f64::total_cmp);
    let mut rest = rest;
    while let Some(most) = least.pop() {
        let even = rest / (least.len() + 2) as f64;
        if most <= even {
            return even;
        }
        let part = if most > rest * HOPELESS { even } else { most };
        rest = (rest - part).max(0.0);
    }
    rest
}

/// True if a stream should not fill its buffer now, if all of them together get `total`, in bits per second: another stream lacks audio
/// and needs more than an even part for its lowest variant. TCP gives it no more while the others fetch.
///
/// For a stream of a lower rank only if its lowest variant fits into what those of a higher rank leave: they play on as before, with
/// less in the buffer.
///
/// ```
/// use windway::abr::{Demand, gives_way};
///
/// let mut other = Demand::new(1, 700_000.0);
/// assert!(!gives_way(1_000_000.0, &Demand::new(1, 64_000.0), &[other]));
/// other.lacks_audio = true;
/// assert!(gives_way(1_000_000.0, &Demand::new(1, 64_000.0), &[other]));
/// assert!(gives_way(1_000_000.0, &Demand::new(2, 64_000.0), &[other]));
/// assert!(!gives_way(1_000_000.0, &Demand::new(2, 400_000.0), &[other]), "600 kbit/s would not help the other one");
/// assert!(!gives_way(1_000_000.0, &Demand::new(1, 600_000.0), &[other]), "it needs more than an even part, too");
/// ```
pub fn gives_way(total: f64, own: &Demand, others: &[Demand]) -> bool {
    // Those that need nothing more do not fetch.
    let fetching = others.iter().filter(|other| other.bitrate > 0.0).count() + 1;
    let even = total / fetching as f64;
    let left_to = |rank: u8| {
        let above = others.iter().chain([own]).filter(|stream| stream.rank > rank);
        total - above.map(|stream| stream.bitrate).sum::<f64>()
    };
    let depends = |other: &Demand| {
        let needs_more = other.least > even && other.least <= total * HOPELESS;
        let may_have = other.rank >= own.rank || other.least <= left_to(other.rank);
        other.lacks_audio && needs_more && may_have
    };
    own.least <= even && others.iter().any(depends)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::abr::{Abr, AbrConfig, Estimator, Hybrid, Snapshot};

    const BITRATES: [u64; 4] = [66_000, 134_000, 270_000, 989_000];
    const SEGMENT: f64 = 6.0;
    const CAPACITY: f64 = 60.0;
    const LATENCY: f64 = 0.05;

    /// A player in virtual time.
    struct Player {
        rank: u8,
        abr: Hybrid,
        estimator: Estimator,
        buffered: f64,
        level: Option<usize>,
        /// Level and bits of the running transfer, and how many of them are left.
        transfer: Option<(usize, f64, f64)>,
        /// When its first byte comes.
        began: f64,
        /// Bits that the other player has received since then.
        of_others: f64,
        stalled: f64,
        /// Bits of the segments that have arrived.
        fetched: f64,
    }

    impl Player {
        fn new(rank: u8) -> Self {
            Self {
                rank,
                abr: Hybrid::new(AbrConfig::default()),
                estimator: Estimator::default(),
                buffered: 0.0,
                level: None,
                transfer: None,
                began: 0.0,
                of_others: 0.0,
                stalled: 0.0,
                fetched: 0.0,
            }
        }

        fn demand(&self) -> Demand {
            Demand::of_variants(self.rank, &BITRATES, self.estimator.throughput())
        }

        fn begin(&mut self, now: f64, others: &[Demand]) {
            if self.transfer.is_some() || self.buffered > CAPACITY - SEGMENT {
                return;
            }
            let seconds = Duration::from_secs_f64;
            let mut snapshot = Snapshot::new(&BITRATES, seconds(SEGMENT), seconds(CAPACITY));
            (snapshot.current, snapshot.buffered) = (self.level, seconds(self.buffered));
            snapshot.is_starting = self.level.is_none();
            snapshot.throughput = self.estimator.throughput().map(|total| share(total, self.rank, others));
            snapshot.limit =
                snapshot.throughput.filter(|_| others.iter().any(|other| other.rank > self.rank));
            snapshot.ttfb = seconds(LATENCY);
            let level = self.abr.choose(Instant::now(), &snapshot);
            let bits = BITRATES[level] as f64 * SEGMENT;
            (self.transfer, self.began, self.of_others) = (Some((level, bits, bits)), now + LATENCY, 0.0);
        }

        fn receive(&mut self, now: f64, own: f64, of_others: f64) {
            self.of_others += of_others;
            let Some((level, bits, left)) = &mut self.transfer else { return };
            *left -= own;
            if *left > 0.0 {
                return;
            }
            let (level, bits) = (*level, *bits);
            // The throughput of the network, and not of the part of it that this transfer got.
            let took = Duration::from_secs_f64((now - self.began) * bits / (bits + self.of_others));
            self.estimator.handle_transfer((bits / 8.0) as u64, took, Duration::from_secs_f64(LATENCY));
            self.transfer = None;
            self.level = Some(level);
            self.buffered += SEGMENT;
            self.fetched += bits;
        }

        fn play(&mut self, seconds: f64) {
            if self.level.is_some() {
                self.stalled += (seconds - self.buffered).max(0.0);
                self.buffered = (self.buffered - seconds).max(0.0);
            }
        }
    }

    /// Lets two players share a link for ten minutes. Returns the mean bitrate and the stalls of each.
    fn play(ranks: [u8; 2], rate: f64, knows_others: bool) -> [(f64, f64); 2] {
        const STEP: f64 = 0.01;
        const SECONDS: f64 = 600.0;
        let mut players = ranks.map(Player::new);
        for step in 0..(SECONDS / STEP) as u32 {
            let now = f64::from(step) * STEP;
            for index in 0..2 {
                let others = [players[1 - index].demand()];
                players[index].begin(now, if knows_others { &others } else { &[] });
            }
            // TCP divides the link evenly among what is transferred.
            let is_active = |player: &Player| player.transfer.is_some() && now >= player.began;
            let active = players.iter().filter(|player| is_active(player)).count();
            let bits = players
                .each_ref()
                .map(|player| if is_active(player) { rate * STEP / active as f64 } else { 0.0 });
            for index in 0..2 {
                players[index].receive(now + STEP, bits[index], bits[1 - index]);
                players[index].play(STEP);
            }
        }
        players.map(|player| (player.fetched / SECONDS, player.stalled))
    }

    #[test]
    fn a_stream_of_a_higher_rank_gets_what_it_would_have_alone() {
        let [high, low] = play([1, 0], 1_300_000.0, true);
        assert!(high.0 > 950_000.0, "{high:?} {low:?}");
        assert!(low.0 > 120_000.0 && low.0 < 320_000.0, "the rest is used: {low:?}");
        // These players can not give a segment up: the first ones of both meet on the link.
        assert!(high.1 < 3.0 && low.1 == 0.0, "{high:?} {low:?}");
        // Without a share each takes the network to be its own.
        let [high, low] = play([1, 0], 1_300_000.0, false);
        assert!(high.0 < 900_000.0, "the test notices the difference: {high:?} {low:?}");
    }

    #[test]
    fn streams_of_the_same_rank_share_evenly() {
        let [one, other] = play([1, 1], 700_000.0, true);
        assert!((one.0 / other.0 - 1.0).abs() < 0.25, "{one:?} {other:?}");
        assert_eq!((one.1, other.1), (0.0, 0.0), "no stalls");
    }

    #[test]
    fn a_stream_that_can_not_go_lower_gets_its_lowest_level_before_the_rest_is_divided() {
        let needs = |least: u64| Demand::of_variants(0, &[least, 400_000], None);
        // An even part is 100 kbit/s, which is too little for the one that needs 120.
        assert_eq!(share(300_000.0, 0, &[needs(120_000), needs(30_000)]), 90_000.0);
        assert_eq!(share(300_000.0, 0, &[needs(100_000), needs(30_000)]), 100_000.0);
        assert_eq!(share(300_000.0, 0, &[needs(200_000), needs(200_000)]), 0.0);
        assert_eq!(share(300_000.0, 0, &[needs(500_000), needs(30_000)]), 0.0, "the estimate may be too low");
        assert_eq!(share(300_000.0, 0, &[needs(700_000), needs(30_000)]), 100_000.0);
        assert_eq!(share(300_000.0, 0, &[needs(700_000), needs(120_000)]), 80_000.0);
    }

    proptest! {
        #[test]
        fn shares_are_never_more_than_the_network_and_never_less_for_a_higher_rank(
            total in 0.0..1e7_f64,
            own in 0_u8..3,
            others in proptest::collection::vec((0_u8..3, 0.0..2e6_f64, 0.0..1.0_f64), 0..5),
        ) {
            let others: Vec<Demand> = others
                .iter()
                .map(|(rank, bitrate, least)| Demand { least: bitrate * least, ..Demand::new(*rank, *bitrate) })
                .collect();
            let expected = share(total, own, &others);
            prop_assert!((0.0..=total).contains(&expected));
            prop_assert!(share(total, own + 1, &others) >= expected * 0.999);
            let even = total / (others.len() + 1) as f64;
            let adapt = others.iter().all(|other| other.least <= even);
            prop_assert!(own < 2 || !adapt || expected >= even * 0.999);
        }
    }
}
