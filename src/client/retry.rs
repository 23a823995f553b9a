//! Decides whether a failed request is retried, and after which delay.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant, SystemTime};

use crate::error::Error;

/// Maximum of the first delay: a few round trips, enough for a restarted server or a changed network to return.
const BASE_DELAY: Duration = Duration::from_millis(250);
/// Maximum of every delay: short enough that a listener still waits, and long enough that an overloaded server can recover.
const MAX_DELAY: Duration = Duration::from_secs(8);
/// After this many failures every delay is up to [`MAX_DELAY`].
const MAX_DOUBLINGS: u32 = 5;
/// Maximum delay that a `Retry-After` can ask for. Longer ones are shortened to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// After this many new bytes the server counts as working again, and the delays start from the beginning. It is more than a
/// server sends before the first acknowledgement (about 14 KiB, RFC 6928).
const RESET_BYTES: u64 = 64 * 1024;

/// An attempt that delivered bytes for this long also resets the delays: a slow server is not a dead one.
const RESET_TIME: Duration = Duration::from_secs(1);

/// Counts failed attempts, for the delays between them and their limit.
///
/// The count is only reset after [`RESET_BYTES`] or [`RESET_TIME`]. Otherwise a server that sends one byte and closes the
/// connection would be retried without a pause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// Failed attempts since the last reset.
    failures: u32,
    /// Attempts of others that had failed before, as far as they count for the delays. Zero after a reset.
    earlier: u32,
    /// New bytes since the last reset, over all attempts.
    bytes: u64,
    /// When this attempt delivered its first new byte. `None` if it has delivered none.
    flowing_since: Option<Instant>,
}

impl Backoff {
    /// For a server that has failed so often already that the delays are the longest ones from the beginning on.
    pub(crate) fn in_outage() -> Self {
        Self { earlier: MAX_DOUBLINGS, ..Self::default() }
    }

    /// Records that `bytes` new bytes arrived at `now`.
    pub(crate) fn handle_bytes(&mut self, bytes: u64, now: Instant) {
        let since = *self.flowing_since.get_or_insert(now);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= RESET_BYTES || now.saturating_duration_since(since) >= RESET_TIME {
            (self.failures, self.earlier) = (0, 0);
            self.bytes = 0;
        }
    }

    /// Records that the attempt failed with `error`. Returns the delay before the next one, or `None` if `max_retries` attempts
    /// had already failed. `random` is a random number.
    pub(crate) fn handle_failure(
        &mut self,
        error: &Error,
        max_retries: u32,
        random: u64,
    ) -> Option<Duration> {
        // Taken: the next attempt measures its own time.
        let flowed = self.flowing_since.take().is_some();
        if self.failures >= max_retries {
            return None;
        }
        let after = delay(error, self.failures.saturating_add(self.earlier), flowed, random);
        self.failures += 1;
        Some(after)
    }
}

/// A resource that was there, and can't be had now: its server can't be reached, or the network sends an HTML page in its place,
/// because it wants a login. Reads no clock.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    /// When the first such failure after the last new byte was.
    since: Option<Instant>,
}

impl Absence {
    /// An absence counts as brief for this long: most networks and servers are back by then, and the user may log in meanwhile. As
    /// long as a radio waits for its station by default.
    pub(crate) const BRIEF: Duration = Duration::from_secs(120);
    /// Maximum delay between two attempts in that time, or as long as a listener waits: what is fetched goes on this soon after the
    /// return. Most delays of a longer absence are this long, so a server gets two attempts in three seconds; it is the first ones
    /// that spread the clients.
    pub(crate) const MAX_DELAY: Duration = Duration::from_millis(1500);

    /// Records a failure at `now`. Returns how long the absence has lasted.
    pub(crate) fn handle_failure(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since)
    }

    /// Maximum delay before the next attempt, in an absence that has `lasted` for this long. It grows once 1 % of what was
    /// waited already is more than [`MAX_DELAY`](Self::MAX_DELAY), from 150 s on: an attempt without a connection costs a
    /// server nothing, but it wakes the device.
    pub(crate) fn max_delay(lasted: Duration) -> Duration {
        Self::MAX_DELAY.max(lasted / 100)
    }

    /// Records that new bytes of the resource arrived.
    pub(crate) fn handle_bytes(&mut self) {
        self.since = None;
    }
}

/// Delay before the next attempt on a server that has been away for several attempts, and that a listener waits for. `random` is a
/// random number.
#[cfg(feature = "hls")]
pub(crate) fn outage_delay(error: &Error, random: u64) -> Duration {
    let after = delay(error, MAX_DOUBLINGS, false, random);
    if error.retry_after().is_some() { after } else { after.min(Absence::MAX_DELAY) }
}

/// Delay before the next attempt, after `failures` failed ones since the last reset: between 0 and 250 ms·2ⁿ, at most 8 s, or
/// what the server asks for. `flowed` if the attempt had delivered bytes. `random` is a random number.
pub(crate) fn delay(error: &Error, failures: u32, flowed: bool, random: u64) -> Duration {
    // At most 2^16, which is far above the maximum: a larger shift would overflow.
    let most = BASE_DELAY.saturating_mul(1_u32 << failures.min(16)).min(MAX_DELAY);
    // Full jitter, so that clients of a server that comes back do not return in step (Brooker, "Exponential Backoff And
    // Jitter", AWS Architecture Blog, 2015).
    let jittered = most.mul_f64(random as f64 / u64::MAX as f64);
    match error.retry_after() {
        // `Retry-After: 0` still backs off after a repeated failure.
        Some(requested) if failures > 0 => requested.min(MAX_RETRY_AFTER).max(jittered),
        Some(requested) => requested.min(MAX_RETRY_AFTER),
        // The server has just worked, and the reader lives on what is stored, which may be little.
        None if flowed && failures == 0 => Duration::ZERO,
        None => jittered,
    }
}

/// The delay in a `Retry-After` header: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number beyond 64 bits asks for a long wait, too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

/// A random number, from the seed of the standard library's hash maps. Good enough to keep clients from retrying in step; do
/// not use it for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn broken() -> Error {
        Error::new(ErrorKind::Disconnected, "gone")
    }

    #[test]
    fn the_first_retry_is_immediate_only_if_bytes_were_received() {
        assert_eq!(delay(&broken(), 0, true, u64::MAX), Duration::ZERO);
        assert_eq!(delay(&broken(), 0, false, u64::MAX), BASE_DELAY);
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let waits: Vec<_> =
            (0..8).map(|failures| delay(&broken(), failures, false, u64::MAX).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn one_byte_in_each_attempt_does_not_reset_the_count() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut waits = Vec::new();
        loop {
            backoff.handle_bytes(1, now);
            let Some(after) = backoff.handle_failure(&broken(), 5, u64::MAX) else { break };
            waits.push(after.as_millis());
            now += after;
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 4000]);
    }

    #[test]
    fn enough_bytes_or_time_reset_the_count() {
        let now = Instant::now() + START;
        let failed = || {
            let mut backoff = Backoff::default();
            (0..3).for_each(|_| assert!(backoff.handle_failure(&broken(), 5, 0).is_some()));
            backoff
        };
        let wait = |backoff: &mut Backoff| backoff.handle_failure(&broken(), 5, u64::MAX);
        let mut by_bytes = failed();
        by_bytes.handle_bytes(RESET_BYTES, now);
        assert_eq!(wait(&mut by_bytes), Some(Duration::ZERO));
        let mut by_bytes_of_several = failed();
        by_bytes_of_several.handle_bytes(RESET_BYTES - 1, now);
        assert_eq!(wait(&mut by_bytes_of_several), Some(8 * BASE_DELAY));
        by_bytes_of_several.handle_bytes(1, now);
        assert_eq!(wait(&mut by_bytes_of_several), Some(Duration::ZERO));
        let mut by_time = failed();
        by_time.handle_bytes(1, now);
        by_time.handle_bytes(1, now + RESET_TIME);
        assert_eq!(wait(&mut by_time), Some(Duration::ZERO));
    }

    #[test]
    fn an_absence_lasts_since_the_first_failure_after_the_last_byte() {
        let (mut absence, now) = (Absence::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(absence.handle_failure(now), Duration::ZERO);
        assert_eq!(absence.handle_failure(now + 120 * second), 120 * second);
        absence.handle_bytes();
        assert_eq!(absence.handle_failure(now + 121 * second), Duration::ZERO);
        assert_eq!(absence.handle_failure(now + 240 * second), 119 * second);
    }

    /// The times of the attempts of an absence of this length, and of the first one after it.
    fn attempts(absent: Duration, seed: u64) -> Vec<Duration> {
        let (start, mut now) = (Instant::now(), Duration::ZERO);
        let (mut backoff, mut absence, mut times) = (Backoff::default(), Absence::default(), Vec::new());
        let mut random = seed;
        while now < absent {
            times.push(now);
            // Knuth's generator: its high bits are random enough for a delay.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let after = backoff.handle_failure(&broken(), u32::MAX, random).unwrap();
            now += after.min(Absence::max_delay(absence.handle_failure(start + now)));
        }
        times.push(now);
        times
    }

    #[test]
    fn in_an_outage_the_delays_begin_with_the_longest_until_bytes_flow() {
        let (mut backoff, now) = (Backoff::in_outage(), Instant::now());
        assert_eq!(backoff.handle_failure(&broken(), 5, u64::MAX), Some(MAX_DELAY));
        backoff.handle_bytes(1, now);
        assert_eq!(backoff.handle_failure(&broken(), 5, u64::MAX), Some(MAX_DELAY), "one byte shows little");
        backoff.handle_bytes(RESET_BYTES, now);
        assert_eq!(backoff.handle_failure(&broken(), 5, u64::MAX), Some(Duration::ZERO));
    }

    #[test]
    fn retry_after_is_obeyed_up_to_its_maximum() {
        let error = broken().with_retry_after(Duration::from_secs(7));
        assert_eq!(delay(&error, 0, true, 0), Duration::from_secs(7));
        let error = broken().with_retry_after(Duration::from_secs(86_400));
        assert_eq!(delay(&error, 0, true, 0), MAX_RETRY_AFTER);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(parse_retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse_retry_after(date, now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after(date, now + Duration::from_secs(60)), Some(Duration::ZERO));
        // As in a cache (RFC 9111, section 1.2.2): too much to represent is as much as can be represented.
        let endless = parse_retry_after("99999999999999999999", now).unwrap();
        assert_eq!(delay(&broken().with_retry_after(endless), 0, true, 0), MAX_RETRY_AFTER);
        for none in ["soon", "+5", "-5", "5.5", ""] {
            assert_eq!(parse_retry_after(none, now), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in ".{0,64}") {
            parse_retry_after(&value, SystemTime::UNIX_EPOCH);
        }

        /// A dead server is not dialled without a pause, and one that is back is found soon.
        #[test]
        fn an_absence_is_over_soon_after_its_end_and_takes_few_attempts(seconds in 1..3600_u64, seed in any::<u64>()) {
            let absent = Duration::from_secs(seconds);
            let times = attempts(absent, seed);
            let late = *times.last().unwrap() - absent;
            prop_assert!(late <= Duration::from_millis(1500).max(absent / 100), "{late:?} after {absent:?}");
            // Most delays are the longest, which is 1.5 s or more: no more than one attempt each second after the first ones.
            prop_assert!(times.len() as u64 <= 12 + seconds, "{} in {absent:?}", times.len());
            let in_ten_minutes = times.iter().filter(|time| time.as_secs() < 600).count();
            prop_assert!(in_ten_minutes < 400, "{in_ten_minutes} in ten minutes");
        }

        /// As HLS does it: fetches with a few attempts each, and the same delay between two fetches.
        #[cfg(feature = "hls")]
        #[test]
        fn an_outage_that_a_listener_waits_for_is_over_soon_and_takes_few_attempts(
            seconds in 1..3600_u64,
            retries in 0..8_u32,
            seeds in proptest::collection::vec(any::<u64>(), 64),
        ) {
            let absent = Duration::from_secs(seconds);
            let (mut now, mut backoff, mut times) = (Duration::ZERO, Backoff::default(), Vec::new());
            let mut random = seeds.iter().cycle();
            while now < absent {
                times.push(now);
                let mut random = || *random.next().unwrap();
                let retry = backoff.handle_failure(&broken(), retries, random());
                now += match retry {
                    Some(after) => after.min(Absence::MAX_DELAY),
                    None => {
                        backoff = Backoff::in_outage();
                        outage_delay(&broken(), random())
                    }
                };
            }
            prop_assert!(now - absent <= Absence::MAX_DELAY);
            // In 64 delays whose upper bound is 8 s, chance has little weight.
            let at_most = 12 + seconds;
            prop_assert!((times.len() as u64) <= at_most, "{} in {absent:?}", times.len());
        }

        #[test]
        fn jitter_never_leaves_its_bounds(failures in any::<u32>(), random in any::<u64>()) {
            prop_assert!(delay(&broken(), failures, false, random) <= MAX_DELAY);
        }
    }
}
